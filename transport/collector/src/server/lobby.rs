//! Connections whose sensor is not known yet. They have places of their own, so that whoever only opens connections takes
//! none from sensors.
//!
//! A newcomer that finds no place takes that of the oldest connection that has sent nothing; if all have sent something,
//! of the oldest that has had its [`GRACE`](LobbyBounds::grace); else it is closed. So a client that begins its handshake
//! at once is served beside any number that do not, even from the same address, and a crowd of honest ones cannot push
//! each other out. Places are bounded for all addresses and for each: many sensors may share one.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bits of an IPv6 address that count as one place: what one customer is given at least.
const IPV6_PREFIX: u32 = 64;

/// What bounds the lobby.
#[derive(Clone, Copy, Debug)]
pub(super) struct LobbyBounds {
    /// Most connections.
    pub(super) total: usize,
    /// Most connections of one IPv4 address or of one IPv6 network of 64 bits.
    pub(super) per_address: usize,
    /// How long a connection that has sent something is left alone.
    pub(super) grace: Duration,
}

/// The connections whose sensor is not known.
#[derive(Debug)]
pub(super) struct Lobby {
    bounds: LobbyBounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next connection. Numbers ascend, so the lowest one is the oldest.
    next: u64,
    seats: HashMap<u64, Taken>,
    all: Ages,
    by_address: HashMap<IpAddr, Ages>,
}

/// Connections by age.
#[derive(Debug, Default)]
struct Ages {
    silent: BTreeSet<u64>,
    speaking: BTreeSet<u64>,
}

#[derive(Debug)]
struct Taken {
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

/// A place in the lobby; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    leave: Arc<Notify>,
}

impl Lobby {
    pub(super) fn new(bounds: LobbyBounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    /// A place for a connection from `address`; `None`: it is to be closed. `true` beside it: another one had to leave.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<(Seat, bool)> {
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
        state.seats.insert(number, Taken { address, since: now, leave: Arc::clone(&leave) });
        state.all.silent.insert(number);
        state.by_address.entry(address).or_default().silent.insert(number);
        Some((Seat { lobby: Arc::clone(self), number, leave }, has_evicted))
    }

    /// Has the oldest connection leave that may, because the system has no handle left; `false`: there is none.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        let mut state = self.state();
        let oldest = self.oldest(&state, &state.all, now);
        if let Some(oldest) = oldest {
            state.evict(oldest);
        }
        oldest.is_some()
    }

    /// Connections in it.
    pub(super) fn len(&self) -> usize {
        self.state().all.len()
    }

    /// Who has to leave for a newcomer.
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

    fn remove(&mut self, number: u64) -> Option<Taken> {
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

impl Seat {
    /// The connection has sent something.
    pub(super) fn speak(&self) {
        let mut state = self.lobby.state();
        let Some(address) = state.seats.get(&self.number).map(|taken| taken.address) else { return };
        let State { all, by_address, .. } = &mut *state;
        for ages in [Some(all), by_address.get_mut(&address)].into_iter().flatten() {
            if ages.silent.remove(&self.number) {
                ages.speaking.insert(self.number);
            }
        }
    }

    /// Waits until the connection has to leave for another one.
    pub(super) async fn evicted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.state().remove(self.number);
    }
}

/// What counts as one address.
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

    fn lobby(total: usize, per_address: usize) -> Arc<Lobby> {
        Lobby::new(LobbyBounds { total, per_address, grace: GRACE })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_evicted(seat: &Seat) -> bool {
        !seat.lobby.state().seats.contains_key(&seat.number)
    }

    #[test]
    fn whoever_speaks_is_not_pushed_out_by_the_silent() {
        let (lobby, now) = (lobby(100, 10), Instant::now());
        let (honest, _) = lobby.enter(address(1), now).unwrap();
        honest.speak();
        let crowd: Vec<_> = (0..1000).map(|_| lobby.enter(address(1), now).unwrap()).collect();
        assert_eq!(crowd.iter().filter(|(_, has_evicted)| *has_evicted).count(), 991);
        assert!(!is_evicted(&honest));
        assert_eq!(lobby.len(), 10);
        // Another address has its own places, and another honest one is let in beside the crowd.
        assert!(!lobby.enter(address(2), now).unwrap().1);
        let (second, _) = lobby.enter(address(1), now).unwrap();
        second.speak();
        assert!(!is_evicted(&second));
        drop(crowd);
        assert_eq!(lobby.len(), 2);
    }

    #[test]
    fn a_crowd_that_speaks_is_served_first_and_stalled_ones_leave_in_the_end() {
        let (lobby, now) = (lobby(100, 10), Instant::now());
        let crowd: Vec<_> = (0..10).map(|_| lobby.enter(address(1), now).unwrap().0).collect();
        crowd.iter().for_each(Seat::speak);
        assert!(lobby.enter(address(1), now).is_none(), "nobody in the middle of a handshake is pushed out");
        let (late, has_evicted) = lobby.enter(address(1), now + GRACE).unwrap();
        assert!(has_evicted && is_evicted(&crowd[0]) && !is_evicted(&crowd[1]) && !is_evicted(&late));
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let (lobby, now) = (lobby(16, 10), Instant::now());
        let seats: Vec<_> = (0..200).map(|last| lobby.enter(address(last), now).unwrap().0).collect();
        assert_eq!((lobby.len(), lobby.state().by_address.len()), (16, 16));
        assert!(lobby.make_room(now));
        assert_eq!(lobby.len(), 15);
        drop(seats);
        assert!(!lobby.make_room(now));
        let state = lobby.state();
        assert!(state.by_address.is_empty() && state.seats.is_empty() && state.all.len() == 0);
    }

    #[test]
    fn networks_of_64_bits_are_one_place() {
        let same =
            |left: &str, right: &str| place_of(left.parse().unwrap()) == place_of(right.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
