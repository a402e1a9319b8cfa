//! Computes expected answers, where the corpus has none, without the sensor's matcher.
//!
//! One automaton searches narrowed text for literals. Verdicts come from the naive evaluator, which evaluates only rules of
//! which a necessary literal occurs in the text; a test compares the result with the evaluation of all rules.

use crate::answer::Pair;
use crate::literals::{Gate, Literals};
use crate::narrow::narrow;
use crate::rules::RuleSet;
use crate::workload::{Part, Workload, text_of};
use aho_corasick::AhoCorasick;
use etwsieve_matcher::{EventKind, naive};

/// Size of the sample for frequencies, in bytes of narrowed text.
const SAMPLE_LEN: u64 = 512 << 10;

/// Returns a sample of a workload's text, narrowed.
pub fn sample(workload: &Workload) -> Vec<u8> {
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for (_, payload) in workload.part(Part::of(workload, 2 * SAMPLE_LEN)) {
        narrow(text_of(payload), &mut one);
        all.extend_from_slice(&one);
    }
    all
}

/// Returns which literals occur in which events, ignoring case.
pub fn occurrences(workload: &Workload, literals: &Literals, part: Part) -> Vec<Pair> {
    search(
        literals.list.iter().map(|literal| literal.narrowed.as_slice()),
        workload,
        part,
        |payload, text| {
            narrow(text_of(payload), text);
            1
        },
    )
}

/// Returns which literals occur in which events, spelled as in the rules.
pub fn spelled(workload: &Workload, literals: &Literals, part: Part) -> Vec<Pair> {
    search(literals.list.iter().map(|literal| literal.spelled.as_slice()), workload, part, |payload, text| {
        text.clear();
        text.extend_from_slice(text_of(payload));
        2
    })
}

/// `prepare` makes the text and returns the number of bytes per unit.
fn search<'a>(
    needles: impl Iterator<Item = &'a [u8]>,
    workload: &Workload,
    part: Part,
    prepare: impl Fn(&[u8], &mut Vec<u8>) -> usize,
) -> Vec<Pair> {
    let automaton = AhoCorasick::new(needles).expect("literals of rules fit into an automaton");
    let (mut text, mut pairs) = (Vec::new(), Vec::new());
    let mut seen = vec![u32::MAX; automaton.patterns_len()];
    for (event, payload) in workload.part(part) {
        let unit_len = prepare(payload, &mut text);
        for found in automaton.find_overlapping_iter(&text) {
            let literal = found.pattern().as_usize();
            if seen[literal] != event && found.start().is_multiple_of(unit_len) {
                seen[literal] = event;
                pairs.push((event, literal as u32));
            }
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Returns which rules match which events, except for pairs in `known`.
pub fn verdicts(
    workload: &Workload,
    rules: &RuleSet,
    part: Part,
    known: impl Fn(u32, u32) -> bool,
) -> Vec<Pair> {
    let needed = |number: &usize| workload.part(part).any(|(event, _)| !known(event, *number as u32));
    if !(0..rules.rules.len()).any(|number| needed(&number)) {
        return Vec::new();
    }
    let gate = Gate::new(&rules.rules, &sample(workload));
    // The rules that need each literal, and those that need none.
    let mut by_literal = vec![Vec::new(); gate.literals.len()];
    let mut always = Vec::new();
    for (rule, clause) in (0u32..).zip(&gate.clauses) {
        match clause {
            Some(clause) => clause.iter().for_each(|&literal| by_literal[literal as usize].push(rule)),
            None => always.push(rule),
        }
    }
    let found = occurrences(workload, &gate.literals, part);
    let mut rest = found.as_slice();
    let mut pairs = Vec::new();
    for (event, payload) in workload.part(part) {
        let own = rest.iter().take_while(|(other, _)| *other == event).count();
        let (literals, behind) = rest.split_at(own);
        rest = behind;
        let mut candidates = always.clone();
        candidates.extend(literals.iter().flat_map(|(_, literal)| &by_literal[*literal as usize]));
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|rule| {
            !known(event, *rule)
                && naive::matches(&rules.rules[*rule as usize], EventKind::ScriptBlock, payload)
        });
        pairs.extend(candidates.into_iter().map(|rule| (event, rule)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{occurrences, spelled, verdicts};
    use crate::literals::Literals;
    use crate::rules::RuleSet;
    use crate::workload::{Name, Part, Size, Workload, text_of};
    use etwsieve_matcher::{EventKind, naive};

    #[test]
    fn candidates_lose_no_verdict() {
        for name in [Name::Hit, Name::Evtx] {
            let workload = Workload::load(name, Size::Small).unwrap();
            let part = Part::of(&workload, 60_000);
            for rules in RuleSet::all().unwrap().iter().filter(|rules| rules.name != "sigma10") {
                let mut all = Vec::new();
                for (event, payload) in workload.part(part) {
                    for (number, rule) in (0..).zip(&rules.rules) {
                        if naive::matches(rule, EventKind::ScriptBlock, payload) {
                            all.push((event, number));
                        }
                    }
                }
                assert_eq!(verdicts(&workload, rules, part, |_, _| false), all, "{name:?} {}", rules.name);
                assert_eq!(workload.expected(rules, part).unwrap(), all, "{name:?} {}", rules.name);
            }
        }
    }

    #[test]
    fn literals_are_where_they_stand() {
        let workload = Workload::generated(Name::Stream, Size::Small).unwrap();
        let literals = Literals::all(&RuleSet::ten().rules);
        let lowered = |payload: &[u8]| -> Vec<u8> {
            text_of(payload)
                .chunks(2)
                .map(|unit| if unit[1] == 0 { unit[0].to_ascii_lowercase() } else { 0xFF })
                .collect()
        };
        let (mut any_case, mut as_spelled) = (Vec::new(), Vec::new());
        for (event, payload) in workload.payloads() {
            let text = lowered(payload);
            for (number, literal) in (0..).zip(&literals.list) {
                if text.windows(literal.narrowed.len()).any(|window| window == literal.narrowed) {
                    any_case.push((event, number));
                }
                let raw = text_of(payload);
                let mut windows = raw.windows(literal.spelled.len()).step_by(2);
                if windows.any(|window| window == literal.spelled) {
                    as_spelled.push((event, number));
                }
            }
        }
        assert!(!as_spelled.is_empty() && any_case.len() > as_spelled.len());
        assert_eq!(occurrences(&workload, &literals, Part::WHOLE), any_case);
        assert_eq!(spelled(&workload, &literals, Part::WHOLE), as_spelled);
    }
}
