//! Who takes part: the sensor's matcher, what it is compared with, and the bounds.

mod absent;
pub mod decode;
mod naive;
mod ours;
mod peer;

pub(crate) use absent::absent_byte;

use crate::answer::{Answer, Difference, Pair};
use crate::error::BenchError;
use crate::rules::RuleSet;
use crate::workload::Workload;

/// Something that searches the payloads of a workload for a set of rules.
pub trait Contestant {
    /// The name in reports.
    fn name(&self) -> &'static str;

    /// How many of the workload's events it searches, from the first on. Slow ones take few.
    fn events(&self) -> usize;

    /// Whether it answers the question; otherwise it is a bound, touches every byte and finds nothing.
    fn gives_verdicts(&self) -> bool {
        true
    }

    /// Searches once and reports each pair of an event and a rule that matches it.
    fn search(&mut self, found: &mut dyn FnMut(Pair));
}

/// A contestant and the answer that it owes.
pub struct Entry<'a> {
    contestant: Box<dyn Contestant + 'a>,
    workload: &'a Workload,
    rules: &'a RuleSet,
    expected: Vec<Pair>,
    answer: Answer,
}

/// All contestants for a workload and a rule set, ours first. Empty if nobody knows the right answer.
///
/// # Errors
///
/// [`BenchError`] if the peer refuses a rule, or the expected verdicts are of another trace.
pub fn entries<'a>(workload: &'a Workload, rules: &'a RuleSet) -> Result<Vec<Entry<'a>>, BenchError> {
    let Some(expected) = workload.expected(rules)? else { return Ok(Vec::new()) };
    let mut contestants: Vec<Box<dyn Contestant + 'a>> = vec![Box::new(ours::Ours::new(workload, rules))];
    if rules.name == "builtin" {
        contestants.push(Box::new(decode::Decode::new(workload)));
        match absent::Absent::new(workload) {
            Some(absent) => contestants.push(Box::new(absent)),
            None => eprintln!("left out: memchr-absent, every byte occurs in {}", workload.name),
        }
    }
    contestants.push(Box::new(peer::Peer::new(workload, rules)?));
    contestants.push(Box::new(naive::Naive::new(workload, rules)));
    let entry = |contestant: Box<dyn Contestant + 'a>| {
        let is_owed = |pair: &&Pair| contestant.gives_verdicts() && (pair.0 as usize) < contestant.events();
        let expected: Vec<Pair> = expected.iter().filter(is_owed).copied().collect();
        Entry { answer: Answer::of(&expected), contestant, workload, rules, expected }
    };
    Ok(contestants.into_iter().map(entry).collect())
}

impl Entry<'_> {
    /// The contestant's name.
    pub fn name(&self) -> &'static str {
        self.contestant.name()
    }

    /// Events that one pass searches.
    pub fn events(&self) -> u64 {
        self.contestant.events() as u64
    }

    /// Payload bytes that one pass searches.
    pub fn bytes(&self) -> u64 {
        self.workload.bytes_of(self.contestant.events())
    }

    /// One pass, pair by pair against the answer owed.
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

    /// One pass as it is measured.
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
        BenchError::WrongAnswer {
            contestant: self.name().into(),
            workload: self.workload.name.into(),
            rules: self.rules.name.into(),
            difference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, entries};
    use crate::rules::RuleSet;
    use crate::workload::{Name, Size, Workload};

    #[test]
    fn all_contestants_answer_right() {
        for name in Name::ALL {
            let workloads = [Workload::load(name, Size::Small), Workload::generated(name, Size::Small)];
            for workload in workloads.map(Result::unwrap) {
                for rules in RuleSet::all().unwrap() {
                    for entry in &mut entries(&workload, &rules).unwrap() {
                        entry.verify().unwrap();
                        entry.run().unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        let workload = Workload::generated(Name::Stream, Size::Small).unwrap();
        let rules = RuleSet::builtin();
        let mut entries = entries(&workload, &rules).unwrap();
        let entry: &mut Entry<'_> = &mut entries[0];
        assert_eq!(entry.expected, [(100, 0), (300, 0)]);
        entry.expected[1].0 += 1;
        entry.answer = crate::answer::Answer::of(&entry.expected);
        let errors = [entry.verify(), entry.run()].map(|result| result.unwrap_err().to_string());
        assert!(errors[0].contains("event 301 with rule 0 is missing"), "{}", errors[0]);
        assert!(errors[1].contains("wrong answer of etwsieve on stream with builtin"), "{}", errors[1]);
    }
}
