//! Runs the races of all workloads, rule sets and contestants, one after the other.

use super::{Compiled, LeftOut, Report, Row, aims};
use crate::contestant::{Entry, entries};
use crate::error::BenchError;
use crate::facts::facts;
use crate::measure::{Effort, Entrant, Measured, race};
use crate::rules::{RuleSet, compile, kernel};
use crate::workload::{Name, Size, Workload};
use crate::{callback, programs, reader, replay, views};
use cpu_time::ThreadTime;
use etwsieve_matcher::EventKind;
use std::hint::black_box;
use std::sync::Arc;

/// Number of times that each rule set is compiled, of which the median counts.
const COMPILATIONS: usize = 5;

/// The extent of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number and duration of samples.
    pub effort: Effort,
    /// Size of each workload.
    pub size: Size,
    /// Only races whose title contains this, such as `stream, sigma` or `reader`.
    pub only: String,
    /// Rounds of whole programs; 0 omits them.
    pub program_rounds: usize,
    /// Bursts in a round of the callback.
    pub bursts: usize,
}

/// Runs all races.
///
/// # Errors
///
/// The first wrong answer, or the first error that prevents a race.
pub fn collect(options: &Options) -> Result<Report, BenchError> {
    let mut run = Run { options, report: Report { facts: facts(), ..Report::default() } };
    let effort = options.effort;
    run.report.facts.push((
        "effort",
        format!("{} rounds, a sample takes {} ms or one pass", effort.rounds, effort.sample.as_millis()),
    ));
    let kernel = kernel().map_or_else(|error| error.to_string(), |kernel| kernel.to_string());
    run.report.facts.push(("scan kernel", kernel));
    #[cfg(feature = "peers")]
    for library in crate::hs::libraries().flatten() {
        run.report.facts.push((library.name(), library.version().trim().to_owned()));
    }
    let rule_sets = RuleSet::all()?;
    if rule_sets.len() < 4 {
        run.leave_out("rules", "sigma, sigma10", "the corpus is not available");
    }
    for name in Name::ALL {
        run.workload(name, &rule_sets)?;
    }
    run.callback()?;
    if run.wants("rules") {
        run.report.compiled = rule_sets.iter().map(measure_compilation).collect();
    }
    let mut report = run.report;
    report.aims = aims::of(&report);
    Ok(report)
}

struct Run<'o> {
    options: &'o Options,
    report: Report,
}

impl Run<'_> {
    fn wants(&self, title: &str) -> bool {
        title.contains(&self.options.only)
    }

    fn leave_out(&mut self, title: &str, contestant: &str, reason: &str) {
        let left_out =
            LeftOut { title: title.to_owned(), contestant: contestant.to_owned(), reason: reason.to_owned() };
        self.report.left_out.push(left_out);
    }

    fn workload(&mut self, name: Name, rule_sets: &[RuleSet]) -> Result<(), BenchError> {
        let title = |part: &str, rules: &str| format!("{part}: {}, {rules}", name.as_str());
        let parts = ["payloads", "views", "replay", "programs"];
        let any = parts.iter().any(|part| rule_sets.iter().any(|rules| self.wants(&title(part, rules.name))));
        if !any && !self.wants(&title("reader", "none")) {
            return Ok(());
        }
        let workload = Workload::load(name, self.options.size)?;
        for rules in rule_sets {
            let title = title("payloads", rules.name);
            if self.wants(&title) {
                // The smaller set takes part too, which shows the cost of nine times as many rules side by side.
                let base = rule_sets.iter().find(|base| rules.name == "sigma10" && base.name == "sigma");
                let found = entries(&workload, rules, base)?;
                for (contestant, reason) in found.left_out {
                    self.leave_out(&title, &contestant, &reason);
                }
                let mut list = found.list;
                list.iter_mut().try_for_each(Entry::verify)?;
                let mut entrants: Vec<Entrant<'_>> = list.into_iter().map(Entrant::from).collect();
                self.race("payloads", &workload, rules.name, &mut entrants)?;
            }
        }
        self.views(&workload, rule_sets)?;
        if workload.path().is_none() || workload.len() as u64 != workload.events_in_trace() {
            return Ok(());
        }
        for rules in rule_sets {
            if self.wants(&title("replay", rules.name)) {
                let matcher = Arc::new(compile(rules.rules.clone()));
                let mut entrants = replay::entrants(&workload, rules, &matcher)?;
                self.race("replay", &workload, rules.name, &mut entrants)?;
            }
        }
        if self.wants(&title("reader", "none")) {
            let bytes = reader::trace_bytes(&workload)?;
            let mut entrants = reader::entrants(&workload, &bytes);
            if entrants.len() == 1 {
                self.leave_out(&title("reader", "none"), "memchr-absent", "every byte occurs");
            }
            self.race("reader", &workload, "none", &mut entrants)?;
        }
        let sigma = rule_sets.iter().find(|rules| rules.name == "sigma");
        if name == Name::Stream && self.wants(&title("programs", "sigma")) {
            self.programs(&workload, sigma)?;
        }
        Ok(())
    }

    fn views(&mut self, workload: &Workload, rule_sets: &[RuleSet]) -> Result<(), BenchError> {
        if !views::WORKLOADS.contains(&workload.kind) {
            return Ok(());
        }
        for rules in rule_sets.iter().filter(|rules| views::RULES.contains(&rules.name)) {
            if self.wants(&format!("views: {}, {}", workload.name, rules.name)) {
                let matcher = views::matcher(rules);
                let mut entrants = views::entrants(&matcher, workload, rules)?;
                self.race("views", workload, rules.name, &mut entrants)?;
            }
        }
        Ok(())
    }

    fn programs(&mut self, workload: &Workload, sigma: Option<&RuleSet>) -> Result<(), BenchError> {
        let Some(rules) = sigma.filter(|_| self.options.program_rounds > 0) else {
            self.leave_out("programs", "whole programs", "not requested, or the corpus is not available");
            return Ok(());
        };
        progress("programs: stream, sigma");
        let outcome = programs::race(workload, rules, self.options.program_rounds)?;
        for (contestant, reason) in outcome.left_out {
            self.leave_out("programs", &contestant, &reason);
        }
        self.rows("programs", workload.name, &workload.source, rules.name, &outcome.measured);
        Ok(())
    }

    fn callback(&mut self) -> Result<(), BenchError> {
        for (name, len) in callback::PAYLOADS {
            let workload = format!("callback {name}");
            if !self.wants(&format!("callback: {workload}, builtin")) {
                continue;
            }
            progress(&workload);
            let (measured, dropped) = callback::race(len, self.options.effort.rounds, self.options.bursts)?;
            self.rows("callback", &workload, "generated", "builtin", &measured);
            if dropped > 0 {
                let events: u64 = measured[0].events * self.options.effort.rounds.max(1) as u64;
                self.report.notes.push(format!(
                    "{workload}: {dropped} of {events} events were dropped because the pool was full."
                ));
            }
        }
        Ok(())
    }

    fn race(
        &mut self,
        part: &str,
        workload: &Workload,
        rules: &str,
        entrants: &mut [Entrant<'_>],
    ) -> Result<(), BenchError> {
        progress(&format!("{part}: {}, {rules}", workload.name));
        let measured = race(entrants, self.options.effort)?;
        self.rows(part, workload.name, &workload.source, rules, &measured);
        Ok(())
    }

    fn rows(&mut self, part: &str, workload: &str, source: &str, rules: &str, measured: &[Measured]) {
        let row = |measured| Row::new(part, workload, source, rules, measured);
        self.report.rows.extend(measured.iter().map(row));
    }
}

/// Reports progress on standard error, since a run takes minutes.
fn progress(title: &str) {
    eprintln!("{title}");
}

/// Measures the cost of compiling a rule set.
fn measure_compilation(rules: &RuleSet) -> Compiled {
    let mut times: Vec<f64> = (0..COMPILATIONS)
        .map(|_| {
            let own = rules.rules.clone();
            let start = ThreadTime::now();
            black_box(compile(own));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let matcher = compile(rules.rules.clone());
    Compiled {
        rules: rules.name.to_owned(),
        count: rules.rules.len(),
        gate_needles: matcher.gate_needles(EventKind::ScriptBlock),
        compile_ms: times[COMPILATIONS / 2],
        memory: matcher.memory(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, collect};
    use crate::measure::Effort;
    use crate::workload::Size;
    use std::time::Duration;

    #[test]
    fn a_tiny_run_has_its_rows() {
        let effort = Effort { rounds: 1, sample: Duration::ZERO };
        let run = |only: &str| {
            let options =
                Options { effort, size: Size::Small, only: only.into(), program_rounds: 0, bursts: 2 };
            collect(&options).unwrap()
        };
        let report = run("small, builtin");
        let contestants: Vec<&str> = report.rows.iter().map(|row| row.contestant.as_str()).collect();
        for name in ["etwsieve", "etwsieve-portable", "memcpy", "memmem", "aho-corasick", "regex", "naive"] {
            assert!(contestants.contains(&name), "{name} in {contestants:?}");
        }
        assert!(
            report.rows.iter().all(|row| row.answers_equal && row.gb_per_s > 0.0 && row.workload == "small")
        );
        assert!((report.rows[0].ratio - 1.0).abs() < 1e-9);
        assert!(report.aims.iter().any(|aim| aim.place == "small, builtin" && aim.measured.is_some()));

        let report = run("callback");
        assert_eq!(report.rows.len(), 6);

        let report = run("views: small, builtin");
        let contestants: Vec<&str> = report.rows.iter().map(|row| row.contestant.as_str()).collect();
        assert_eq!(contestants, ["raw", "raw, prefilter", "raw, views"]);
        let aims = report.aims.iter().filter(|aim| aim.text.contains("prefilter") && aim.measured.is_some());
        assert_eq!(aims.count(), 1, "on small events, in nanoseconds");
    }
}
