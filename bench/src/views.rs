//! Measures the cost of the views: the raw search alone, with the prefilter of the views, and with the views of events that
//! pass it.

use crate::answer::Difference;
use crate::error::BenchError;
use crate::measure::{ClockKind, Entrant};
use crate::rules::{RuleSet, compile};
use crate::workload::{Name, Part, Workload};
use etwsieve_matcher::{EventKind, Matcher, Payload, Repeats, Rule, Scratch, ViewBudget, Views, builtin};

/// The workloads: harmless scripts, of which hardly any passes the prefilter, and small events.
pub const WORKLOADS: [Name; 2] = [Name::Stream, Name::Small];
/// The rule sets.
pub const RULES: [&str; 2] = ["builtin", "sigma"];

/// The steps that an event goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The raw search only.
    Raw,
    /// The raw search and the prefilter of the views.
    Test,
    /// The same, and the views of events that pass the prefilter.
    Views,
}

/// The result of a pass over the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Number of pairs of an event and a rule in the raw view.
    pub raw: usize,
    /// Number of events that pass the prefilter.
    pub closer: usize,
    /// Number of pairs that other views add.
    pub added: usize,
}

impl Depth {
    /// All depths, the raw search first.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Test, Self::Views];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Test => "raw, prefilter",
            Self::Views => "raw, views",
        }
    }
}

/// Returns the rules as the sensor loads them; the built-in rule comes with its rule for the call-aware view.
pub fn rules(set: &RuleSet) -> Vec<Rule> {
    if set.name == "builtin" { builtin::rules() } else { set.rules.clone() }
}

/// Searches every event.
pub fn pass(matcher: &Matcher, workload: &Workload, depth: Depth, scratch: &mut Scratch) -> Outcome {
    let mut outcome = Outcome::default();
    for (_, bytes) in workload.payloads() {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let raw = matcher.find(&payload, scratch);
        outcome.raw += raw.len();
        if depth == Depth::Raw {
            continue;
        }
        // Usually empty, so this does not allocate.
        let raw = raw.to_vec();
        let mut budget = ViewBudget::new(bytes.len());
        if !matcher.views_could_differ_from_raw(&payload, Views::ALL, scratch, &mut budget) {
            continue;
        }
        outcome.closer += 1;
        if depth == Depth::Views {
            outcome.added += matcher.find_views(&payload, Views::ALL, &raw, scratch, &mut budget).len();
        }
    }
    outcome
}

/// Checks that the raw answers are the expected ones and that the prefilter hides no answer of a view.
///
/// # Errors
///
/// [`BenchError::WrongAnswer`].
pub fn verify(matcher: &Matcher, workload: &Workload, set: &RuleSet) -> Result<Outcome, BenchError> {
    let mut scratch = Scratch::default();
    let outcome = pass(matcher, workload, Depth::Views, &mut scratch);
    let known = workload.expected(set, Part::WHOLE)?.len();
    let mut added = 0;
    for (_, bytes) in workload.payloads() {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let raw = matcher.find(&payload, &mut scratch).to_vec();
        let mut budget = ViewBudget::new(bytes.len());
        added += matcher.find_views_unfiltered(&payload, Views::ALL, &raw, &mut scratch, &mut budget).len();
    }
    let found = [(known, outcome.raw), (added, outcome.added)];
    let wrong = found.into_iter().find(|(expected, found)| expected != found);
    wrong.map_or(Ok(outcome), |(expected, found)| Err(wrong_answer(workload, set, expected, found)))
}

fn wrong_answer(workload: &Workload, set: &RuleSet, expected: usize, found: usize) -> BenchError {
    BenchError::WrongAnswer {
        contestant: "etwsieve, views".to_owned(),
        workload: workload.name.to_owned(),
        rules: set.name.to_owned(),
        difference: Difference { expected: expected as u64, found: found as u64, missing: None, extra: None },
    }
}

/// Returns an entrant for each depth, after checking its answers. Repeated texts are searched again.
///
/// # Errors
///
/// Same as [`verify`].
pub fn entrants<'a>(
    matcher: &'a Matcher,
    workload: &'a Workload,
    set: &'a RuleSet,
) -> Result<Vec<Entrant<'a>>, BenchError> {
    let expected = verify(matcher, workload, set)?;
    let entrant = |depth: Depth| {
        let mut scratch = Scratch::default();
        Entrant {
            name: depth.as_str().to_owned(),
            question: "verdicts",
            events: workload.len() as u64,
            bytes: workload.payloads().map(|(_, bytes)| bytes.len() as u64).sum(),
            clock: ClockKind::Thread,
            pass: Box::new(move || {
                let found = pass(matcher, workload, depth, &mut scratch);
                let is_right = found.raw == expected.raw
                    && (depth == Depth::Raw || found.closer == expected.closer)
                    && (depth != Depth::Views || found.added == expected.added);
                is_right.then_some(()).ok_or_else(|| wrong_answer(workload, set, expected.raw, found.raw))
            }),
        }
    };
    Ok(Depth::ALL.map(entrant).into())
}

/// Returns the matcher of a race.
pub fn matcher(set: &RuleSet) -> Matcher {
    compile(rules(set)).with_repeats(Repeats::Never)
}
