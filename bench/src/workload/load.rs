//! Loads workloads from the corpus, or generates them if it is not available.

use super::{Name, Size, TraceOnDisk, Verdicts, Workload};
use crate::error::BenchError;
use crate::facts::cache_len;
use crate::generate::{Shape, generate};
use etwsieve::event::EventRef;
use etwsieve::input::{FileSource, traces};
use etwsieve::source::{Damage, Sink, Source};
use etwsieve_etl::TraceFile;
use etwsieve_matcher::{EventKind, Field, Fields};
use etwsieve_tests::corpus;
use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

/// Maximum number of events in a small workload.
const SMALL_EVENTS: u64 = 400;
/// Maximum number of events in the workload of hits.
const HIT_EVENTS: usize = 1_200;
/// Payload sizes in bytes that count as about 1 KB.
const SMALL_PAYLOAD_LEN: std::ops::Range<usize> = 512..1_536;
/// The column that identifies events in most files of verdicts.
const BY_TIME: &[&str] = &["time"];

impl Name {
    /// The trace in the corpus, its verdicts, and the number of its script blocks according to the corpus.
    fn recorded(self) -> (&'static str, &'static str, u64) {
        match self {
            Self::Busy => ("bench-busy.etl", "verdicts-bench-busy.csv", 60_000),
            _ => ("bench-benign.etl", "verdicts-bench-benign.csv", 8_739),
        }
    }

    /// The shape of a generated trace of about the size of the recorded one.
    fn shape(self, size: Size) -> Shape {
        let (_, _, recorded) = self.recorded();
        let events = if size == Size::Small { SMALL_EVENTS } else { recorded };
        match self {
            Self::Busy => Shape { events, text_units: (30, 6_000), repeats: true },
            _ => Shape { events, text_units: (60, 20_000), repeats: false },
        }
    }
}

impl Workload {
    /// Loads a workload from the corpus, or generates a similar one without a corpus.
    ///
    /// # Errors
    ///
    /// [`BenchError`] if the trace cannot be read, is damaged, or has an unexpected number of events.
    pub fn load(name: Name, size: Size) -> Result<Self, BenchError> {
        let Some(data) = corpus::data() else { return Self::generated(name, size) };
        match name {
            Name::Evtx => Self::event_logs(&data, size),
            Name::Hit => Self::hits(&data, size),
            _ => {
                let (file, verdicts, events) = name.recorded();
                let path = corpus::trace(&data, file);
                let verdicts = Verdicts { path: data.join("traces").join(verdicts), key: BY_TIME };
                let mut whole = Self::empty(name, file);
                whole.verdicts = Some(verdicts);
                whole.read(TraceOnDisk::Recorded(path), size, events)?;
                Ok(whole.cut_to(name))
            }
        }
    }

    /// Generates a workload. Event logs are replaced by the beginning of the stream.
    ///
    /// # Errors
    ///
    /// Same as [`load`](Self::load).
    pub fn generated(name: Name, size: Size) -> Result<Self, BenchError> {
        let shape = name.shape(size);
        let failed = |source| BenchError::Io { path: std::env::temp_dir(), source };
        let file = tempfile::Builder::new().suffix(".etl").tempfile().map_err(failed)?;
        fs::write(file.path(), generate(shape).bytes).map_err(failed)?;
        let mut whole = Self::empty(name, "generated");
        whole.read(TraceOnDisk::Generated(file), size, shape.events)?;
        Ok(whole.cut_to(name))
    }

    fn empty(kind: Name, source: &str) -> Self {
        Self {
            kind,
            name: kind.as_str(),
            source: source.to_owned(),
            bytes: Vec::new(),
            ends: Vec::new(),
            keys: Vec::new(),
            verdicts: None,
            events_in_trace: 0,
            trace: None,
        }
    }

    fn push(&mut self, payload: &[u8], key: Option<String>) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
        self.keys.push(key);
    }

    fn read(&mut self, file: TraceOnDisk, size: Size, expected: u64) -> Result<(), BenchError> {
        self.trace = Some(file);
        let map = TraceFile::open(self.path().unwrap_or(Path::new("")))?;
        let trace = map.trace()?;
        let mut events = trace.events();
        while let Some(event) = events.next() {
            if event.event_id.and_then(EventKind::from_event_id) != Some(EventKind::ScriptBlock) {
                continue;
            }
            self.events_in_trace += 1;
            if size == Size::Whole || self.events_in_trace <= SMALL_EVENTS {
                self.push(event.payload, Some(event.time.to_string()));
            }
        }
        let found = self.events_in_trace;
        if found != expected || events.damage().total() != 0 {
            return Err(BenchError::EventCount { workload: self.source.clone(), expected, found });
        }
        Ok(())
    }

    /// Reduces a whole trace to the requested workload.
    fn cut_to(self, name: Name) -> Self {
        let in_cache = cache_len() / 2;
        match name {
            Name::Stream | Name::Busy => self,
            Name::Hot => {
                // Evenly spread, so that the part is representative.
                let stride = self.bytes.len().div_ceil(in_cache).max(1);
                self.only(in_cache, |event, _| event % stride == 0)
            }
            Name::Small => self.only(in_cache, |_, payload| SMALL_PAYLOAD_LEN.contains(&payload.len())),
            Name::Evtx => self.only(in_cache, |event, _| event < SMALL_EVENTS as usize),
            Name::Hit => self.only(usize::MAX, |_, payload| {
                let text = crate::contestant::decode::lowered(payload);
                text.contains("enter-pssession") || text.contains("-computername")
            }),
        }
    }

    /// Keeps the wanted events, up to `bytes_max` bytes.
    fn only(self, bytes_max: usize, wanted: impl Fn(usize, &[u8]) -> bool) -> Self {
        let mut part = Self::empty(self.kind, &self.source);
        for (event, payload) in self.payloads() {
            if part.bytes.len() + payload.len() <= bytes_max && wanted(event as usize, payload) {
                part.push(payload, self.keys[event as usize].clone());
            }
        }
        part.events_in_trace = part.len() as u64;
        part.verdicts = self.verdicts;
        part
    }

    fn event_logs(data: &Path, size: Size) -> Result<Self, BenchError> {
        let folder = data.join("recorded/evtx");
        let mut workload = Self::empty(Name::Evtx, "recorded/evtx");
        workload.verdicts =
            Some(Verdicts { path: data.join("traces/verdicts-evtx.csv"), key: &["file", "event_record_id"] });
        let (files, _) = traces(std::slice::from_ref(&folder));
        for path in files {
            let file = path.strip_prefix(&folder).unwrap_or(&path).display().to_string();
            let mut take = |event: &EventRef<'_>| {
                let number = event.header.event_record_id.unwrap_or(0);
                workload.push(event.payload, Some(format!("{file}#{number}")));
            };
            FileSource::new(path.clone()).run(&mut Collect(&mut take))?;
        }
        if size == Size::Small {
            workload = workload.only(usize::MAX, |event, _| event < SMALL_EVENTS as usize);
        }
        workload.events_in_trace = workload.len() as u64;
        Ok(workload)
    }

    /// Loads generated events that match Sigma's rules, and the events of the hand-made trace that contain both needles of
    /// the built-in rule. Omits events on which the other engines disagree.
    fn hits(data: &Path, size: Size) -> Result<Self, BenchError> {
        let folder = data.join("traces");
        let verdicts = Verdicts { path: folder.join("verdicts-synth.csv"), key: BY_TIME };
        let column = |file: &Path, name| -> HashSet<String> {
            corpus::csv_rows(file, &[name]).into_iter().flatten().collect()
        };
        let matched = column(&verdicts.path, "time");
        let disputed = column(&folder.join("synth-disagree.csv"), "time");
        let folding = column(&folder.join("synth-uni-blocks.csv"), "script_block_id");
        let mut workload = Self::empty(Name::Hit, "synth.etl, seed.etl");
        workload.verdicts = Some(verdicts);
        let events_max = if size == Size::Small { SMALL_EVENTS as usize } else { HIT_EVENTS };
        let mut take = |event: &EventRef<'_>| {
            let time = event.header.time.to_string();
            let is_wanted = matched.contains(&time)
                && !disputed.contains(&time)
                && !block_id(event.payload).is_some_and(|id| folding.contains(&id));
            if is_wanted && workload.len() < events_max {
                workload.push(event.payload, Some(time));
            }
        };
        FileSource::new(corpus::trace(data, "synth.etl")).run(&mut Collect(&mut take))?;
        let mut take = |event: &EventRef<'_>| {
            if crate::contestant::decode::is_hit(event.payload) {
                workload.push(event.payload, None);
            }
        };
        FileSource::new(corpus::trace(data, "seed.etl")).run(&mut Collect(&mut take))?;
        workload.events_in_trace = workload.len() as u64;
        Ok(workload)
    }
}

fn block_id(payload: &[u8]) -> Option<String> {
    let fields = Fields::split(EventKind::ScriptBlock, payload);
    let units = fields.text(Field::ScriptBlockId)?.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
    Some(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

/// A sink that passes script blocks to a function.
struct Collect<'a>(&'a mut dyn FnMut(&EventRef<'_>));

impl Sink for Collect<'_> {
    fn wants(&self, _provider: &Uuid, event_id: u16) -> bool {
        EventKind::from_event_id(event_id) == Some(EventKind::ScriptBlock)
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if self.wants(&event.header.provider, event.header.event_id)
            && etwsieve::event::is_powershell(&event.header.provider)
        {
            (self.0)(event);
        }
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    // Recorded logs have damaged records, which are ignored.
    fn damaged(&mut self, _damage: &Damage) {}

    fn progress(&mut self, _bytes: u64) {}
}
