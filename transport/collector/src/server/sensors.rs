//! The connected sensors, with their number of connections, rate and share of the queue.

use super::ServerSettings;
use crate::committer::{CommitQueue, SensorShare};
use crate::identity::SensorIdentity;
use crate::rate::{Load, SensorRate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The state that all connections of a sensor share.
#[derive(Debug)]
pub(crate) struct SensorState {
    /// Its share of the queue.
    pub(crate) share: SensorShare,
    rate: Mutex<SensorRate>,
    connections: AtomicUsize,
}

impl SensorState {
    /// Accounts for a frame; see [`SensorRate::take`].
    pub(crate) fn take(&self, load: Load, now: Instant) -> Duration {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(load, now)
    }

    /// Returns whether the state can be dropped: there are no connections, and the rate limits have recovered.
    fn has_recovered(&self, now: Instant) -> bool {
        self.connections.load(Ordering::Relaxed) == 0
            && self.rate.lock().unwrap_or_else(PoisonError::into_inner).has_recovered(now)
    }
}

/// Interval at which states that can be dropped are removed.
const PRUNE_TIME: Duration = Duration::from_secs(5);

/// The sensors that are connected, and those whose rate limits have not recovered.
#[derive(Debug)]
pub(super) struct ConnectedSensors(Mutex<SensorStates>);

#[derive(Debug)]
struct SensorStates {
    by_name: HashMap<Arc<str>, Arc<SensorState>>,
    pruned: Instant,
}

impl Default for ConnectedSensors {
    fn default() -> Self {
        Self(Mutex::new(SensorStates { by_name: HashMap::new(), pruned: Instant::now() }))
    }
}

impl ConnectedSensors {
    /// Adds a connection of a sensor and returns its state; `None` if it has too many connections. Without certificates
    /// all sensors have the same name, so each connection gets its own state.
    pub(super) fn enter(
        &self,
        identity: &SensorIdentity,
        settings: &ServerSettings,
        queue: &CommitQueue,
    ) -> Option<Arc<SensorState>> {
        let now = Instant::now();
        let new = || {
            Arc::new(SensorState {
                share: queue.share(),
                rate: Mutex::new(SensorRate::new(settings.frames_per_second, settings.bytes_per_second, now)),
                connections: AtomicUsize::new(0),
            })
        };
        let mut sensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(sensors.pruned) >= PRUNE_TIME {
            sensors.pruned = now;
            sensors.by_name.retain(|_, state| !state.has_recovered(now));
        }
        let state = sensors.by_name.entry(Arc::clone(&identity.name)).or_insert_with(new);
        if state.connections.load(Ordering::Relaxed) >= settings.connections_per_sensor_max {
            return None;
        }
        state.connections.fetch_add(1, Ordering::Relaxed);
        Some(if identity.is_certified() { Arc::clone(state) } else { new() })
    }

    /// Removes a connection. The state is dropped with the last connection unless the rate limits have not recovered.
    pub(super) fn leave(&self, name: &Arc<str>) {
        let mut sensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = sensors.by_name.get(name) {
            state.connections.fetch_sub(1, Ordering::Relaxed);
            if state.has_recovered(Instant::now()) {
                sensors.by_name.remove(name);
            }
        }
    }
}
