//! Counters since the start of the collector, updated by every connection and read by the metrics.

use crate::backend::Appended;
use etwsieve_transport::metrics::Text;
use etwsieve_transport::wire::message::{BusyReason, RefusalReason};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`, saturating at the maximum.
    pub fn add(&self, amount: u64) {
        let before = self.0.fetch_add(amount, Ordering::Relaxed);
        if before.checked_add(amount).is_none() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds one unless the value is at least `max`; returns whether it was added.
    pub(super) fn enter(&self, max: u64) -> bool {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let next = |level| (level < max).then_some(level + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Sets the value to 1 or 0.
    pub(super) fn set(&self, is_on: bool) {
        self.0.store(i64::from(is_on), Ordering::Relaxed);
    }

    /// Returns the value, at least 0.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// All counters of a collector.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open connections of known sensors.
    pub connections: Gauge,
    /// Open connections that have not completed the handshake.
    pub handshakes: Gauge,
    /// Open connections that get BUSY instead of being served.
    pub(super) refusing: Gauge,
    /// TCP connections accepted.
    pub accepted: Counter,
    /// TCP connections closed at once because a limit was reached.
    pub dropped: Counter,
    /// Connections closed during the handshake to make room for others.
    pub evicted: Counter,
    /// Failed TLS handshakes: foreign, expired or missing certificates, or no TLS at all.
    pub handshakes_failed: Counter,
    /// Connections refused because the certificate is not on the list of sensors or is revoked.
    pub not_allowed: Counter,
    /// Connections closed because of a protocol violation.
    pub violations: Counter,
    /// Connections closed because of a timeout.
    pub timed_out: Counter,
    /// Pauses because a sensor exceeded its rate.
    pub rate_pauses: Counter,
    /// BUSY messages sent, indexed by the wire value of the reason.
    pub busy: [Counter; BusyReason::ALL.len()],
    /// Frames received that must be acknowledged.
    pub frames: Counter,
    /// Bytes received in frames.
    pub bytes: Counter,
    /// Frames queued or being written.
    pub waiting: Gauge,
    /// Their size in bytes.
    pub waiting_bytes: Gauge,
    /// Durable batches.
    pub batches: Counter,
    /// Batches that could not be stored.
    pub batches_failed: Counter,
    /// Frames that were not stored although the store works. Their sensors send them again.
    pub entries_failed: Counter,
    /// Frames that can never be stored and are lost, indexed by the wire value of the reason.
    pub refused: [Counter; RefusalReason::ALL.len()],
    /// STATUS frames received.
    pub statuses: Counter,
    /// STATUS frames stored: at most one per sensor and second.
    pub heartbeats: Counter,
    /// STATUS frames dropped because the store failed or too many were queued.
    pub heartbeats_dropped: Counter,
    /// New hits stored.
    pub hits: Counter,
    /// Hits and gaps that were already stored.
    pub repeated: Counter,
    /// Sequence numbers reused with different contents: a copy of a sensor is running.
    pub conflicts: Counter,
    /// Gaps stored.
    pub gaps: Counter,
    /// Hits that gaps declared lost.
    pub lost: Counter,
    /// Damaged stores that were quarantined.
    pub quarantined: Counter,
    /// Stored hits that could not be decoded, counted once per sink.
    pub damaged: Counter,
    /// Incremented before and after a damaged store is quarantined, so that feeds reopen the file.
    pub(super) replaced: Counter,
    /// Hits removed by retention.
    pub expired: Counter,
    /// 1 while expired hits are kept because a sink has not received them.
    pub retention_held: Gauge,
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

    /// Adds all counters to a scrape.
    pub fn render(&self, text: &mut Text) {
        self.render_levels(text);
        self.render_counts(text);
        for (reason, count) in RefusalReason::ALL.iter().zip(&self.refused) {
            let labels = [("reason", reason.as_word())];
            let help = "Frames refused because they can never be stored.";
            text.counter("etwsieve_collector_refused_total", help, &labels, count.get());
        }
        for (reason, count) in BusyReason::ALL.iter().zip(&self.busy) {
            let labels = [("reason", reason.as_word())];
            text.counter("etwsieve_collector_busy_total", "BUSY messages sent.", &labels, count.get());
        }
    }

    fn render_levels(&self, text: &mut Text) {
        let levels = [
            ("etwsieve_collector_connections", "Open connections of known sensors.", &self.connections),
            (
                "etwsieve_collector_handshakes",
                "Open connections that have not completed the handshake.",
                &self.handshakes,
            ),
            (
                "etwsieve_collector_retention_held",
                "1 while expired hits are kept for a sink.",
                &self.retention_held,
            ),
            ("etwsieve_collector_waiting_frames", "Frames queued or being written.", &self.waiting),
            (
                "etwsieve_collector_waiting_bytes",
                "Size of the frames queued or being written, in bytes.",
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
                "TCP connections closed at once because a limit was reached.",
                &self.dropped,
            ),
            (
                "etwsieve_collector_connections_evicted_total",
                "Connections closed during the handshake to make room for others.",
                &self.evicted,
            ),
            ("etwsieve_collector_handshakes_failed_total", "Failed TLS handshakes.", &self.handshakes_failed),
            (
                "etwsieve_collector_not_allowed_total",
                "Connections refused because of their certificate.",
                &self.not_allowed,
            ),
            (
                "etwsieve_collector_breaches_total",
                "Connections closed because of a protocol violation.",
                &self.violations,
            ),
            (
                "etwsieve_collector_timed_out_total",
                "Connections closed because of a timeout.",
                &self.timed_out,
            ),
            (
                "etwsieve_collector_rate_pauses_total",
                "Pauses because a sensor exceeded its rate.",
                &self.rate_pauses,
            ),
            ("etwsieve_collector_frames_total", "Frames received that must be acknowledged.", &self.frames),
            ("etwsieve_collector_bytes_total", "Bytes received in frames.", &self.bytes),
            ("etwsieve_collector_batches_total", "Durable batches.", &self.batches),
            (
                "etwsieve_collector_batches_failed_total",
                "Batches that could not be stored.",
                &self.batches_failed,
            ),
            (
                "etwsieve_collector_frames_failed_total",
                "Frames that were not stored, in batches that were.",
                &self.entries_failed,
            ),
            ("etwsieve_collector_statuses_total", "STATUS frames received.", &self.statuses),
            (
                "etwsieve_collector_statuses_stored_total",
                "STATUS frames stored, at most one per sensor and second.",
                &self.heartbeats,
            ),
            (
                "etwsieve_collector_statuses_dropped_total",
                "STATUS frames dropped because they could not be stored.",
                &self.heartbeats_dropped,
            ),
            ("etwsieve_collector_hits_total", "Hits stored.", &self.hits),
            ("etwsieve_collector_repeated_total", "Hits and gaps that were already stored.", &self.repeated),
            (
                "etwsieve_collector_conflicts_total",
                "Sequence numbers reused with different contents.",
                &self.conflicts,
            ),
            ("etwsieve_collector_gaps_total", "Gaps stored.", &self.gaps),
            ("etwsieve_collector_lost_total", "Hits that gaps declared lost.", &self.lost),
            (
                "etwsieve_collector_set_aside_total",
                "Damaged stores that were quarantined.",
                &self.quarantined,
            ),
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
