//! 128-bit hashes with a random secret, so that nobody outside the process can construct collisions.

use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_128;

/// Bytes of the secret; XXH3 requires at least 136.
const SECRET_LEN: usize = 192;

/// XXH3 with a random secret.
#[derive(Debug, Default)]
pub(crate) struct SecretHash {
    /// Empty until [`new`](Self::new) has drawn one; every hash is 0 until then.
    secret: Vec<u8>,
}

impl SecretHash {
    /// Draws a secret: the standard library's random keys, expanded by its keyed hash.
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        let words = (0..SECRET_LEN / 8).flat_map(|number| random.hash_one(number).to_le_bytes());
        Self { secret: words.collect() }
    }

    /// Hashes bytes.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u128 {
        // The call fails only for a secret that is too short.
        XxHash3_128::oneshot_with_secret(&self.secret, bytes).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::SecretHash;

    #[test]
    fn secrets_and_hashes_differ() {
        let hashes = [SecretHash::new(), SecretHash::new()];
        assert_ne!(hashes[0].secret, hashes[1].secret);
        for hash in &hashes {
            for len in [0, 1, 3, 8, 16, 100, 200, 240, 241, 1_000, 20_000] {
                assert_ne!(hash.hash(&vec![7; len]), 0, "{len}");
            }
        }
        assert_ne!(hashes[0].hash(b"text"), hashes[1].hash(b"text"));
    }
}
