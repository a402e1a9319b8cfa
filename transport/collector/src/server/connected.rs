//! What is known of the sensors that are connected: how many connections each has, how fast it sends, its part of the queue.

use super::Settings;
use crate::committer::{Queue, Share};
use crate::identity::Identity;
use crate::limits::{Load, Rate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is known of a sensor while it has connections.
#[derive(Debug)]
pub(crate) struct SensorState {
    /// Its part of the queue.
    pub(crate) share: Share,
    rate: Mutex<Rate>,
    connections: AtomicUsize,
}

impl SensorState {
    /// See [`Rate::take`].
    pub(crate) fn take(&self, load: Load, now: Instant) -> Duration {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(load, now)
    }

    /// Whether it may be forgotten: it has no connections, and coming again would not free it of what it owes.
    fn is_rested(&self, now: Instant) -> bool {
        self.connections.load(Ordering::Relaxed) == 0
            && self.rate.lock().unwrap_or_else(PoisonError::into_inner).is_rested(now)
    }
}

/// Time between two looks for sensors that can be forgotten.
const FORGET_TIME: Duration = Duration::from_secs(5);

/// The sensors that are connected, or were so recently that their rate still matters.
#[derive(Debug)]
pub(super) struct Connected(Mutex<Sensors>);

#[derive(Debug)]
struct Sensors {
    by_name: HashMap<Arc<str>, Arc<SensorState>>,
    looked: Instant,
}

impl Default for Connected {
    fn default() -> Self {
        Self(Mutex::new(Sensors { by_name: HashMap::new(), looked: Instant::now() }))
    }
}

impl Connected {
    /// The state of a sensor, with one connection more; `None` if it has too many. Without certificates all have one name,
    /// and each connection has a state of its own.
    pub(super) fn enter(
        &self,
        identity: &Identity,
        settings: &Settings,
        queue: &Queue,
    ) -> Option<Arc<SensorState>> {
        let now = Instant::now();
        let new = || {
            Arc::new(SensorState {
                share: queue.share(),
                rate: Mutex::new(Rate::new(settings.frames_per_second, settings.bytes_per_second, now)),
                connections: AtomicUsize::new(0),
            })
        };
        let mut sensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(sensors.looked) >= FORGET_TIME {
            sensors.looked = now;
            sensors.by_name.retain(|_, state| !state.is_rested(now));
        }
        let state = sensors.by_name.entry(Arc::clone(&identity.name)).or_insert_with(new);
        if state.connections.load(Ordering::Relaxed) >= settings.connections_per_sensor_max {
            return None;
        }
        state.connections.fetch_add(1, Ordering::Relaxed);
        Some(if identity.is_certified() { Arc::clone(state) } else { new() })
    }

    /// One connection less; a sensor whose last one has ended is forgotten, unless it sent faster than it may.
    pub(super) fn leave(&self, name: &Arc<str>) {
        let mut sensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = sensors.by_name.get(name) {
            state.connections.fetch_sub(1, Ordering::Relaxed);
            if state.is_rested(Instant::now()) {
                sensors.by_name.remove(name);
            }
        }
    }
}
