//! Texts known to match nothing.
//!
//! Busy machines compile the same script blocks again and again. A text that matched no rule is remembered by a
//! 128-bit hash, and its repeats are not searched. Matches are never remembered: a hit has fields of its own.
//!
//! The hash covers every field that a rule of the set reads, and nothing else, so that a new script block id does
//! not make an old text new. It is XXH3 with a random secret: who wants an evil text to be taken for a harmless
//! one would have to find a collision of 128 bits without knowing the secret.

use crate::field::{EventKind, Field, Fields};
use crate::hash::SecretHash;

/// When repeats are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// With many rules, and while enough of the events are repeats.
    #[default]
    Auto,
    /// For every event.
    Always,
    /// Not at all.
    Never,
}

/// With fewer needles the search is as fast as the hash.
const AUTO_NEEDLES_MIN: usize = 32;
/// Texts remembered, at 16 bytes each: the newest for each value of the hash's lowest bits.
const TEXTS_MAX: usize = 1 << 15;
/// Events after which is seen whether looking for repeats pays.
const TRIAL_EVENTS: u32 = 512;
/// It pays if one of so many is a repeat: hashing takes about a fifth of the time of searching.
const TRIAL_EVENTS_PER_HIT: u32 = 4;
/// Events for which repeats are not looked for after a vain trial.
const PAUSE_EVENTS: u32 = 8 * TRIAL_EVENTS;

/// The hash of all that verdicts depend on.
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

/// The texts that one thread remembers, of one matcher.
#[derive(Debug, Default)]
pub(crate) struct RepeatCache {
    /// Whose verdicts these are; 0 before the first.
    matcher: u64,
    /// Empty before the first use.
    keys: Vec<Key>,
    hash: SecretHash,
    looked: u32,
    hits: u32,
    pause: u32,
}

impl RepeatCache {
    /// Prepares for an event of this matcher; false if it is not to be looked up.
    pub(crate) fn begin(&mut self, matcher: u64, adapts: bool) -> bool {
        if self.matcher != matcher {
            // Other rules, other verdicts.
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

    /// The hash of these fields, whether present, and how long.
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

    /// Whether the text is known to match nothing.
    pub(crate) fn knows(&mut self, key: Key) -> bool {
        let is_known = key != 0 && self.keys.get(slot(key)) == Some(&key);
        self.hits += u32::from(is_known);
        is_known
    }

    /// The text matches nothing.
    pub(crate) fn remember(&mut self, key: Key) {
        if let Some(place) = self.keys.get_mut(slot(key)) {
            *place = key;
        }
    }
}

fn slot(key: Key) -> usize {
    key as usize % TEXTS_MAX
}
