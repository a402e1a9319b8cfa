//! Losses that ETW reports for a session, and what the sensor did to the session: counts that the pipeline does not
//! have.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of all sessions of one run. Written by the session's threads, read by reports and metrics.
#[derive(Debug, Default)]
pub struct SessionCounters {
    /// Losses of the sessions that have ended.
    ended: Losses,
    /// Losses of the current session at its last query.
    current: Losses,
    /// Records of the provider RT_LostEvent, by which ETW reports lost events and buffers within the stream.
    pub lost_event_records: AtomicU64,
    /// Number of restarts of the session.
    pub restarts: AtomicU64,
    /// Number of times that a disabled provider was enabled again.
    pub reenabled: AtomicU64,
    /// Number of rule sets loaded after the first one.
    pub reloads: AtomicU64,
    /// Number of rule sets that were rejected, so that the previous one stayed active.
    pub reload_failures: AtomicU64,
    /// True while a session is running.
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

/// The values of [`Losses`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// Events for which no buffer was free.
    pub events: u64,
    /// Buffers that could not be delivered in real time because the consumer was too slow.
    pub real_time_buffers: u64,
    /// Buffers that could not be written to a file.
    pub log_buffers: u64,
    /// Buffers delivered or written.
    pub buffers_written: u64,
}

impl LossCounts {
    /// Returns whether nothing was lost.
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
    /// Records the losses of the current session.
    pub fn queried(&self, counts: LossCounts) {
        self.current.set(counts);
    }

    /// Records the end of the current session. The next one counts from zero.
    pub fn session_ended(&self) {
        self.ended.set(self.ended.read().add(self.current.read()));
        self.current.set(LossCounts::default());
        self.up.store(false, Ordering::Relaxed);
    }

    /// Returns the losses of all sessions.
    pub fn losses(&self) -> LossCounts {
        self.ended.read().add(self.current.read())
    }
}

#[cfg(test)]
mod tests {
    use super::{LossCounts, SessionCounters};

    #[test]
    fn losses_add_up_over_restarts() {
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
