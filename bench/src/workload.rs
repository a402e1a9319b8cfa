//! What the contestants search: payloads of script blocks (events 4104), one after another in memory.

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
    /// Script fragments from harmless modules, all different, larger together than any cache.
    Stream,
    /// A part of the stream that stays in the second-level cache.
    Hot,
    /// Events of about 1 KB out of the stream, in cache.
    Small,
    /// Events of real event logs.
    Evtx,
    /// A busy server: many short blocks, most of them repeats, few of them attacks.
    Busy,
    /// Nearly every event matches some rule.
    Hit,
}

/// How much of a workload. A small one is a few hundred events out of a recorded trace, or of a generated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of it, to be measured.
    Whole,
    /// A few hundred events, to see that a benchmark works.
    Small,
}

impl Size {
    /// For a benchmark of payloads: all of them if it measures, few if it only runs once.
    pub fn of_payloads() -> Self {
        if crate::is_measuring() { Self::Whole } else { Self::Small }
    }

    /// For a benchmark of whole traces. A recorded one has no small form: its verdicts are of the whole.
    pub fn of_traces() -> Self {
        if crate::is_measuring() || corpus::data().is_some() { Self::Whole } else { Self::Small }
    }
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Stream, Self::Hot, Self::Small, Self::Evtx, Self::Busy, Self::Hit];
    /// Those that are one whole trace, and so can be replayed.
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

    /// What it is, in a line.
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

/// Payloads in their order, and what is known about their verdicts.
#[derive(Debug)]
pub struct Workload {
    /// Which one.
    pub kind: Name,
    /// The name in reports.
    pub name: &'static str,
    /// The corpus' file, or `generated`.
    pub source: String,
    /// All payloads, one directly behind the other.
    bytes: Vec<u8>,
    /// Where each payload ends.
    ends: Vec<usize>,
    /// How the file of verdicts names each event; `None` if it does not know the event.
    keys: Vec<Option<String>>,
    verdicts: Option<Verdicts>,
    /// Script blocks of the trace; more than payloads here if this is a part of it.
    events_in_trace: u64,
    trace: Option<TraceOnDisk>,
}

/// A file of the corpus on which other engines agree: which of Sigma's rules match which events.
#[derive(Clone, Debug)]
struct Verdicts {
    path: PathBuf,
    /// Columns that together name an event.
    key: &'static [&'static str],
}

#[derive(Debug)]
enum TraceOnDisk {
    Recorded(PathBuf),
    /// Removed with the workload.
    Generated(NamedTempFile),
}

/// Every so-many-th event of a workload: slow contestants search only a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    stride: usize,
}

impl Part {
    /// Every event.
    pub const WHOLE: Self = Self { stride: 1 };

    /// So few events, evenly spread, that they have about `bytes_max` bytes.
    pub fn of(workload: &Workload, bytes_max: u64) -> Self {
        let stride = (workload.bytes.len() as u64).div_ceil(bytes_max.max(1));
        Self { stride: (stride as usize).clamp(1, workload.len().max(1)) }
    }

    /// Whether this event belongs to it.
    pub fn contains(self, event: u32) -> bool {
        (event as usize).is_multiple_of(self.stride)
    }
}

impl Workload {
    /// The trace's file. `None` for a workload that is not one whole trace.
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Script blocks of the whole trace.
    pub fn events_in_trace(&self) -> u64 {
        self.events_in_trace
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Events of a trace with the times that verdicts name them by.
    pub fn times(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(&self.keys).filter_map(|(event, key)| Some((event, key.as_deref()?)))
    }

    /// The payload of an event.
    ///
    /// # Panics
    ///
    /// If there is no such event.
    pub fn payload(&self, event: usize) -> &[u8] {
        let start = event.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[event]]
    }

    /// The payloads with their indices, in order.
    pub fn payloads(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.part(Part::WHOLE)
    }

    /// The payloads of a part, with their indices in the whole.
    pub fn part(&self, part: Part) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.len()).step_by(part.stride).map(|event| (event as u32, self.payload(event)))
    }

    /// Whether texts recur within one pass, so that recognising repeats is part of the question.
    pub fn has_repeats(&self) -> bool {
        self.kind == Name::Busy
    }

    /// What searching the events of `part` for these rules has to give, in ascending order.
    ///
    /// Rules of plain needles are answered by decoding each text; Sigma's own by the corpus' verdicts, on which
    /// other engines agree; rules or events that those do not know by the naive evaluator.
    ///
    /// # Errors
    ///
    /// [`BenchError::NoSuchEvent`] if the verdicts are of another trace.
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
        // The corpus has verdicts of its own rules, and so of copies that are the same.
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
            // The file holds the verdicts of other rules too.
            let Some(&rule) = by_id.get(row[0].as_str()) else { continue };
            let key = row[1..].join("#");
            match by_key.get(key.as_str()) {
                Some(&event) => pairs.push((event, rule)),
                // Of a part of the trace only its own rows count.
                None if self.trace.is_none() || (self.len() as u64) < self.events_in_trace => {}
                None => return Err(BenchError::NoSuchEvent { path: verdicts.path.clone(), key }),
            }
        }
        Ok(pairs)
    }
}

/// For each rule the place of one among the first `known` that says the same; mostly itself.
fn twins(rules: &RuleSet, known: usize) -> Vec<Option<usize>> {
    let first = &rules.rules[..known.min(rules.rules.len())];
    let twin = |(place, rule): (usize, &Rule)| {
        if place < known { Some(place) } else { first.iter().position(|other| other.expr == rule.expr) }
    };
    rules.rules.iter().enumerate().map(twin).collect()
}

/// The part of a payload in which literals are looked for: everything from the text on, in whole code units.
pub fn text_of(payload: &[u8]) -> &[u8] {
    let text = payload.get(TEXT_OFFSET..).unwrap_or_default();
    &text[..text.len() & !1]
}
