//! Texts known to match nothing.
//!
//! Busy machines compile the same script blocks again and again. A text that matched no rule is remembered by a
//! 128-bit hash, and its repeats are not searched. Matches are never remembered: a hit has fields of its own.
//!
//! The hash covers every field that a rule of the set reads, and nothing else, so that a new script block id does
//! not make an old text new. It is XXH3 with a random secret: who wants an evil text to be taken for a harmless
//! one would have to find a collision of 128 bits without knowing the secret.

use crate::field::{EventKind, Field, Fields};
use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_128;

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
/// Bytes of the secret; XXH3 wants 136 at least.
const SECRET_LEN: usize = 192;

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
    secret: Vec<u8>,
    looked: u32,
    hits: u32,
    pause: u32,
}

impl RepeatCache {
    /// Prepares for an event of this matcher; false if it is not to be looked up.
    pub(crate) fn begin(&mut self, matcher: u64, adapts: bool) -> bool {
        if self.matcher != matcher {
            // Other rules, other verdicts.
            *self =
                Self { matcher, keys: std::mem::take(&mut self.keys), secret: secret(), ..Self::default() };
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
                (Some(text), _) => (self.hash(text).wrapping_add(text.len() as Key)).to_le_bytes(),
                (None, Some(number)) => (1 << 64 | Key::from(number as u64)).to_le_bytes(),
                (None, None) => [0; 16],
            };
        }
        self.hash(&all)
    }

    fn hash(&self, bytes: &[u8]) -> Key {
        // The secret is as long as it must be; zero, which no text is known by, would only cost time.
        XxHash3_128::oneshot_with_secret(&self.secret, bytes).unwrap_or(0)
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

/// Bytes that nobody outside can know: the standard library's random keys, stretched by its keyed hash.
pub(crate) fn secret() -> Vec<u8> {
    let random = RandomState::new();
    (0..SECRET_LEN / 8).flat_map(|number| random.hash_one(number).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{RepeatCache, SECRET_LEN, secret};

    #[test]
    fn secrets_differ_and_hashes_with_them() {
        assert_eq!(secret().len(), SECRET_LEN);
        assert_ne!(secret(), secret());
        let mut caches = [RepeatCache::default(), RepeatCache::default()];
        for cache in &mut caches {
            assert!(cache.begin(1, false));
            for len in [0, 1, 3, 8, 16, 100, 200, 240, 241, 1_000, 20_000] {
                assert_ne!(cache.hash(&vec![7; len]), 0, "{len}");
            }
        }
        assert_ne!(caches[0].hash(b"text"), caches[1].hash(b"text"));
    }
}
