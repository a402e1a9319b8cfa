//! The sender's counters, and their names in STATUS and metrics.

use crate::spool::SpoolCounts;
use crate::wire::message::{CountV1, GapReason};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts since the sender started. [`SpoolCounts`] says what the counts of the spool cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Counts of the spool.
    pub spool: SpoolCounts,
    /// Connections that received a WELCOME.
    pub connects: u64,
    /// Connection attempts that did not.
    pub connect_failures: u64,
    /// True while the sender is connected to a collector.
    pub is_connected: bool,
    /// Expiry of the certificate, in seconds since 1970; 0 without TLS.
    pub certificate_expires_unix: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    connects: AtomicU64,
    connect_failures: AtomicU64,
    is_connected: AtomicBool,
    certificate_expires_unix: AtomicU64,
}

impl Counters {
    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.is_connected.store(true, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, was_welcome: bool) {
        self.is_connected.store(false, Ordering::Relaxed);
        if !was_welcome {
            self.connect_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn certificate(&self, expires_unix: u64) {
        self.certificate_expires_unix.store(expires_unix, Ordering::Relaxed);
    }

    pub(super) fn read(&self, spool: SpoolCounts) -> SenderCounts {
        SenderCounts {
            spool,
            connects: self.connects.load(Ordering::Relaxed),
            connect_failures: self.connect_failures.load(Ordering::Relaxed),
            is_connected: self.is_connected.load(Ordering::Relaxed),
            certificate_expires_unix: self.certificate_expires_unix.load(Ordering::Relaxed),
        }
    }
}

impl SenderCounts {
    /// Returns the number of dropped hits, for any reason.
    pub fn dropped(&self) -> u64 {
        self.spool.dropped.iter().sum()
    }

    /// Returns names and values as listed in `docs/wire.md`. `now_ms` is the time in milliseconds since 1970.
    pub fn named(&self, now_ms: u64) -> Vec<(String, u64)> {
        let spool = &self.spool;
        let age = spool.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest) / 1000);
        let dropped = GapReason::ALL
            .into_iter()
            .map(|reason| (format!("hits_dropped_{}", reason.as_str()), spool.dropped[reason as usize]));
        let others = [
            ("hits_acknowledged", spool.acknowledged),
            ("spool_hits", spool.hits),
            ("spool_bytes", spool.bytes),
            ("spool_oldest_seconds", age),
            ("spool_repairs", spool.repairs),
            ("spool_write_failures", spool.write_failures),
            ("connects", self.connects),
            ("connect_failures", self.connect_failures),
            ("certificate_expires_unix", self.certificate_expires_unix),
        ];
        std::iter::once(("hits_offered".to_owned(), spool.offered))
            .chain(dropped)
            .chain(others.map(|(name, value)| (name.to_owned(), value)))
            .collect()
    }

    pub(super) fn for_status(&self, now_ms: u64) -> Vec<CountV1> {
        self.named(now_ms).into_iter().map(|(name, value)| CountV1 { name, value }).collect()
    }
}
