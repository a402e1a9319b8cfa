//! The source's end of the pipeline: selects, copies into a pooled buffer, and sends.

use super::{Progress, Settings, WhenFull};
use crate::event::{EventHeader, EventRef, PAYLOAD_LEN_MAX, RawEvent, is_powershell};
use crate::ledger::Ledger;
use crate::source::{Damage, Sink};
use crate::stop::Stop;
use crossbeam_channel::{Receiver, Sender};
use etwsieve_etl::FileTime;
use etwsieve_matcher::{EventKind, Field, Fields, Matcher};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Counted for an event that found no room.
pub const DROPPED_CHANNEL_FULL: &str = "channel_full";
/// Counted for an event larger than [`PAYLOAD_LEN_MAX`].
pub const DROPPED_OVERSIZE: &str = "oversize";

/// Damage of one source that is told in words; the rest is only counted.
const DAMAGE_TOLD_MAX: u64 = 20;
/// The longest computer name that is kept, in bytes; a DNS name has at most 253.
const COMPUTER_LEN_MAX: usize = 256;

/// A [`Sink`] that feeds the matcher threads.
pub(super) struct Feed<'a> {
    wanted: Vec<u16>,
    settings: &'a Settings,
    senders: Vec<Sender<Box<RawEvent>>>,
    /// Emptied buffers come back here.
    free: Receiver<Box<RawEvent>>,
    /// Emptied buffers at hand.
    #[expect(clippy::vec_box, reason = "a box crosses the channel as one pointer, and back")]
    stash: Vec<Box<RawEvent>>,
    /// Buffers made so far, at most `channel_events`.
    made: usize,
    /// Payload bytes in buffers that have not come back.
    bytes_out: usize,
    source: u32,
    sequence: u64,
    ledger: Ledger,
    damage_told: u64,
    /// Bytes of the sources before this one, and of this one so far.
    bytes_before: u64,
    progress: &'a Progress,
    stop: &'a Stop,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        matcher: &Matcher,
        settings: &'a Settings,
        senders: Vec<Sender<Box<RawEvent>>>,
        free: Receiver<Box<RawEvent>>,
        progress: &'a Progress,
        stop: &'a Stop,
    ) -> Self {
        let wanted = EventKind::ALL.into_iter().filter(|kind| matcher.wants(*kind));
        Self {
            wanted: wanted.map(EventKind::event_id).collect(),
            settings,
            senders,
            free,
            stash: Vec::new(),
            made: 0,
            bytes_out: 0,
            source: 0,
            sequence: 0,
            ledger: Ledger::default(),
            damage_told: 0,
            bytes_before: 0,
            progress,
            stop,
        }
    }

    /// The counts of the source that has ended, of `len` bytes; what follows counts for the next one.
    pub(super) fn end_of_source(&mut self, len: u64) -> Ledger {
        if self.damage_told > DAMAGE_TOLD_MAX {
            tracing::warn!(more = self.damage_told - DAMAGE_TOLD_MAX, "further damage was only counted");
        }
        self.source += 1;
        self.sequence = 0;
        self.damage_told = 0;
        self.bytes_before += len;
        self.progress.bytes.store(self.bytes_before, Ordering::Relaxed);
        std::mem::take(&mut self.ledger)
    }

    /// A buffer with room for `len` bytes, or `None` if there is none and nobody may wait.
    fn buffer(&mut self, len: usize) -> Option<Box<RawEvent>> {
        while let Ok(buffer) = self.free.try_recv() {
            self.take_back(buffer);
        }
        loop {
            let fits = self.bytes_out == 0 || self.bytes_out + len <= self.settings.channel_bytes;
            if fits {
                if let Some(buffer) = self.stash.pop() {
                    return Some(buffer);
                }
                if self.made < self.settings.channel_events.max(1) {
                    self.made += 1;
                    return Some(Box::new(empty_event()));
                }
            }
            if self.settings.when_full == WhenFull::Drop {
                return None;
            }
            // Some buffer is out, or one of the two ways above were open.
            let buffer = self.free.recv().ok()?;
            self.take_back(buffer);
        }
    }

    fn take_back(&mut self, buffer: Box<RawEvent>) {
        self.bytes_out -= buffer.payload.len();
        self.stash.push(buffer);
    }

    /// The matcher thread for an event: the same for all fragments of a script block.
    fn shard(&self, event: &EventRef<'_>) -> usize {
        if self.senders.len() == 1 {
            return 0;
        }
        let id = EventKind::from_event_id(event.header.event_id)
            .and_then(|kind| Fields::split(kind, event.payload).text(Field::ScriptBlockId));
        let hash = match id {
            // FNV-1a: short keys, and no secret to keep, since a full shard only slows its own source.
            Some(id) => id.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
            }),
            None => self.sequence,
        };
        (hash % self.senders.len() as u64) as usize
    }

    fn drop_event(&mut self, reason: &'static str) {
        *self.ledger.dropped.entry(reason).or_default() += 1;
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn count_seen(&mut self) {
        self.ledger.events_seen += 1;
        self.progress.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl Sink for Feed<'_> {
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool {
        self.wanted.contains(&event_id) && is_powershell(provider)
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if !self.wants(&event.header.provider, event.header.event_id) {
            return self.unwanted();
        }
        self.count_seen();
        self.ledger.events_selected += 1;
        self.ledger.payload_bytes += event.payload.len() as u64;
        let sequence = self.sequence;
        self.sequence += 1;
        if event.payload.len() > PAYLOAD_LEN_MAX {
            self.drop_event(DROPPED_OVERSIZE);
            return self.flow();
        }
        let Some(mut buffer) = self.buffer(event.payload.len()) else {
            self.drop_event(DROPPED_CHANNEL_FULL);
            return self.flow();
        };
        buffer.fill(event, self.source, sequence);
        self.bytes_out += buffer.payload.len();
        let shard = self.shard(event);
        if let Err(refused) = self.senders[shard].try_send(buffer) {
            // Not for want of room: every buffer fits. The thread is gone.
            self.take_back(refused.into_inner());
            self.drop_event(DROPPED_CHANNEL_FULL);
        }
        self.flow()
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        self.count_seen();
        self.ledger.events_other += 1;
        self.flow()
    }

    fn damaged(&mut self, damage: &Damage) {
        *self.ledger.damaged.entry(damage.reason).or_default() += 1;
        self.damage_told += 1;
        if self.damage_told <= DAMAGE_TOLD_MAX {
            tracing::warn!(source = self.source, "{damage}");
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.bytes.store(self.bytes_before + bytes, Ordering::Relaxed);
    }
}

impl RawEvent {
    /// Copies an event into this buffer. Allocates only while the buffer grows.
    fn fill(&mut self, event: &EventRef<'_>, source: u32, sequence: u64) {
        self.header = event.header;
        self.user_sid = event.user_sid;
        self.source = source;
        self.sequence = sequence;
        self.computer.clear();
        let computer = event.computer.unwrap_or_default();
        self.computer.push_str(&computer[..computer.floor_char_boundary(COMPUTER_LEN_MAX)]);
        self.payload.clear();
        self.payload.extend_from_slice(event.payload);
    }
}

fn empty_event() -> RawEvent {
    RawEvent {
        header: EventHeader {
            time: FileTime(0),
            provider: Uuid::nil(),
            event_id: 0,
            version: 0,
            channel: 0,
            level: 0,
            opcode: 0,
            task: 0,
            keywords: 0,
            process_id: None,
            thread_id: None,
            activity_id: None,
            event_record_id: None,
        },
        user_sid: None,
        source: 0,
        sequence: 0,
        computer: String::new(),
        payload: Vec::new(),
    }
}
