//! The workloads: payloads of script blocks (events 4104), contiguous in memory.

mod load;

use crate::answer::Pair;
use crate::error::BenchError;
use crate::reference;
use crate::rules::RuleSet;
use etwsieve_matcher::Rule;
use etwsieve_tests::corpus;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Offset in bytes of the text in a payload of event 4104.
const TEXT_OFFSET: usize = 8;

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Fragments of harmless modules, all different and together larger than any cache.
    Stream,
    /// A part of the stream that stays in the second-level cache.
    Hot,
    /// Events of the stream that have about 1 KB, in cache.
    Small,
    /// Events of real event logs.
    Evtx,
    /// A busy server: many short blocks, most of them repeats, few of them attacks.
    Busy,
    /// Nearly every event matches some rule.
    Hit,
}

/// The size of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All events, for measurements.
    Whole,
    /// A few hundred events, to check that a benchmark works.
    Small,
}

impl Size {
    /// The size for a benchmark of payloads: whole if it measures, small if it only runs once.
    pub fn of_payloads() -> Self {
        if crate::is_measuring() { Self::Whole } else { Self::Small }
    }

    /// The size for a benchmark of whole traces. Recorded traces have no small form, since their verdicts cover the whole.
    pub fn of_traces() -> Self {
        if crate::is_measuring() || corpus::data().is_some() { Self::Whole } else { Self::Small }
    }
}

impl Name {
    /// All workloads.
    pub const ALL: [Self; 6] = [Self::Stream, Self::Hot, Self::Small, Self::Evtx, Self::Busy, Self::Hit];
    /// The workloads that consist of one whole trace and can be replayed.
    pub const TRACES: [Self; 2] = [Self::Stream, Self::Busy];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Hot => "hot",
            Self::Small => "small",
            Self::Evtx => "evtx",
            Self::Busy => "busy",
            Self::Hit => "hit",
        }
    }

    /// A description in one line.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Stream => "harmless script fragments, all different, larger than the caches",
            Self::Hot => "a part of the stream that stays in the second-level cache",
            Self::Small => "events of 0.5 to 1.5 KB out of the stream, in cache",
            Self::Evtx => "script blocks of real event logs",
            Self::Busy => "a busy server: nine of ten events repeat one of 300 blocks",
            Self::Hit => "nearly every event matches a rule",
        }
    }
}

/// Payloads in their order, and their known verdicts.
#[derive(Debug)]
pub struct Workload {
    /// The workload.
    pub kind: Name,
    /// The name in reports.
    pub name: &'static str,
    /// The file of the corpus, or `generated`.
    pub source: String,
    /// All payloads, contiguous.
    bytes: Vec<u8>,
    /// End offset of each payload.
    ends: Vec<usize>,
    /// Key of each event in the file of verdicts; `None` if the file does not contain the event.
    keys: Vec<Option<String>>,
    verdicts: Option<Verdicts>,
    /// Number of script blocks in the trace, which has more than this workload if the workload is a part of it.
    events_in_trace: u64,
    trace: Option<TraceOnDisk>,
}

/// A file of the corpus with verdicts on which other engines agree: which of Sigma's rules match which events.
#[derive(Clone, Debug)]
struct Verdicts {
    path: PathBuf,
    /// Columns that together identify an event.
    key: &'static [&'static str],
}

#[derive(Debug)]
enum TraceOnDisk {
    Recorded(PathBuf),
    /// A file that is removed with the workload.
    Generated(NamedTempFile),
}

/// A part of a workload for slow contestants: every n-th event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    stride: usize,
}

impl Part {
    /// Every event.
    pub const WHOLE: Self = Self { stride: 1 };

    /// Returns the part, evenly spread, with about `bytes_max` bytes.
    pub fn of(workload: &Workload, bytes_max: u64) -> Self {
        let stride = (workload.bytes.len() as u64).div_ceil(bytes_max.max(1));
        Self { stride: (stride as usize).clamp(1, workload.len().max(1)) }
    }

    /// Returns whether an event belongs to the part.
    pub fn contains(self, event: u32) -> bool {
        (event as usize).is_multiple_of(self.stride)
    }
}

impl Workload {
    /// Path of the trace; `None` for a workload that is not one whole trace.
    pub fn path(&self) -> Option<&Path> {
        match self.trace.as_ref()? {
            TraceOnDisk::Recorded(path) => Some(path),
            TraceOnDisk::Generated(file) => Some(file.path()),
        }
    }

    /// Number of payloads.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true without payloads.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of script blocks in the whole trace.
    pub fn events_in_trace(&self) -> u64 {
        self.events_in_trace
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the events of a trace with the times that identify them in verdicts.
    pub fn times(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(&self.keys).filter_map(|(event, key)| Some((event, key.as_deref()?)))
    }

    /// Returns the payload of an event.
    ///
    /// # Panics
    ///
    /// If the event does not exist.
    pub fn payload(&self, event: usize) -> &[u8] {
        let start = event.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[event]]
    }

    /// Returns the payloads with their indices, in order.
    pub fn payloads(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.part(Part::WHOLE)
    }

    /// Returns the payloads of a part, with their indices in the whole workload.
    pub fn part(&self, part: Part) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.len()).step_by(part.stride).map(|event| (event as u32, self.payload(event)))
    }

    /// Returns whether texts recur within one pass, so that remembering repeats pays.
    pub fn has_repeats(&self) -> bool {
        self.kind == Name::Busy
    }

    /// Returns the expected pairs of a search of `part` for these rules, in ascending order.
    ///
    /// Rules of plain needles are evaluated on each decoded text. For Sigma's rules the verdicts of the corpus are used, on
    /// which other engines agree. The naive evaluator decides all other rules and events.
    ///
    /// # Errors
    ///
    /// [`BenchError::NoSuchEvent`] if the verdicts belong to another trace.
    pub fn expected(&self, rules: &RuleSet, part: Part) -> Result<Vec<Pair>, BenchError> {
        let mut pairs = Vec::new();
        if let Some(needles) = &rules.needles {
            for (event, payload) in self.part(part) {
                let text = crate::contestant::decode::lowered(payload);
                let holds = |all: &&Vec<String>| all.iter().all(|needle| text.contains(needle.as_str()));
                pairs.extend((0..).zip(needles).filter(|(_, all)| holds(all)).map(|(rule, _)| (event, rule)));
            }
            return Ok(pairs);
        }
        // The corpus has verdicts for its own rules, and so for copies that are identical.
        let known = if self.verdicts.is_some() { rules.of_corpus } else { 0 };
        let twins = twins(rules, known);
        pairs = reference::verdicts(self, rules, part, |event, rule| {
            twins[rule as usize].is_some() && self.keys[event as usize].is_some()
        });
        if let Some(verdicts) = &self.verdicts {
            let recorded = self.recorded(verdicts, rules)?;
            let mut of_rule = vec![Vec::new(); known];
            for (event, rule) in recorded {
                if (rule as usize) < known && part.contains(event) {
                    of_rule[rule as usize].push(event);
                }
            }
            for (rule, twin) in (0u32..).zip(&twins) {
                let events = twin.map_or(&[][..], |twin| &of_rule[twin][..]);
                pairs.extend(events.iter().map(|event| (*event, rule)));
            }
        }
        pairs.sort_unstable();
        Ok(pairs)
    }

    fn recorded(&self, verdicts: &Verdicts, rules: &RuleSet) -> Result<Vec<Pair>, BenchError> {
        let by_key: HashMap<&str, u32> =
            self.keys.iter().zip(0..).filter_map(|(key, event)| Some((key.as_deref()?, event))).collect();
        let by_id = rules.by_id();
        let mut pairs = Vec::new();
        let columns: Vec<&str> = ["rule_id"].iter().chain(verdicts.key).copied().collect();
        for row in corpus::csv_rows(&verdicts.path, &columns) {
            // The file contains verdicts of other rules too.
            let Some(&rule) = by_id.get(row[0].as_str()) else { continue };
            let key = row[1..].join("#");
            match by_key.get(key.as_str()) {
                Some(&event) => pairs.push((event, rule)),
                // In a part of the trace only the rows of its events count.
                None if self.trace.is_none() || (self.len() as u64) < self.events_in_trace => {}
                None => return Err(BenchError::NoSuchEvent { path: verdicts.path.clone(), key }),
            }
        }
        Ok(pairs)
    }
}

/// Returns, for each rule, the index of an identical rule among the first `known` ones, usually its own.
fn twins(rules: &RuleSet, known: usize) -> Vec<Option<usize>> {
    let first = &rules.rules[..known.min(rules.rules.len())];
    let twin = |(place, rule): (usize, &Rule)| {
        if place < known { Some(place) } else { first.iter().position(|other| other.expr == rule.expr) }
    };
    rules.rules.iter().enumerate().map(twin).collect()
}

/// Returns the part of a payload that is searched for literals: everything from the text on, in whole code units.
pub fn text_of(payload: &[u8]) -> &[u8] {
    let text = payload.get(TEXT_OFFSET..).unwrap_or_default();
    &text[..text.len() & !1]
}
