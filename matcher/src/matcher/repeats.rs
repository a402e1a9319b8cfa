//! Texts that are known to match nothing.
//!
//! Busy machines compile the same script blocks again and again. A text that matches no rule is remembered by a 128-bit
//! hash, and its repeats are not searched. Matches are never remembered, because every hit has its own fields.
//!
//! The hash covers exactly the fields that the rules read, so that a text is recognised under a new script block id. It
//! is XXH3 with a random secret: to have a malicious text mistaken for a harmless one, an attacker would have to find a
//! 128-bit collision without knowing the secret.

use crate::field::{EventKind, Field, Fields};
use crate::hash::SecretHash;

/// When repeats are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// With many rules, as long as enough events are repeats.
    #[default]
    Auto,
    /// For every event.
    Always,
    /// Never.
    Never,
}

/// Minimum number of needles: with fewer, searching is as fast as hashing.
const AUTO_NEEDLES_MIN: usize = 32;
/// Number of texts remembered, at 16 bytes each: the newest for each value of the lowest bits of the hash.
const TEXTS_MAX: usize = 1 << 15;
/// Number of events after which the benefit is assessed.
const TRIAL_EVENTS: u32 = 512;
/// Looking up repeats pays if one of this many events is a repeat: hashing takes about a fifth of the time of
/// searching.
const TRIAL_EVENTS_PER_HIT: u32 = 4;
/// Number of events without look-ups after an unsuccessful trial.
const PAUSE_EVENTS: u32 = 8 * TRIAL_EVENTS;

/// Hash of everything that a verdict depends on.
pub(crate) type Key = u128;

impl Repeats {
    pub(crate) fn pays(self, gate_needles: usize) -> bool {
        match self {
            Self::Auto => gate_needles >= AUTO_NEEDLES_MIN,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The texts of one matcher that one thread remembers.
#[derive(Debug, Default)]
pub(crate) struct RepeatCache {
    /// Identity of the matcher; 0 before the first event.
    matcher: u64,
    /// Empty before the first use.
    keys: Vec<Key>,
    hash: SecretHash,
    looked: u32,
    hits: u32,
    pause: u32,
}

impl RepeatCache {
    /// Prepares for an event of this matcher. Returns false if the event is not to be looked up.
    pub(crate) fn begin(&mut self, matcher: u64, adapts: bool) -> bool {
        if self.matcher != matcher {
            // Other rules give other verdicts.
            let keys = std::mem::take(&mut self.keys);
            *self = Self { matcher, keys, hash: SecretHash::new(), ..Self::default() };
            self.keys.clear();
            self.keys.resize(TEXTS_MAX, 0);
        }
        if !adapts {
            return true;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if self.looked == TRIAL_EVENTS {
            if self.hits < TRIAL_EVENTS / TRIAL_EVENTS_PER_HIT {
                self.pause = PAUSE_EVENTS;
            }
            (self.looked, self.hits) = (0, 0);
        }
        self.looked += 1;
        true
    }

    /// Returns a hash of these fields, their presence and lengths.
    pub(crate) fn key(&self, kind: EventKind, reads: &[Field], fields: &Fields<'_>) -> Key {
        let mut all = [0; 16 * (Field::COUNT + 1)];
        let (parts, _) = all.as_chunks_mut::<16>();
        parts[0][0] = 1 + kind as u8;
        for (part, &field) in parts[1..].iter_mut().zip(reads) {
            *part = match (fields.text(field), fields.number(field)) {
                (Some(text), _) => (self.hash.hash(text).wrapping_add(text.len() as Key)).to_le_bytes(),
                (None, Some(number)) => (1 << 64 | Key::from(number as u64)).to_le_bytes(),
                (None, None) => [0; 16],
            };
        }
        self.hash.hash(&all)
    }

    /// Returns true if the text is known to match nothing.
    pub(crate) fn knows(&mut self, key: Key) -> bool {
        let is_known = key != 0 && self.keys.get(slot(key)) == Some(&key);
        self.hits += u32::from(is_known);
        is_known
    }

    /// Remembers that the text matches nothing.
    pub(crate) fn remember(&mut self, key: Key) {
        if let Some(place) = self.keys.get_mut(slot(key)) {
            *place = key;
        }
    }
}

fn slot(key: Key) -> usize {
    key as usize % TEXTS_MAX
}
