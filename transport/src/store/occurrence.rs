//! Equal events of one source, numbered.
//!
//! Two events can be equal in everything that was recorded: lines of a JSON Lines trace that has no record ids, events of
//! one clock tick, a record that stands in a log twice. Both are stored, and replaying the trace again adds neither,
//! because the second one of a source is the second one whenever and from wherever the source is read.

use crate::hit::{EventIdentity, HitV1};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::mem;

/// Events that are remembered at least; at most twice as many.
///
/// Equal events have equal times, and a replay stores hits in time order, so equal events are this many hits apart only
/// where more than this many hits of one source have the same time.
const REMEMBERED_MIN: usize = 1 << 15;

/// Numbers the equal events of each source, of the hits that one process stores.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    recent: Generation,
    older: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    /// By event and its number in the source: which of its equals it is.
    numbers: HashMap<(Key, u64), u64>,
    /// By event: how many equal ones there have been.
    counts: HashMap<Key, u64>,
}

/// An identity in a source.
type Key = [u8; 16];

impl Occurrences {
    /// Returns which of the equal events of its source the hit's event is, from 0. The same event always gets the same
    /// number, so a batch that failed can be stored again, and so can further rules of an event.
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
