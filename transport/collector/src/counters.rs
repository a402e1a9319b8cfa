//! What the collector has done since its start, counted by every connection and read by the metrics.

use crate::backend::Appended;
use etwsieve_transport::metrics::Text;
use etwsieve_transport::wire::message::{BusyReason, RefusalReason};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it; it stays at its maximum rather than begin again.
    pub fn add(&self, amount: u64) {
        let before = self.0.fetch_add(amount, Ordering::Relaxed);
        if before.checked_add(amount).is_none() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Adds to it, or takes from it.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// One more, unless there are `max` already.
    pub(super) fn enter(&self, max: u64) -> bool {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let next = |level| (level < max).then_some(level + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Makes it 1 or 0.
    pub(super) fn set(&self, is_on: bool) {
        self.0.store(i64::from(is_on), Ordering::Relaxed);
    }

    /// What it is, at least 0.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// All counts of one collector.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of known sensors now.
    pub connections: Level,
    /// Connections now whose sensor is not known yet.
    pub handshakes: Level,
    /// Connections now that are being told BUSY instead of being served.
    pub(super) refusing: Level,
    /// TCP connections accepted.
    pub accepted: Count,
    /// TCP connections closed at once, because there was no place for another one.
    pub dropped: Count,
    /// Connections closed before their sensor was known, to make place for another one.
    pub evicted: Count,
    /// TLS handshakes that failed: foreign, expired or missing certificates, or no TLS at all.
    pub handshakes_failed: Count,
    /// Connections whose sensor is not on the list, or was revoked.
    pub not_allowed: Count,
    /// Connections closed because of what they sent.
    pub breaches: Count,
    /// Connections closed because they were silent, or a frame was not complete in time.
    pub timed_out: Count,
    /// Pauses because a sensor sent faster than it may.
    pub rate_pauses: Count,
    /// BUSY sent, by the wire value of its reason.
    pub busy: [Count; BusyReason::ALL.len()],
    /// Frames that asked to be acknowledged.
    pub frames: Count,
    /// Bytes of frames received.
    pub bytes: Count,
    /// Frames that wait for the store or are in it.
    pub waiting: Level,
    /// Bytes of their payloads.
    pub waiting_bytes: Level,
    /// Batches that became durable.
    pub batches: Count,
    /// Batches that the store refused.
    pub batches_failed: Count,
    /// Frames that were not stored although the store worked, and that their sensors send again.
    pub entries_failed: Count,
    /// Frames that can never be stored, by the wire value of the reason: each is lost.
    pub refused: [Count; RefusalReason::ALL.len()],
    /// STATUS frames received.
    pub statuses: Count,
    /// STATUS stored: of each sensor the last one in a second.
    pub heartbeats: Count,
    /// STATUS given up because the store did not take them, or too many waited.
    pub heartbeats_dropped: Count,
    /// Hits stored under a new number.
    pub hits: Count,
    /// Hits and gaps that were there already.
    pub repeated: Count,
    /// Numbers that came again with other contents: an alarm.
    pub conflicts: Count,
    /// Gaps stored.
    pub gaps: Count,
    /// Hits that gaps declared lost.
    pub lost: Count,
    /// Damaged stores that were set aside.
    pub set_aside: Count,
    /// Stored hits that could not be decoded for a sink; once for each sink.
    pub damaged: Count,
    /// Goes up before and after a damaged store is set aside, so that a feed lets go of the file it has open.
    pub(super) replaced: Count,
    /// Hits removed because of their age or the store's size.
    pub expired: Count,
    /// 1 while hits that are due to be removed stay because a sink has not taken them.
    pub retention_held: Level,
}

impl Counters {
    pub(super) fn appended(&self, appended: &Appended) {
        self.batches.add(1);
        self.hits.add(appended.new);
        self.repeated.add(appended.repeated);
        self.conflicts.add(appended.conflicts);
        self.gaps.add(appended.gaps);
        self.lost.add(appended.lost);
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        self.refused[reason as usize].add(1);
    }

    pub(super) fn busy(&self, reason: BusyReason) {
        self.busy[reason as usize].add(1);
    }

    /// Adds them to a scrape.
    pub fn render(&self, text: &mut Text) {
        self.render_levels(text);
        self.render_counts(text);
        for (reason, count) in RefusalReason::ALL.iter().zip(&self.refused) {
            let labels = [("reason", reason.as_word())];
            let help = "Frames that can never be stored.";
            text.counter("etwsieve_collector_refused_total", help, &labels, count.get());
        }
        for (reason, count) in BusyReason::ALL.iter().zip(&self.busy) {
            let labels = [("reason", reason.as_word())];
            text.counter("etwsieve_collector_busy_total", "BUSY sent.", &labels, count.get());
        }
    }

    fn render_levels(&self, text: &mut Text) {
        let levels = [
            ("etwsieve_collector_connections", "Connections of known sensors now.", &self.connections),
            (
                "etwsieve_collector_handshakes",
                "Connections now whose sensor is not known yet.",
                &self.handshakes,
            ),
            (
                "etwsieve_collector_retention_held",
                "1 while hits due to be removed wait for a sink.",
                &self.retention_held,
            ),
            ("etwsieve_collector_waiting_frames", "Frames that wait to become durable.", &self.waiting),
            (
                "etwsieve_collector_waiting_bytes",
                "Bytes of payloads that wait to become durable.",
                &self.waiting_bytes,
            ),
        ];
        for (name, help, level) in levels {
            text.gauge(name, help, &[], level.get() as f64);
        }
    }

    fn render_counts(&self, text: &mut Text) {
        let counts = [
            ("etwsieve_collector_connections_total", "TCP connections accepted.", &self.accepted),
            (
                "etwsieve_collector_connections_dropped_total",
                "TCP connections closed at once.",
                &self.dropped,
            ),
            (
                "etwsieve_collector_connections_evicted_total",
                "Connections closed before their sensor was known, to make place.",
                &self.evicted,
            ),
            (
                "etwsieve_collector_handshakes_failed_total",
                "TLS handshakes that failed.",
                &self.handshakes_failed,
            ),
            (
                "etwsieve_collector_not_allowed_total",
                "Connections of sensors not on the list.",
                &self.not_allowed,
            ),
            (
                "etwsieve_collector_breaches_total",
                "Connections closed because of what they sent.",
                &self.breaches,
            ),
            ("etwsieve_collector_timed_out_total", "Connections closed because of silence.", &self.timed_out),
            ("etwsieve_collector_rate_pauses_total", "Pauses of sensors over their rate.", &self.rate_pauses),
            ("etwsieve_collector_frames_total", "Frames that asked for an acknowledgement.", &self.frames),
            ("etwsieve_collector_bytes_total", "Bytes of these frames.", &self.bytes),
            ("etwsieve_collector_batches_total", "Batches that became durable.", &self.batches),
            (
                "etwsieve_collector_batches_failed_total",
                "Batches that the store refused.",
                &self.batches_failed,
            ),
            (
                "etwsieve_collector_frames_failed_total",
                "Frames that were not stored, of batches that were.",
                &self.entries_failed,
            ),
            ("etwsieve_collector_statuses_total", "STATUS frames received.", &self.statuses),
            (
                "etwsieve_collector_statuses_stored_total",
                "STATUS stored, the last one of each sensor in a second.",
                &self.heartbeats,
            ),
            (
                "etwsieve_collector_statuses_dropped_total",
                "STATUS given up because the store did not take them.",
                &self.heartbeats_dropped,
            ),
            ("etwsieve_collector_hits_total", "Hits stored.", &self.hits),
            ("etwsieve_collector_repeated_total", "Hits and gaps that were there already.", &self.repeated),
            (
                "etwsieve_collector_conflicts_total",
                "Numbers that came again with other contents.",
                &self.conflicts,
            ),
            ("etwsieve_collector_gaps_total", "Gaps stored.", &self.gaps),
            ("etwsieve_collector_lost_total", "Hits that gaps declared lost.", &self.lost),
            ("etwsieve_collector_set_aside_total", "Damaged stores that were set aside.", &self.set_aside),
            (
                "etwsieve_collector_damaged_total",
                "Stored hits that could not be decoded for a sink.",
                &self.damaged,
            ),
            ("etwsieve_collector_expired_total", "Hits removed by retention.", &self.expired),
        ];
        for (name, help, count) in counts {
            text.counter(name, help, &[], count.get());
        }
    }
}
