//! What the contestants search: the payloads of a trace, one after another in memory.

use crate::answer::Pair;
use crate::contestant::decode;
use crate::error::BenchError;
use crate::generate::{Shape, generate};
use crate::rules::RuleSet;
use etwsieve_etl::{FileTime, TraceFile};
use etwsieve_matcher::EventKind;
use etwsieve_tests::corpus;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Events of a small workload, at most.
const SMALL_EVENTS: u64 = 400;

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Script fragments from harmless modules, all different, larger together than any cache.
    Stream,
    /// A busy server: many short blocks, most of them repeats, few of them attacks.
    Busy,
}

/// How much of a workload. A small one is the beginning of a recorded trace, or a small generated trace.
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
    pub const ALL: [Self; 2] = [Self::Stream, Self::Busy];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Busy => "busy",
        }
    }

    /// The corpus' trace, its verdicts, and how many script blocks the corpus says it has.
    fn recorded(self) -> (&'static str, &'static str, u64) {
        match self {
            Self::Stream => ("bench-benign.etl", "verdicts-bench-benign.csv", 8_739),
            Self::Busy => ("bench-busy.etl", "verdicts-bench-busy.csv", 60_000),
        }
    }

    /// A generated trace of about the size of the recorded one.
    fn shape(self, size: Size) -> Shape {
        let (_, _, recorded) = self.recorded();
        let events = if size == Size::Small { SMALL_EVENTS } else { recorded };
        match self {
            Self::Stream => Shape { events, text_units: (60, 20_000), repeats: false },
            Self::Busy => Shape { events, text_units: (30, 6_000), repeats: true },
        }
    }
}

/// A trace and the payloads of its script blocks (events 4104) in the order of time.
#[derive(Debug)]
pub struct Workload {
    /// The name in reports.
    pub name: &'static str,
    /// The corpus' file, or `generated`.
    pub source: String,
    /// All payloads, one directly behind the other.
    bytes: Vec<u8>,
    /// Where each payload ends.
    ends: Vec<usize>,
    times: Vec<FileTime>,
    /// Script blocks of the trace; more than payloads here if this is a part of it.
    events_in_trace: u64,
    verdicts: Option<PathBuf>,
    file: TraceOnDisk,
}

#[derive(Debug)]
enum TraceOnDisk {
    Recorded(PathBuf),
    /// Removed with the workload.
    Generated(NamedTempFile),
}

impl Workload {
    /// Loads a workload from the corpus, or generates one like it where there is none.
    ///
    /// # Errors
    ///
    /// [`BenchError`] if the trace cannot be read, is damaged, or has not the events that it should have.
    pub fn load(name: Name, size: Size) -> Result<Self, BenchError> {
        match corpus::data() {
            Some(data) => {
                let (file, verdicts, events) = name.recorded();
                let path = corpus::trace(&data, file);
                let verdicts = Some(data.join("traces").join(verdicts));
                Self::read(name, size, file, TraceOnDisk::Recorded(path), verdicts, events)
            }
            None => Self::generated(name, size),
        }
    }

    /// Generates a workload.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn generated(name: Name, size: Size) -> Result<Self, BenchError> {
        let shape = name.shape(size);
        let failed = |source| BenchError::Io { path: std::env::temp_dir(), source };
        let file = tempfile::Builder::new().suffix(".etl").tempfile().map_err(failed)?;
        fs::write(file.path(), generate(shape).bytes).map_err(failed)?;
        Self::read(name, size, "generated", TraceOnDisk::Generated(file), None, shape.events)
    }

    fn read(
        name: Name,
        size: Size,
        source: &str,
        file: TraceOnDisk,
        verdicts: Option<PathBuf>,
        expected: u64,
    ) -> Result<Self, BenchError> {
        let mut workload = Self {
            name: name.as_str(),
            source: source.to_owned(),
            bytes: Vec::new(),
            ends: Vec::new(),
            times: Vec::new(),
            events_in_trace: 0,
            verdicts,
            file,
        };
        let map = TraceFile::open(workload.path())?;
        let trace = map.trace()?;
        let mut events = trace.events();
        while let Some(event) = events.next() {
            if event.event_id.and_then(EventKind::from_event_id) != Some(EventKind::ScriptBlock) {
                continue;
            }
            workload.events_in_trace += 1;
            if size == Size::Whole || workload.events_in_trace <= SMALL_EVENTS {
                workload.bytes.extend_from_slice(event.payload);
                workload.ends.push(workload.bytes.len());
                workload.times.push(event.time);
            }
        }
        if workload.events_in_trace != expected || events.damage().total() != 0 {
            let found = workload.events_in_trace;
            return Err(BenchError::EventCount { workload: source.to_owned(), expected, found });
        }
        Ok(workload)
    }

    /// The trace's file.
    pub fn path(&self) -> &Path {
        match &self.file {
            TraceOnDisk::Recorded(path) => path,
            TraceOnDisk::Generated(file) => file.path(),
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

    /// Bytes of the first `events` payloads.
    pub fn bytes_of(&self, events: usize) -> u64 {
        events.checked_sub(1).map_or(0, |last| self.ends[last] as u64)
    }

    /// The payloads with their indices, in the order of time.
    pub fn payloads(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut start = 0;
        (0..).zip(self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end]))
    }

    /// What searching these payloads for these rules has to give.
    ///
    /// For the built-in rule by decoding each text; for Sigma's rules by the corpus' verdicts, on which two other
    /// engines agree. `None` if neither applies.
    ///
    /// # Errors
    ///
    /// [`BenchError::NoSuchEvent`] if the verdicts are of another trace.
    pub fn expected(&self, rules: &RuleSet) -> Result<Option<Vec<Pair>>, BenchError> {
        if rules.name == "builtin" {
            let hits = self.payloads().filter(|(_, payload)| decode::is_hit(payload));
            return Ok(Some(hits.map(|(event, _)| (event, 0)).collect()));
        }
        let Some(path) = &self.verdicts else { return Ok(None) };
        let by_time: HashMap<String, u32> = self.times.iter().map(FileTime::to_string).zip(0..).collect();
        let by_id = rules.by_id();
        let mut pairs = Vec::new();
        for row in corpus::csv_rows(path, &["time", "rule_id"]) {
            // The file holds the verdicts of other rules too.
            let Some(&rule) = by_id.get(row[1].as_str()) else { continue };
            match by_time.get(&row[0]) {
                Some(&event) => pairs.push((event, rule)),
                // Of a part of the trace only its own rows count.
                None if (self.len() as u64) < self.events_in_trace => {}
                None => return Err(BenchError::NoSuchEvent { path: path.clone(), time: row[0].clone() }),
            }
        }
        Ok(Some(pairs))
    }
}
