//! Message ids (`Nats-Msg-Id`), and sensor names as tokens of subjects.

use crate::backend::Id;
use sha2::{Digest, Sha256};
use std::fmt;

/// Number of bytes of the payload's SHA-256 in an id.
const HASH_LEN: usize = 8;

/// A message id: `SENSOR/EPOCH/SEQUENCE` with the epoch in hexadecimal, followed by `/HASH` if a sequence number has
/// two hits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The sensor.
    pub sensor: String,
    /// The epoch.
    pub epoch: Id,
    /// The sequence number.
    pub sequence: u64,
    /// The beginning of the payload's SHA-256.
    pub hash: [u8; HASH_LEN],
}

impl MessageId {
    /// Creates the id of a payload.
    pub fn new(sensor: String, epoch: Id, sequence: u64, payload: &[u8]) -> Self {
        Self { sensor, epoch, sequence, hash: hash(payload) }
    }

    /// Returns the id under which the first hit of a sequence number is stored.
    pub(super) fn of_number(sensor: &str, epoch: &Id, sequence: u64) -> String {
        format!("{sensor}/{:032x}/{sequence}", u128::from_be_bytes(*epoch))
    }

    /// Parses the id of a stored message; `None` if it is not an id of a collector, or its hash does not match the
    /// payload.
    pub fn read(text: &str, payload: &[u8]) -> Option<Self> {
        let mut parts = text.split('/');
        let (sensor, epoch, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        let epoch = u128::from_str_radix(epoch, 16).ok()?.to_be_bytes();
        let id = Self::new(sensor.to_owned(), epoch, sequence.parse().ok()?, payload);
        // Each id has exactly one spelling.
        let is_ours = text == id.to_string() || text == Self::of_number(sensor, &id.epoch, id.sequence);
        is_ours.then_some(id)
    }
}

fn hash(payload: &[u8]) -> [u8; HASH_LEN] {
    let mut hash = [0; HASH_LEN];
    hash.copy_from_slice(&Sha256::digest(payload)[..HASH_LEN]);
    hash
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = Self::of_number(&self.sensor, &self.epoch, self.sequence);
        write!(f, "{number}/{:016x}", u64::from_be_bytes(self.hash))
    }
}

/// Returns the sensor's name with `_` for all characters that have a meaning in subjects, such as dots.
pub(super) fn subject_token(sensor: &str) -> String {
    sensor.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let id = MessageId::new("srv1.example.test".into(), [0x0A; 16], 7, b"payload");
        let number = MessageId::of_number("srv1.example.test", &[0x0A; 16], 7);
        assert_eq!(number, "srv1.example.test/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/7");
        let text = id.to_string();
        assert_eq!(text, format!("{number}/239f59ed55e737c7"));
        assert_eq!(MessageId::read(&text, b"payload").as_ref(), Some(&id));
        assert_eq!(MessageId::read(&number, b"payload").as_ref(), Some(&id));
        assert_ne!(MessageId::read(&number, b"other"), Some(id));
        for broken in [
            "",
            "a/b",
            "a/0a/7/0b",
            &text[1..text.len() - 1],
            &format!("{text}/x"),
            &text.replace("/7/", "/07/"),
            &number.replace("/7", "/+7"),
        ] {
            assert_eq!(MessageId::read(broken, b"payload"), None, "{broken}");
        }
        assert_eq!(MessageId::read(&text, b"other"), None, "the hash does not match");
    }

    #[test]
    fn tokens_have_no_special_characters() {
        assert_eq!(subject_token("srv-1.example.test"), "srv-1_example_test");
        assert_eq!(subject_token("a*>. b"), "a____b");
    }
}
