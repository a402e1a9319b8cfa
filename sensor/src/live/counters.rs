//! What ETW tells about a session, and what the sensor did with it: the part of the loss ledger that no event
//! carries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of all sessions of one run. Written by the session's threads, read by reports and metrics.
#[derive(Debug, Default)]
pub struct SessionCounters {
    /// Of sessions that have ended; added to what the present one says.
    ended: Losses,
    /// Of the present session, as its last query said.
    present: Losses,
    /// Records of provider RT_LostEvent: how many lost events and buffers ETW told in the stream itself.
    pub lost_event_records: AtomicU64,
    /// Sessions started again after the first.
    pub restarts: AtomicU64,
    /// Times that a provider was enabled again.
    pub reenabled: AtomicU64,
    /// Rule sets loaded after the first.
    pub reloads: AtomicU64,
    /// Rule sets that were refused; the old ones stayed.
    pub reload_failures: AtomicU64,
    /// Whether a session runs now.
    pub up: AtomicBool,
}

/// Losses as `ControlTraceW` reports them (`EVENT_TRACE_PROPERTIES`).
#[derive(Debug, Default)]
pub struct Losses {
    events: AtomicU64,
    real_time_buffers: AtomicU64,
    log_buffers: AtomicU64,
    buffers_written: AtomicU64,
}

/// A reading of [`Losses`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// Events that found no free buffer when they were written.
    pub events: u64,
    /// Buffers that could not be delivered in real time: the consumer was behind.
    pub real_time_buffers: u64,
    /// Buffers that could not be written to a file.
    pub log_buffers: u64,
    /// Buffers delivered or written.
    pub buffers_written: u64,
}

impl LossCounts {
    /// Whether nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.events == 0 && self.real_time_buffers == 0 && self.log_buffers == 0
    }

    fn add(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            real_time_buffers: self.real_time_buffers + other.real_time_buffers,
            log_buffers: self.log_buffers + other.log_buffers,
            buffers_written: self.buffers_written + other.buffers_written,
        }
    }
}

impl Losses {
    fn read(&self) -> LossCounts {
        LossCounts {
            events: self.events.load(Ordering::Relaxed),
            real_time_buffers: self.real_time_buffers.load(Ordering::Relaxed),
            log_buffers: self.log_buffers.load(Ordering::Relaxed),
            buffers_written: self.buffers_written.load(Ordering::Relaxed),
        }
    }

    fn set(&self, counts: LossCounts) {
        self.events.store(counts.events, Ordering::Relaxed);
        self.real_time_buffers.store(counts.real_time_buffers, Ordering::Relaxed);
        self.log_buffers.store(counts.log_buffers, Ordering::Relaxed);
        self.buffers_written.store(counts.buffers_written, Ordering::Relaxed);
    }
}

impl SessionCounters {
    /// The present session says this now.
    pub fn queried(&self, counts: LossCounts) {
        self.present.set(counts);
    }

    /// The present session has ended; a following one counts from zero.
    pub fn session_ended(&self) {
        self.ended.set(self.ended.read().add(self.present.read()));
        self.present.set(LossCounts::default());
        self.up.store(false, Ordering::Relaxed);
    }

    /// All sessions together.
    pub fn losses(&self) -> LossCounts {
        self.ended.read().add(self.present.read())
    }
}

#[cfg(test)]
mod tests {
    use super::{LossCounts, SessionCounters};

    #[test]
    fn losses_survive_a_restart_of_the_session() {
        let counters = SessionCounters::default();
        let counts = |events, buffers_written| LossCounts { events, buffers_written, ..Default::default() };
        counters.queried(counts(2, 10));
        counters.queried(counts(3, 20));
        counters.session_ended();
        counters.queried(counts(1, 5));
        assert_eq!(counters.losses(), counts(4, 25));
        assert!(!counters.losses().is_lossless());
    }
}
