//! Stores the last STATUS of each sensor, separately from hits.
//!
//! A large fleet sends more STATUS frames than hits, and only the last one of each sensor matters. They are coalesced
//! in memory and written at most once a second. If the store fails they are dropped, because sensors send new ones
//! soon.

use crate::backend::{Backend, Heartbeat};
use crate::counters::Counters;
use crate::log_limit::LogLimit;
use etwsieve_transport::wire::message::StatusV1;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Interval between two writes.
const COLLECT_TIME: Duration = Duration::from_secs(1);
/// Maximum number of STATUS frames per batch. Hits wait some milliseconds for each.
const BATCH_MAX: usize = 256;
/// Maximum memory of queued STATUS frames, in bytes; excess frames are dropped and counted.
const BYTES_MAX: usize = 64 << 20;
/// Approximate memory of a STATUS frame without its counts, in bytes.
const HEARTBEAT_BYTES: usize = 256;
/// Approximate memory of a count without its name, in bytes.
const COUNT_BYTES: usize = 32;

/// The queued STATUS frames.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    latest: Mutex<Latest>,
    changed: Notify,
    stop: Notify,
}

#[derive(Debug, Default)]
struct Latest {
    by_sensor: HashMap<Arc<str>, StatusV1>,
    bytes: usize,
}

impl Heartbeats {
    /// Replaces the queued STATUS of a sensor. Returns `false` if there is no room for it.
    pub(super) fn put(&self, sensor: &Arc<str>, status: StatusV1) -> bool {
        let mut latest = self.latest();
        let before = latest.by_sensor.get(sensor).map_or(0, bytes_of);
        let bytes = latest.bytes - before + bytes_of(&status);
        if bytes > BYTES_MAX {
            return false;
        }
        latest.bytes = bytes;
        latest.by_sensor.insert(Arc::clone(sensor), status);
        drop(latest);
        self.changed.notify_one();
        true
    }

    /// Starts the task that writes queued frames.
    pub(super) fn start(
        self: &Arc<Self>,
        backend: Arc<dyn Backend>,
        counters: Arc<Counters>,
    ) -> JoinHandle<()> {
        let heartbeats = Arc::clone(self);
        tokio::spawn(async move {
            let failures = LogLimit::default();
            let mut is_last = false;
            while !is_last {
                tokio::select! {
                    biased;
                    () = heartbeats.stop.notified() => is_last = true,
                    () = heartbeats.changed.notified() => {}
                }
                heartbeats.flush(&*backend, &counters, &failures).await;
                if !is_last {
                    tokio::select! {
                        () = heartbeats.stop.notified() => {
                            is_last = true;
                            heartbeats.flush(&*backend, &counters, &failures).await;
                        }
                        () = tokio::time::sleep(COLLECT_TIME) => {}
                    }
                }
            }
        })
    }

    /// Makes the task write what is queued and end.
    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }

    async fn flush(&self, backend: &dyn Backend, counters: &Counters, failures: &LogLimit) {
        let all = std::mem::take(&mut *self.latest());
        let mut all =
            all.by_sensor.into_iter().map(|(sensor, status)| Heartbeat { sensor, status }).peekable();
        while all.peek().is_some() {
            let batch: Vec<Heartbeat> = all.by_ref().take(BATCH_MAX).collect();
            let count = batch.len() as u64;
            match backend.record_heartbeats(batch).await {
                Ok(()) => counters.heartbeats.add(count),
                Err(error) => {
                    counters.heartbeats_dropped.add(count);
                    if let Some(suppressed) = failures.admit() {
                        tracing::warn!(count, suppressed, "STATUS frames dropped, not stored: {error}");
                    }
                }
            }
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(status: &StatusV1) -> usize {
    HEARTBEAT_BYTES + status.counts.iter().map(|count| COUNT_BYTES + count.name.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etwsieve_transport::wire::message::CountV1;

    #[test]
    fn only_the_last_status_is_kept_and_memory_is_bounded() {
        let heartbeats = Heartbeats::default();
        let status = |uptime_seconds, names| StatusV1 {
            time: 0,
            uptime_seconds,
            counts: (0..names).map(|n| CountV1 { name: format!("{n:0>128}"), value: 1 }).collect(),
        };
        let sensor: Arc<str> = "a".into();
        for uptime in 0..1000 {
            assert!(heartbeats.put(&sensor, status(uptime, 1)));
        }
        {
            let latest = heartbeats.latest();
            assert_eq!((latest.by_sensor.len(), latest.by_sensor[&sensor].uptime_seconds), (1, 999));
            assert_eq!(latest.bytes, bytes_of(&status(0, 1)));
        }
        let longest = status(0, 256);
        let taken = (0..2000_u32).filter(|n| heartbeats.put(&n.to_string().into(), longest.clone())).count();
        assert_eq!(taken, (BYTES_MAX - bytes_of(&status(0, 1))) / bytes_of(&longest));
        assert!(heartbeats.latest().bytes <= BYTES_MAX);
        assert!(heartbeats.put(&sensor, status(7, 0)), "a shorter status always fits");
    }
}
