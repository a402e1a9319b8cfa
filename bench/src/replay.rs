//! A complete replay as `etwsieve replay` runs it, without printing: file, reader, channel, matcher threads and hits.

use crate::answer::Difference;
use crate::error::BenchError;
use crate::measure::{ClockKind, Entrant};
use crate::rules::RuleSet;
use crate::workload::{Part, Workload};
use etwsieve::input::FileSource;
use etwsieve::pipeline::{self, Observer, Progress, Settings};
use etwsieve::rules::ActiveRules;
use etwsieve::source::{Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_matcher::Matcher;
use etwsieve_transport::hit::{HitV1, Scope, View};
use std::path::Path;
use std::sync::Arc;

/// Counts detections and failures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// Number of pairs of an event as recorded and a rule.
    pub detections: u64,
    /// Number of sources that failed.
    pub failures: u64,
}

impl Observer for Counting {
    fn hit(&mut self, _source: u32, hit: HitV1) {
        if (hit.scope, hit.view) == (Scope::Event, View::Raw) {
            self.detections += hit.rules.len() as u64;
        }
    }

    fn tick(&mut self, _progress: &Progress) {}

    fn failed(&mut self, _source: u32, _error: &SourceError) {
        self.failures += 1;
    }
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Number of events searched.
    pub searched: u64,
    /// Number of detections reported.
    pub detections: u64,
}

/// Replays the trace at `path` with this number of matcher threads.
pub fn replay(path: &Path, matcher: &Arc<Matcher>, threads: usize) -> Outcome {
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(FileSource::new(path.into()))];
    let mut observer = Counting::default();
    let settings = Settings { threads, ..Settings::default() };
    let rules = ActiveRules::new(Arc::clone(matcher));
    let progress = Progress::new(sources.len());
    let summary = pipeline::run(&mut sources, &rules, &settings, &Stop::default(), &progress, &mut observer);
    Outcome {
        searched: summary.total.events_matched + summary.total.events_not_matched,
        detections: observer.detections,
    }
}

/// Returns replays with one matcher thread and, if that is another number, with the default number of threads.
///
/// GB/s are those of the payloads. The list is empty if the workload is not one whole trace.
///
/// # Errors
///
/// Same as [`Workload::expected`], and [`BenchError::EventCount`] if the workload is only a part of its trace.
pub fn entrants<'a>(
    workload: &'a Workload,
    rules: &'a RuleSet,
    matcher: &'a Arc<Matcher>,
) -> Result<Vec<Entrant<'a>>, BenchError> {
    let events = workload.events_in_trace();
    let found = workload.len() as u64;
    if found != events {
        // The replay would search the whole trace, of which this is only a part.
        return Err(BenchError::EventCount { workload: workload.source.clone(), expected: events, found });
    }
    let Some(path) = workload.path() else { return Ok(Vec::new()) };
    let pairs = workload.expected(rules, Part::WHOLE)?;
    let expected = Outcome { searched: events, detections: pairs.len() as u64 };
    let mut numbers = vec![1, Settings::default().threads];
    numbers.dedup();
    let entrant = |threads: usize| {
        let name = format!("replay-{threads}-thread{}", if threads == 1 { "" } else { "s" });
        let contestant = name.clone();
        let pass = move || {
            let found = replay(path, matcher, threads);
            if found == expected {
                return Ok(());
            }
            Err(BenchError::WrongAnswer {
                contestant: contestant.clone(),
                workload: workload.name.to_owned(),
                rules: rules.name.to_owned(),
                difference: Difference {
                    expected: expected.detections,
                    found: found.detections,
                    missing: None,
                    extra: None,
                },
            })
        };
        Entrant {
            name,
            question: "verdicts",
            events,
            bytes: workload.bytes().len() as u64,
            clock: ClockKind::Wall,
            pass: Box::new(pass),
        }
    };
    Ok(numbers.into_iter().map(entrant).collect())
}
