//! The events of a scenario, one after the other.

use super::synthetic::Prepared;
use super::{Scenario, Source, Synthetic};
use crate::writer::EventSpec;
use etwsieve_etl::{Event, FileTime, HeaderKind, TraceFile, item_type};
use std::io;
use std::ops::Range;
use uuid::Uuid;

pub use etwsieve_event::provider::POWERSHELL;

/// Maximum size of all payloads and items of a trace together, in bytes.
const ARENA_LEN_MAX: usize = 1 << 30;
/// Time of the first synthetic event, 2026-01-05T08:00:00Z. Each event is 1 µs after the previous one.
const SYNTHETIC_START: FileTime = FileTime(134_120_736_000_000_000);
const SYNTHETIC_TICKS: u64 = 10;
/// Size of a record's header in a buffer, in bytes.
const HEADER_LEN: usize = 0x50;
const ITEM_HEADER_LEN: usize = 8;
/// S-1-5-18.
const LOCAL_SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
const SYNTHETIC_ITEMS: &[(u16, Range<usize>)] = &[(item_type::SID, 0..LOCAL_SYSTEM.len())];

/// The parts of an event's header that a consumer sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Provider.
    pub provider: Uuid,
    /// Event id.
    pub event_id: u16,
    /// Version.
    pub version: u8,
    /// Channel.
    pub channel: u8,
    /// Level.
    pub level: u8,
    /// Opcode.
    pub opcode: u8,
    /// Task.
    pub task: u16,
    /// Keywords.
    pub keywords: u64,
    /// `EventProperty`.
    pub property: u16,
    /// True if a 32-bit process wrote the event.
    pub is_32_bit: bool,
    /// Process.
    pub process_id: u32,
    /// Thread.
    pub thread_id: u32,
    /// Time of the event.
    pub time: FileTime,
    /// Activity; nil for none.
    pub activity_id: Uuid,
    /// Processor.
    pub processor: u16,
}

/// An event that is being emitted.
#[derive(Clone, Copy, Debug)]
pub struct Emitted<'a> {
    /// Its header.
    pub facts: &'a Facts,
    /// Its user data.
    pub payload: &'a [u8],
    items: &'a [(u16, Range<usize>)],
    arena: &'a [u8],
}

impl<'a> Emitted<'a> {
    /// Extended items: type and data.
    pub fn items(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let arena = self.arena;
        self.items.iter().map(move |(kind, range)| (*kind, &arena[range.clone()]))
    }

    /// Size of the event in a buffer of a session, including all items, in bytes.
    pub fn stored_len(&self) -> usize {
        let items: usize =
            self.items.iter().map(|(_, range)| (ITEM_HEADER_LEN + range.len()).next_multiple_of(8)).sum();
        (HEADER_LEN + items + self.payload.len()).next_multiple_of(8)
    }

    /// Converts the event for a trace that starts at `start`, with the items that `carries` accepts.
    pub fn to_spec(&self, start: FileTime, carries: impl Fn(u16) -> bool) -> EventSpec {
        let facts = self.facts;
        let kind = if facts.is_32_bit { HeaderKind::Event32 } else { HeaderKind::Event64 };
        let mut spec = EventSpec::new(kind)
            .at(facts.time.0.saturating_sub(start.0))
            .by(facts.process_id, facts.thread_id)
            .on(facts.processor)
            .payload(self.payload.to_vec());
        (spec.provider, spec.event_id, spec.version) =
            (facts.provider, facts.event_id, u16::from(facts.version));
        (spec.channel, spec.level, spec.opcode) = (facts.channel, facts.level, facts.opcode);
        (spec.task, spec.keywords, spec.property) = (facts.task, facts.keywords, facts.property);
        spec.activity_id = facts.activity_id;
        self.items().filter(|(kind, _)| carries(*kind)).fold(spec, |spec, (kind, data)| spec.item(kind, data))
    }
}

/// All events of a scenario.
#[derive(Debug)]
pub struct Feed {
    kind: Kind,
    total: u64,
}

#[derive(Debug)]
enum Kind {
    Recorded { events: Vec<Recorded>, arena: Vec<u8> },
    Synthetic { prepared: Prepared, facts: Facts },
}

#[derive(Debug)]
struct Recorded {
    facts: Facts,
    items: Vec<(u16, Range<usize>)>,
    payload: Range<usize>,
}

impl Feed {
    /// Prepares the events of `scenario`. A trace is read into memory, so that reading it does not slow down emitting.
    ///
    /// # Errors
    ///
    /// The trace cannot be read, is damaged, or has more than 1 GiB of payloads.
    pub fn open(scenario: &Scenario) -> io::Result<Self> {
        let repeat = scenario.repeat.max(1);
        let (kind, once) = match &scenario.source {
            Source::Nothing => (Kind::Recorded { events: Vec::new(), arena: Vec::new() }, 0),
            Source::Trace(path) => {
                let (events, arena) = load(path)?;
                let count = events.len() as u64;
                (Kind::Recorded { events, arena }, count)
            }
            Source::Synthetic(synthetic) => {
                let facts = synthetic_facts(synthetic);
                (Kind::Synthetic { prepared: Prepared::new(synthetic), facts }, synthetic.count)
            }
        };
        Ok(Self { kind, total: once.saturating_mul(repeat) })
    }

    /// Number of events.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the event with this number, from 0; `None` after the last.
    pub fn event(&mut self, number: u64) -> Option<Emitted<'_>> {
        if number >= self.total {
            return None;
        }
        match &mut self.kind {
            Kind::Recorded { events, arena } => {
                let event = events.get((number % events.len() as u64) as usize)?;
                let payload = &arena[event.payload.clone()];
                Some(Emitted { facts: &event.facts, payload, items: &event.items, arena })
            }
            Kind::Synthetic { prepared, facts } => {
                facts.time = FileTime(SYNTHETIC_START.0 + number * SYNTHETIC_TICKS);
                let payload = prepared.payload(number + 1);
                Some(Emitted { facts, payload, items: SYNTHETIC_ITEMS, arena: &LOCAL_SYSTEM })
            }
        }
    }
}

fn synthetic_facts(synthetic: &Synthetic) -> Facts {
    let (level, opcode, task) = if synthetic.event_id == 4103 { (4, 20, 106) } else { (5, 15, 2) };
    Facts {
        provider: POWERSHELL,
        event_id: synthetic.event_id,
        version: 1,
        channel: 16,
        level,
        opcode,
        task,
        keywords: 0,
        property: 0,
        is_32_bit: false,
        process_id: 4242,
        thread_id: 4243,
        time: SYNTHETIC_START,
        activity_id: Uuid::nil(),
        processor: 0,
    }
}

fn load(path: &std::path::Path) -> io::Result<(Vec<Recorded>, Vec<u8>)> {
    let wrong = |error: etwsieve_etl::EtlError| io::Error::other(format!("{}: {error}", path.display()));
    let file = TraceFile::open(path).map_err(wrong)?;
    let trace = file.trace().map_err(wrong)?;
    let (mut recorded, mut arena) = (Vec::new(), Vec::new());
    let mut events = trace.events();
    while let Some(event) = events.next() {
        // Sessions of manifest providers never receive kernel events, classic events and messages.
        let Some(facts) = facts(&event) else { continue };
        let mut put = |data: &[u8]| {
            // Payloads in buffers are aligned to 8.
            arena.resize(arena.len().next_multiple_of(8), 0);
            let start = arena.len();
            arena.extend_from_slice(data);
            start..arena.len()
        };
        let payload = put(event.payload);
        let items = event.extended().map(|item| (item.kind, put(item.data))).collect();
        recorded.push(Recorded { facts, items, payload });
        if arena.len() > ARENA_LEN_MAX {
            return Err(io::Error::other(format!("{} is too large", path.display())));
        }
    }
    if events.damage().total() > 0 {
        return Err(io::Error::other(format!("{} is damaged", path.display())));
    }
    Ok((recorded, arena))
}

fn facts(event: &Event<'_>) -> Option<Facts> {
    if !matches!(event.header, HeaderKind::Event32 | HeaderKind::Event64) {
        return None;
    }
    Some(Facts {
        provider: event.provider?,
        event_id: event.event_id?,
        version: event.version as u8,
        channel: event.channel,
        level: event.level,
        opcode: event.opcode,
        task: event.task,
        keywords: event.keywords,
        property: event.property,
        is_32_bit: event.header == HeaderKind::Event32,
        process_id: event.process_id?,
        thread_id: event.thread_id?,
        time: event.time,
        activity_id: event.activity_id.unwrap_or_default(),
        processor: event.processor,
    })
}

#[cfg(test)]
mod tests {
    use super::Feed;
    use crate::standin::Scenario;
    use crate::{demo, writer::TraceWriter};
    use etwsieve_etl::{FileTime, Trace};

    /// Returns everything that must be preserved: header facts, items and payload.
    fn seen(bytes: &[u8]) -> Vec<String> {
        let trace = Trace::new(bytes).unwrap();
        let mut events = trace.events();
        let mut rows = Vec::new();
        while let Some(event) = events.next() {
            if event.event_id.is_some() {
                rows.push(format!(
                    "{} {:?} {:?} {:?} {:?} {} {} {} {} {} {} {:?} {:?} {:?} {}",
                    event.time.0,
                    event.process_id,
                    event.thread_id,
                    event.provider,
                    event.event_id,
                    event.version,
                    event.channel,
                    event.level,
                    event.opcode,
                    event.task,
                    event.keywords,
                    event.activity_id,
                    event.extended().collect::<Vec<_>>(),
                    event.payload,
                    event.processor,
                ));
            }
        }
        rows
    }

    #[test]
    fn a_trace_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.etl");
        std::fs::write(&path, demo::trace()).unwrap();
        let scenario = Scenario::parse(&format!("trace {}\nrepeat 2", path.display())).unwrap();
        let mut feed = Feed::open(&scenario).unwrap();
        let expected = seen(&demo::trace());
        assert_eq!(feed.total(), 2 * expected.len() as u64);
        let mut writer = TraceWriter::new().processors(2);
        writer.start = FileTime(feed.event(0).unwrap().facts.time.0 - 77);
        for number in 0..feed.total() / 2 {
            let spec = feed.event(number).unwrap().to_spec(writer.start, |_| true);
            writer.push(spec);
        }
        assert_eq!(seen(&writer.build()), expected);
        assert!(feed.event(feed.total()).is_none());
    }

    #[test]
    fn a_missing_trace_is_an_error() {
        assert!(Feed::open(&Scenario::parse("trace /nowhere/at/all.etl").unwrap()).is_err());
    }
}
