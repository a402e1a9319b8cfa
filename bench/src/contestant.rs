//! The contestants: the sensor's matcher, its peers, and upper bounds.

mod automaton;
mod bound;
pub mod decode;
#[cfg(feature = "peers")]
mod hyperscan;
mod memmem;
mod naive;
mod ours;
mod regexes;
mod sigma_engine;

pub(crate) use bound::absent_byte;
pub(crate) use sigma_engine::event as decoded_event;

use crate::answer::{Answer, Difference, Pair};
use crate::error::BenchError;
use crate::literals::{Gate, Literals};
use crate::reference;
use crate::rules::RuleSet;
use crate::workload::{Part, Workload};
use etwsieve_matcher::{Kernel, Repeats};
use std::rc::Rc;

/// The question that a contestant answers. The sensor needs verdicts; the others are easier questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which rules match which events.
    Verdicts,
    /// Which literals of the rules occur in which events, ignoring case.
    Literals,
    /// Which gate literals occur in which events, ignoring case.
    Gate,
    /// Which literals occur in which events, spelled as in the rules.
    Spelled,
    /// None: the contestant reads every byte and finds nothing. A bound.
    Bound,
}

impl Question {
    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verdicts => "verdicts",
            Self::Literals => "literals",
            Self::Gate => "gate literals",
            Self::Spelled => "literals as spelled",
            Self::Bound => "bound",
        }
    }
}

/// Something that searches the payloads of a workload for a set of rules.
pub trait Contestant {
    /// The name in reports.
    fn name(&self) -> String;

    /// The question that it answers.
    fn question(&self) -> Question {
        Question::Verdicts
    }

    /// The events of the workload that it searches. Slow contestants search a sample.
    fn part(&self) -> Part {
        Part::WHOLE
    }

    /// The number of rules that it searches for, from the first on.
    fn rules(&self, rules: &RuleSet) -> usize {
        rules.rules.len()
    }

    /// Searches once and reports each pair of an event and a rule, or literal, that it finds there.
    fn search(&mut self, found: &mut dyn FnMut(Pair));
}

/// The data that the contestants of one race share.
pub(crate) struct Field<'a> {
    workload: &'a Workload,
    rules: &'a RuleSet,
    literals: Rc<Literals>,
    gate: Rc<Gate>,
    /// All expected verdicts.
    verdicts: Vec<Pair>,
}

/// A contestant and its expected answer.
pub struct Entry<'a> {
    contestant: Box<dyn Contestant + 'a>,
    workload: &'a Workload,
    rules: &'a RuleSet,
    /// The literals that the second number of a pair refers to; `None` if it refers to rules.
    literals: Option<Rc<Literals>>,
    expected: Vec<Pair>,
    answer: Answer,
    events: u64,
    bytes: u64,
}

/// The contestants of a race, and those that cannot take part.
pub struct Entries<'a> {
    /// The contestants, the sensor's matcher first.
    pub list: Vec<Entry<'a>>,
    /// Names of those that cannot take part, with the reasons.
    pub left_out: Vec<(String, String)>,
}

/// Returns the sensor's matcher with its default kernel and with each other kernel, and the bounds.
///
/// # Errors
///
/// [`BenchError`] if the expected verdicts are of another trace.
pub fn own<'a>(workload: &'a Workload, rules: &'a RuleSet) -> Result<Vec<Entry<'a>>, BenchError> {
    let field = Field::new(workload, rules)?;
    let mut left_out = Vec::new();
    let list = ours_and_bounds(&field, None, &mut left_out);
    Ok(list.into_iter().map(|one| Entry::new(one, &field)).collect())
}

/// Returns all contestants for a workload and a rule set, the sensor's matcher first.
///
/// `base` is a smaller set of rules with which the matcher takes part once more, to show the cost of the other rules.
///
/// # Errors
///
/// [`BenchError`] if a peer rejects a rule, or the expected verdicts are of another trace.
pub fn entries<'a>(
    workload: &'a Workload,
    rules: &'a RuleSet,
    base: Option<&'a RuleSet>,
) -> Result<Entries<'a>, BenchError> {
    let field = Field::new(workload, rules)?;
    let mut left_out = Vec::new();
    let mut list = ours_and_bounds(&field, base, &mut left_out);
    list.push(Box::new(memmem::Memmem::new(&field)));
    list.push(Box::new(automaton::Automaton::raw(&field)));
    list.push(Box::new(automaton::Automaton::narrowed(&field)));
    match regexes::Regexes::new(&field) {
        Ok(regexes) => list.push(Box::new(regexes)),
        Err(reason) => left_out.push(("regex".into(), reason)),
    }
    match &rules.needles {
        Some(needles) => list.push(Box::new(decode::Decode::new(workload, needles))),
        None => {
            left_out.push(("decode-lowercase".into(), "the rules are more than plain needles".into()));
        }
    }
    list.push(Box::new(sigma_engine::SigmaEngine::new(workload, rules)?));
    list.push(Box::new(naive::Naive::new(workload, rules)));
    #[cfg(feature = "peers")]
    for library in crate::hs::libraries() {
        match library {
            Ok(library) => {
                list.push(Box::new(hyperscan::Hyperscan::raw(library, &field)?));
                list.push(Box::new(hyperscan::Hyperscan::best(library, &field)?));
            }
            Err(absent) => left_out.push((absent.name.into(), absent.reason.clone())),
        }
    }
    #[cfg(not(feature = "peers"))]
    left_out.push(("vectorscan, hyperscan".into(), "built without the feature peers".into()));
    let list = list.into_iter().map(|one| Entry::new(one, &field)).collect();
    Ok(Entries { list, left_out })
}

fn ours_and_bounds<'a>(
    field: &Field<'a>,
    base: Option<&'a RuleSet>,
    left_out: &mut Vec<(String, String)>,
) -> Vec<Box<dyn Contestant + 'a>> {
    let Field { workload, rules, .. } = *field;
    let mut list: Vec<Box<dyn Contestant + 'a>> = vec![Box::new(ours::Ours::new(workload, rules))];
    for kernel in Kernel::available() {
        list.push(Box::new(ours::Ours::new(workload, rules).with_kernel(rules, kernel)));
    }
    if workload.has_repeats() {
        list.push(Box::new(ours::Ours::new(workload, rules).with_repeats(rules, Repeats::Never)));
    }
    if let Some(base) = base {
        list.push(Box::new(ours::Ours::new(workload, base).named(format!("etwsieve, {} only", base.name))));
    }
    match bound::Absent::new(workload) {
        Some(absent) => list.push(Box::new(absent)),
        None => left_out.push(("memchr-absent".into(), "every byte occurs".into())),
    }
    list.push(Box::new(bound::Copy::new(workload)));
    list
}

impl<'a> Field<'a> {
    fn new(workload: &'a Workload, rules: &'a RuleSet) -> Result<Self, BenchError> {
        let literals = Rc::new(Literals::all(&rules.rules));
        let gate = Rc::new(Gate::new(&rules.rules, &reference::sample(workload)));
        let verdicts = workload.expected(rules, Part::WHOLE)?;
        Ok(Self { workload, rules, literals, gate, verdicts })
    }
}

impl<'a> Entry<'a> {
    fn new(contestant: Box<dyn Contestant + 'a>, field: &Field<'a>) -> Self {
        let (workload, part) = (field.workload, contestant.part());
        let rules = field.rules;
        let (expected, literals) = match contestant.question() {
            Question::Verdicts => {
                // A contestant that searches for the first rules only is expected to find only those.
                let known = contestant.rules(rules);
                let is_owed = |pair: &&Pair| part.contains(pair.0) && (pair.1 as usize) < known;
                let expected = field.verdicts.iter().filter(is_owed).copied().collect();
                (expected, None)
            }
            Question::Literals => {
                (reference::occurrences(workload, &field.literals, part), Some(Rc::clone(&field.literals)))
            }
            Question::Gate => {
                let literals = Rc::new(field.gate.literals.clone());
                (reference::occurrences(workload, &literals, part), Some(literals))
            }
            Question::Spelled => {
                (reference::spelled(workload, &field.literals, part), Some(Rc::clone(&field.literals)))
            }
            Question::Bound => (Vec::new(), None),
        };
        let (mut events, mut bytes) = (0, 0);
        for (_, payload) in workload.part(part) {
            events += 1;
            bytes += payload.len() as u64;
        }
        Self { answer: Answer::of(&expected), contestant, workload, rules, literals, expected, events, bytes }
    }

    /// The contestant's name.
    pub fn name(&self) -> String {
        self.contestant.name()
    }

    /// The question that it answers.
    pub fn question(&self) -> Question {
        self.contestant.question()
    }

    /// Number of events that one pass searches.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Number of payload bytes that one pass searches.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Runs one pass and compares its answer pair by pair with the expected one.
    ///
    /// # Errors
    ///
    /// [`BenchError::WrongAnswer`].
    pub fn verify(&mut self) -> Result<(), BenchError> {
        let mut found = Vec::new();
        self.contestant.search(&mut |pair| found.push(pair));
        match Difference::between(&self.expected, &found) {
            None => Ok(()),
            Some(difference) => Err(self.wrong(difference)),
        }
    }

    /// Runs one pass as it is measured, and compares the digest of its answer.
    ///
    /// # Errors
    ///
    /// [`BenchError::WrongAnswer`].
    pub fn run(&mut self) -> Result<(), BenchError> {
        let mut answer = Answer::default();
        self.contestant.search(&mut |pair| answer.add(pair));
        if answer == self.answer {
            return Ok(());
        }
        let difference =
            Difference { expected: self.answer.pairs, found: answer.pairs, missing: None, extra: None };
        Err(self.wrong(difference))
    }

    fn wrong(&self, difference: Difference) -> BenchError {
        let pair = difference.missing.or(difference.extra);
        let named = pair.map(|(_, number)| self.describe(number)).unwrap_or_default();
        BenchError::WrongAnswer {
            contestant: self.name(),
            workload: self.workload.name.into(),
            rules: format!("{}{named}", self.rules.name),
            difference,
        }
    }

    /// Describes the rule or literal with this number.
    fn describe(&self, number: u32) -> String {
        let text = match &self.literals {
            Some(literals) => {
                literals.list.get(number as usize).map(|l| String::from_utf8_lossy(&l.narrowed).into_owned())
            }
            None => self.rules.rules.get(number as usize).map(|rule| format!("{} {}", rule.id, rule.title)),
        };
        text.map(|text| format!(" ({number}: {text})")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, entries, own};
    use crate::rules::RuleSet;
    use crate::workload::{Name, Size, Workload};

    #[test]
    fn all_contestants_answer_right() {
        let rule_sets = RuleSet::all().unwrap();
        let check = |workload: &Workload, sets: &[&str]| {
            for rules in rule_sets.iter().filter(|rules| sets.contains(&rules.name)) {
                for entry in &mut entries(workload, rules, None).unwrap().list {
                    entry.verify().unwrap();
                    entry.run().unwrap();
                }
            }
        };
        for name in Name::ALL {
            check(&Workload::load(name, Size::Small).unwrap(), &["builtin", "ten"]);
            check(&Workload::generated(name, Size::Small).unwrap(), &["builtin", "ten"]);
        }
        // Peers take long to compile that many rules.
        check(&Workload::load(Name::Hit, Size::Small).unwrap(), &["sigma"]);
    }

    #[test]
    fn every_kernel_answers_right() {
        for name in Name::ALL {
            let workload = Workload::load(name, Size::Small).unwrap();
            for rules in &RuleSet::all().unwrap() {
                for entry in &mut own(&workload, rules).unwrap() {
                    entry.verify().unwrap();
                }
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        let workload = Workload::generated(Name::Stream, Size::Small).unwrap();
        let rules = RuleSet::builtin();
        let mut entries = entries(&workload, &rules, None).unwrap().list;
        let entry: &mut Entry<'_> = &mut entries[0];
        assert_eq!(entry.expected, [(100, 0), (300, 0)]);
        entry.expected[1].0 += 1;
        entry.answer = crate::answer::Answer::of(&entry.expected);
        let errors = [entry.verify(), entry.run()].map(|result| result.unwrap_err().to_string());
        assert!(errors[0].contains("event 301 with rule 0 is missing"), "{}", errors[0]);
        assert!(errors[0].contains("a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af"), "{}", errors[0]);
        assert!(errors[1].contains("wrong answer of etwsieve on stream with builtin"), "{}", errors[1]);
    }
}
