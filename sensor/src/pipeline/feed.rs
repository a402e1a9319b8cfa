//! The input of the pipeline: selects events, copies them into buffers of the pool, and sends them to matcher threads.

use super::tally::Tally;
use super::{BLOCK_SHARDS, Progress, Settings, Shard, WhenFull};
use crate::amsi::{self, Scan};
use crate::event::{self, EventHeader, EventRef, PAYLOAD_LEN_MAX, RawEvent};
use crate::ledger::LossLedger;
use crate::rules::ActiveRules;
use crate::source::{Damage, Sink};
use crate::stop::Stop;
use crossbeam_channel::{Receiver, Sender};
use etwsieve_matcher::{EventKind, Payload};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Drop reason of an event for which the queue had no room.
pub const DROPPED_CHANNEL_FULL: &str = "channel_full";
/// Drop reason of an event whose payload is longer than [`PAYLOAD_LEN_MAX`].
pub const DROPPED_OVERSIZE: &str = "oversize";
/// Drop reason of an AMSI event that does not have the layout in [`amsi`].
pub const DROPPED_AMSI_LAYOUT: &str = "amsi_layout";

/// Level of events that PowerShell marks as warnings. Lower levels are more severe.
const WARNING_LEVEL: u8 = 3;
/// Maximum number of damaged parts per source that are logged one by one.
const DAMAGE_LOGGED_MAX: u64 = 20;
/// Maximum length of a computer name in bytes; a DNS name has at most 253.
const COMPUTER_LEN_MAX: usize = 256;

/// A [`Sink`] that feeds the matcher threads.
pub(super) struct Feed<'a> {
    rules: &'a ActiveRules,
    settings: &'a Settings,
    senders: Vec<Sender<Box<RawEvent>>>,
    /// Buffers that matcher threads return.
    free: Receiver<Box<RawEvent>>,
    /// Free buffers.
    #[expect(clippy::vec_box, reason = "the channel transfers a box as one pointer")]
    stash: Vec<Box<RawEvent>>,
    /// Number of buffers allocated so far, at most `channel_events`.
    allocated: usize,
    /// Payload bytes in buffers that have not been returned.
    bytes_out: usize,
    source: u32,
    /// Names of the sources.
    names: &'a [String],
    sequence: u64,
    /// Number of events dropped since the last event that was sent.
    dropped_before: u64,
    /// Number of damaged parts of this source.
    damaged_parts: u64,
    /// Bytes of the sources before this one.
    bytes_before: u64,
    progress: &'a Progress,
    stop: &'a Stop,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        rules: &'a ActiveRules,
        settings: &'a Settings,
        names: &'a [String],
        senders: Vec<Sender<Box<RawEvent>>>,
        free: Receiver<Box<RawEvent>>,
        progress: &'a Progress,
        stop: &'a Stop,
    ) -> Self {
        let buffers = settings.channel_events.max(1);
        let mut stash = Vec::with_capacity(buffers);
        let mut allocated = 0;
        if settings.when_full == WhenFull::Drop {
            stash.extend((0..buffers).map(|_| Box::new(empty_event(settings.buffer_len()))));
            allocated = buffers;
        }
        Self {
            rules,
            settings,
            senders,
            free,
            stash,
            allocated,
            bytes_out: 0,
            source: 0,
            names,
            sequence: 0,
            dropped_before: 0,
            damaged_parts: 0,
            bytes_before: 0,
            progress,
            stop,
        }
    }

    /// Ends a source of `len` bytes. Later events belong to the next source.
    pub(super) fn end_of_source(&mut self, len: u64) {
        if self.damaged_parts > DAMAGE_LOGGED_MAX {
            let more = self.damaged_parts - DAMAGE_LOGGED_MAX;
            tracing::warn!("{}: {more} more damaged parts", self.name());
        }
        self.source += 1;
        self.sequence = 0;
        self.dropped_before = 0;
        self.damaged_parts = 0;
        self.bytes_before += len;
        self.progress.bytes.store(self.bytes_before, Ordering::Relaxed);
    }

    fn name(&self) -> &'a str {
        self.names.get(self.source as usize).map_or("", String::as_str)
    }

    fn tally(&self) -> &'a Tally {
        &self.progress.tallies[self.source as usize]
    }

    /// Returns a buffer for an event of `len` bytes; `None` if the queue is full and the source must not wait.
    fn buffer(&mut self, len: usize, level: u8) -> Option<Box<RawEvent>> {
        while let Ok(buffer) = self.free.try_recv() {
            self.take_back(buffer);
        }
        let kept = if self.settings.when_full == WhenFull::Drop && level > WARNING_LEVEL {
            usize::from(self.settings.warning_reserve.min(100))
        } else {
            0
        };
        let (events, bytes) = (self.settings.channel_events.max(1), self.settings.channel_bytes);
        let room = bytes - bytes / 100 * kept;
        // The queue always has room for one event of any level.
        let reserved = (events * kept / 100).min(events - 1);
        loop {
            if self.bytes_out == 0 || self.bytes_out + len <= room {
                if self.stash.len() > reserved {
                    return self.stash.pop();
                }
                if self.allocated < events {
                    self.allocated += 1;
                    return Some(Box::new(empty_event(self.settings.buffer_len())));
                }
            }
            if self.settings.when_full == WhenFull::Drop {
                return None;
            }
            // At least one buffer is in use, or one of the conditions above would be true.
            let buffer = self.free.recv().ok()?;
            self.take_back(buffer);
        }
    }

    fn take_back(&mut self, buffer: Box<RawEvent>) {
        self.bytes_out -= buffer.payload_len;
        self.stash.push(buffer);
    }

    /// Returns the matcher thread for an event, and the shard there: the same for all fragments of a script block.
    fn place(&self, event: &EventRef<'_>) -> (usize, u8) {
        let threads = self.senders.len();
        if self.settings.shard == Shard::Writer {
            // Ids of processes and threads are multiples of 4. The odd factor spreads them over the high bits.
            let writer =
                event.header.process_id.unwrap_or(0) ^ event.header.thread_id.unwrap_or(0).rotate_left(16);
            let spread = u64::from(writer.wrapping_mul(0x9E37_79B1));
            return (((spread * threads as u64) >> 32) as usize, 0);
        }
        let kind = EventKind::from_event_id(event.header.event_id);
        let fragment = kind.and_then(|kind| {
            Payload { kind, process_id: event.header.process_id, bytes: event.payload }.fragment()
        });
        // Events that are not fragments may go to any thread.
        let Some(fragment) = fragment else { return ((self.sequence % threads as u64) as usize, 0) };
        // FNV-1a is fast for short keys. Collisions that an attacker provokes only slow down the same source.
        let hash = fragment.script_block_id.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let shard = (hash % BLOCK_SHARDS as u64) as usize;
        (shard % threads, shard as u8)
    }

    fn drop_event(&mut self, reason: &'static str) {
        self.dropped_before += 1;
        self.tally().dropped(reason);
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn select(&mut self, payload_len: usize) -> u64 {
        self.progress.events.fetch_add(1, Ordering::Relaxed);
        self.tally().selected(payload_len);
        self.sequence += 1;
        self.sequence - 1
    }
}

impl Sink for Feed<'_> {
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool {
        event::kind(provider, event_id).is_some_and(|kind| self.rules.want(kind))
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if !self.wants(&event.header.provider, event.header.event_id) {
            return self.unwanted();
        }
        let is_amsi = event.header.provider == event::AMSI;
        if is_amsi {
            self.tally().amsi().seen();
            if amsi::is_from_other_program(event.payload) {
                return self.unwanted();
            }
            self.tally().amsi().selected();
        }
        let sequence = self.select(event.payload.len());
        let drop_event = |feed: &mut Self, reason| {
            if is_amsi {
                feed.tally().amsi().dropped();
            }
            feed.drop_event(reason);
            feed.flow()
        };
        if event.payload.len() > PAYLOAD_LEN_MAX {
            return drop_event(self, DROPPED_OVERSIZE);
        }
        let Ok(scan) = is_amsi.then(|| amsi::decode(event.payload)).transpose() else {
            return drop_event(self, DROPPED_AMSI_LAYOUT);
        };
        let Some(mut buffer) = self.buffer(event.payload.len(), event.header.level) else {
            return drop_event(self, DROPPED_CHANNEL_FULL);
        };
        buffer.fill(event, scan.as_ref(), self.source, sequence);
        buffer.dropped_before = std::mem::take(&mut self.dropped_before);
        self.bytes_out += buffer.payload_len;
        let (thread, shard) = self.place(event);
        buffer.shard = shard;
        if let Err(refused) = self.senders[thread].try_send(buffer) {
            // The channel has room for every buffer, so the thread has ended.
            let buffer = refused.into_inner();
            self.dropped_before = buffer.dropped_before;
            self.take_back(buffer);
            return drop_event(self, DROPPED_CHANNEL_FULL);
        }
        self.flow()
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        self.progress.events.fetch_add(1, Ordering::Relaxed);
        self.tally().other();
        self.flow()
    }

    fn refused(&mut self, reason: &'static str) -> ControlFlow<()> {
        self.select(0);
        self.drop_event(reason);
        self.flow()
    }

    fn damaged(&mut self, damage: &Damage) {
        self.tally().damaged(damage.reason, 1);
        self.damaged_parts += 1;
        if self.damaged_parts <= DAMAGE_LOGGED_MAX {
            tracing::warn!("{}: {damage}", self.name());
        }
    }

    fn damaged_also(&mut self, reason: &'static str, count: u64) {
        self.tally().damaged(reason, count);
        self.damaged_parts += count;
    }

    fn lost(&mut self, losses: LossLedger) {
        self.tally().lost(losses);
    }

    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.bytes.store(self.bytes_before + bytes, Ordering::Relaxed);
    }
}

impl RawEvent {
    /// Copies an event into this buffer. An AMSI event is copied in the form that the matcher searches, which is
    /// shorter. Allocates only if the buffer has to grow.
    fn fill(&mut self, event: &EventRef<'_>, scan: Option<&Scan<'_>>, source: u32, sequence: u64) {
        self.header = event.header;
        self.user_sid = event.user_sid;
        self.source = source;
        self.sequence = sequence;
        self.computer.clear();
        let computer = event.computer.unwrap_or_default();
        self.computer.push_str(&computer[..computer.floor_char_boundary(COMPUTER_LEN_MAX)]);
        self.payload.clear();
        match scan {
            Some(scan) => scan.lay_out(&mut self.payload),
            None => self.payload.extend_from_slice(event.payload),
        }
        self.payload_len = event.payload.len();
    }
}

fn empty_event(len: usize) -> RawEvent {
    RawEvent {
        header: EventHeader::default(),
        user_sid: None,
        source: 0,
        sequence: 0,
        dropped_before: 0,
        shard: 0,
        payload_len: 0,
        computer: String::with_capacity(len.min(COMPUTER_LEN_MAX)),
        payload: Vec::with_capacity(len),
    }
}
