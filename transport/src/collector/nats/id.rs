//! `Nats-Msg-Id`, and a sensor's name as a token of a subject.

use crate::collector::backend::Id;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Bytes of the payload's SHA-256 that are in an id.
const HASH_LEN: usize = 8;

/// Who sent what: `SENSOR/EPOCH/SEQUENCE/HASH`, epoch and hash in hexadecimal.
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
    /// The id of a payload.
    pub fn new(sensor: String, epoch: Id, sequence: u64, payload: &[u8]) -> Self {
        let mut hash = [0; HASH_LEN];
        hash.copy_from_slice(&Sha256::digest(payload)[..HASH_LEN]);
        Self { sensor, epoch, sequence, hash }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, hash) = (u128::from_be_bytes(self.epoch), u64::from_be_bytes(self.hash));
        write!(f, "{}/{epoch:032x}/{}/{hash:016x}", self.sensor, self.sequence)
    }
}

impl FromStr for MessageId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('/').collect();
        let [sensor, epoch, sequence, hash] = parts[..] else { return Err(()) };
        let id = Self {
            sensor: sensor.to_owned(),
            epoch: u128::from_str_radix(epoch, 16).map_err(drop)?.to_be_bytes(),
            sequence: sequence.parse().map_err(drop)?,
            hash: u64::from_str_radix(hash, 16).map_err(drop)?.to_be_bytes(),
        };
        // One spelling for each id.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// The sensor's name without the dots, which divide subjects, and without anything that has a meaning in them.
pub(super) fn subject_token(sensor: &str) -> String {
    sensor.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_out_and_come_back() {
        let id = MessageId::new("srv1.example.test".into(), [0x0A; 16], 7, b"payload");
        let text = id.to_string();
        assert_eq!(text, "srv1.example.test/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/7/239f59ed55e737c7");
        assert_eq!(text.parse(), Ok(id));
        for broken in [
            "",
            "a/b",
            "a/0a/7/0b",
            &text[1..text.len() - 1],
            &format!("{text}/x"),
            &text.replace("/7/", "/07/"),
        ] {
            assert_eq!(broken.parse::<MessageId>(), Err(()), "{broken}");
        }
    }

    #[test]
    fn tokens_have_no_meaning_in_subjects() {
        assert_eq!(subject_token("srv-1.example.test"), "srv-1_example_test");
        assert_eq!(subject_token("a*>. b"), "a____b");
    }
}
