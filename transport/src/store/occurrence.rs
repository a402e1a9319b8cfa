//! Numbers the equal events of a source.
//!
//! Two events can be equal in everything that was recorded: lines of a JSON Lines trace without record ids, events of
//! the same clock tick, a record that is in a log twice. Both are stored, and replaying the trace again adds neither,
//! because the second of them is always the second in its source.

use crate::hit::{EventIdentity, HitV1};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::mem;

/// Number of events that are remembered at least; at most twice as many are.
///
/// Equal events have equal times, and a replay stores hits in time order. Equal events are therefore this many hits
/// apart only if more hits of one source have the same time.
const REMEMBERED_MIN: usize = 1 << 15;

/// Numbers the equal events of each source, among the hits that a process stores.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    recent: Generation,
    older: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    /// The number of an event among its equals, by event and its number in the source.
    numbers: HashMap<(Key, u64), u64>,
    /// The number of equal events so far, by event.
    counts: HashMap<Key, u64>,
}

/// An identity and a source, hashed.
type Key = [u8; 16];

impl Occurrences {
    /// Returns the number of the hit's event among the equal events of its source, starting at 0. An event gets the
    /// same number every time, so that a failed batch, and further rules of an event, can be stored later.
    pub(super) fn number(&mut self, identity: EventIdentity, hit: &HitV1) -> u64 {
        let key = key(identity, &hit.source);
        let event = (key, hit.source_sequence);
        if let Some(number) = self.recent.numbers.get(&event) {
            return *number;
        }
        let known = self.older.numbers.get(&event).copied();
        let count =
            self.recent.counts.get(&key).or_else(|| self.older.counts.get(&key)).copied().unwrap_or(0);
        let number = known.unwrap_or(count);
        self.recent.numbers.insert(event, number);
        self.recent.counts.insert(key, count.max(number + 1));
        if self.recent.numbers.len() >= REMEMBERED_MIN {
            self.older = mem::take(&mut self.recent);
        }
        number
    }
}

fn key(identity: EventIdentity, source: &str) -> Key {
    let hash: [u8; 32] =
        Sha256::new().chain_update(identity.as_bytes()).chain_update(source.as_bytes()).finalize().into();
    let mut key = Key::default();
    key.copy_from_slice(&hash[..16]);
    key
}
