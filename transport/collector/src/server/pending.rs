//! Limits the connections that are not yet authenticated, separately from those of sensors, so that a client that only
//! opens connections cannot keep sensors out.
//!
//! When the limit is reached, a new connection replaces the oldest one that has sent nothing. If all have sent
//! something, it replaces the oldest one whose [grace period](PendingLimits::grace) is over, or else is closed. A
//! client that starts its handshake at once is therefore served beside any number that do not, even from the same
//! address, and many honest clients cannot evict each other. There is a limit for all addresses together and one per
//! address, because many sensors may share an address.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Length of the IPv6 prefix that counts as one address: the smallest network that a customer gets.
const IPV6_PREFIX: u32 = 64;

/// Limits of pending connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingLimits {
    /// Maximum number of connections.
    pub(super) total: usize,
    /// Maximum number of connections per IPv4 address or IPv6 /64 network.
    pub(super) per_address: usize,
    /// Time for which a connection that has sent something is not evicted.
    pub(super) grace: Duration,
}

/// The connections that are not yet authenticated.
#[derive(Debug)]
pub(super) struct PendingConnections {
    bounds: PendingLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next connection. Numbers ascend, so the lowest is the oldest.
    next: u64,
    seats: HashMap<u64, PendingState>,
    all: Ages,
    by_address: HashMap<IpAddr, Ages>,
}

/// Connections ordered by age.
#[derive(Debug, Default)]
struct Ages {
    silent: BTreeSet<u64>,
    speaking: BTreeSet<u64>,
}

#[derive(Debug)]
struct PendingState {
    address: IpAddr,
    since: Instant,
    leave: Arc<Notify>,
}

impl Ages {
    fn len(&self) -> usize {
        self.silent.len() + self.speaking.len()
    }

    fn remove(&mut self, number: u64) {
        let _ = self.silent.remove(&number) || self.speaking.remove(&number);
    }
}

/// The place of a pending connection, released when dropped.
#[derive(Debug)]
pub(super) struct PendingSlot {
    pending: Arc<PendingConnections>,
    number: u64,
    leave: Arc<Notify>,
}

impl PendingConnections {
    pub(super) fn new(bounds: PendingLimits) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    /// Admits a connection from `address` and returns whether another one was evicted for it; `None`: close the
    /// connection.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<(PendingSlot, bool)> {
        let address = place_of(address);
        let mut state = self.state();
        let here = state.by_address.get(&address);
        let mut has_evicted = false;
        if here.is_some_and(|ages| ages.len() >= self.bounds.per_address.max(1)) {
            let oldest = here.and_then(|ages| self.oldest(&state, ages, now))?;
            state.evict(oldest);
            has_evicted = true;
        }
        if state.all.len() >= self.bounds.total.max(1) {
            let oldest = self.oldest(&state, &state.all, now)?;
            state.evict(oldest);
            has_evicted = true;
        }
        let number = state.next;
        state.next += 1;
        let leave: Arc<Notify> = Arc::default();
        state.seats.insert(number, PendingState { address, since: now, leave: Arc::clone(&leave) });
        state.all.silent.insert(number);
        state.by_address.entry(address).or_default().silent.insert(number);
        Some((PendingSlot { pending: Arc::clone(self), number, leave }, has_evicted))
    }

    /// Evicts the oldest connection that may be evicted, because file descriptors have run out. Returns whether there
    /// was one.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        let mut state = self.state();
        let oldest = self.oldest(&state, &state.all, now);
        if let Some(oldest) = oldest {
            state.evict(oldest);
        }
        oldest.is_some()
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.state().all.len()
    }

    /// Returns the connection to evict for a new one.
    fn oldest(&self, state: &State, ages: &Ages, now: Instant) -> Option<u64> {
        let is_old = |number: &u64| {
            state
                .seats
                .get(number)
                .is_some_and(|taken| now.saturating_duration_since(taken.since) >= self.bounds.grace)
        };
        let silent = ages.silent.first().copied();
        silent.or_else(|| ages.speaking.first().copied().filter(is_old))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn evict(&mut self, number: u64) {
        if let Some(taken) = self.remove(number) {
            taken.leave.notify_one();
        }
    }

    fn remove(&mut self, number: u64) -> Option<PendingState> {
        let taken = self.seats.remove(&number)?;
        self.all.remove(number);
        if let Some(ages) = self.by_address.get_mut(&taken.address) {
            ages.remove(number);
            if ages.len() == 0 {
                self.by_address.remove(&taken.address);
            }
        }
        Some(taken)
    }
}

impl PendingSlot {
    /// Records that the connection has sent something.
    pub(super) fn speak(&self) {
        let mut state = self.pending.state();
        let Some(address) = state.seats.get(&self.number).map(|taken| taken.address) else { return };
        let State { all, by_address, .. } = &mut *state;
        for ages in [Some(all), by_address.get_mut(&address)].into_iter().flatten() {
            if ages.silent.remove(&self.number) {
                ages.speaking.insert(self.number);
            }
        }
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.pending.state().remove(self.number);
    }
}

/// Returns the address or network to which the limit applies.
fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn pending(total: usize, per_address: usize) -> Arc<PendingConnections> {
        PendingConnections::new(PendingLimits { total, per_address, grace: GRACE })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_evicted(seat: &PendingSlot) -> bool {
        !seat.pending.state().seats.contains_key(&seat.number)
    }

    #[test]
    fn silent_connections_do_not_evict_active_ones() {
        let (pending, now) = (pending(100, 10), Instant::now());
        let (honest, _) = pending.enter(address(1), now).unwrap();
        honest.speak();
        let crowd: Vec<_> = (0..1000).map(|_| pending.enter(address(1), now).unwrap()).collect();
        assert_eq!(crowd.iter().filter(|(_, has_evicted)| *has_evicted).count(), 991);
        assert!(!is_evicted(&honest));
        assert_eq!(pending.len(), 10);
        // Another address has its own limit, and another honest client is admitted beside the crowd.
        assert!(!pending.enter(address(2), now).unwrap().1);
        let (second, _) = pending.enter(address(1), now).unwrap();
        second.speak();
        assert!(!is_evicted(&second));
        drop(crowd);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn active_connections_are_evicted_only_after_their_grace_period() {
        let (pending, now) = (pending(100, 10), Instant::now());
        let crowd: Vec<_> = (0..10).map(|_| pending.enter(address(1), now).unwrap().0).collect();
        crowd.iter().for_each(PendingSlot::speak);
        assert!(pending.enter(address(1), now).is_none(), "a connection in its handshake is not evicted");
        let (late, has_evicted) = pending.enter(address(1), now + GRACE).unwrap();
        assert!(has_evicted && is_evicted(&crowd[0]) && !is_evicted(&crowd[1]) && !is_evicted(&late));
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let (pending, now) = (pending(16, 10), Instant::now());
        let seats: Vec<_> = (0..200).map(|last| pending.enter(address(last), now).unwrap().0).collect();
        assert_eq!((pending.len(), pending.state().by_address.len()), (16, 16));
        assert!(pending.make_room(now));
        assert_eq!(pending.len(), 15);
        drop(seats);
        assert!(!pending.make_room(now));
        let state = pending.state();
        assert!(state.by_address.is_empty() && state.seats.is_empty() && state.all.len() == 0);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_counts_as_one_address() {
        let same =
            |left: &str, right: &str| place_of(left.parse().unwrap()) == place_of(right.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
