//! Recognising an event that has been seen before.
//!
//! An event is identified by what was recorded of it, never by where the recording lies: a copy of a trace under another
//! path contains the same events. `docs/wire.md` defines the bytes that are hashed.

use super::{HitV1, RuleRefV1};
use crate::wire::codec::{self, CodecError};
use sha2::{Digest, Sha256};

/// The identity of an event in one scope and view: a SHA-256.
///
/// It covers everything in a hit except its source, its number in the source, its rules, and the pieces of a text that
/// was cut. Provider, computer, record id, time, event id, process, thread, user and the payload are all part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventIdentity([u8; 32]);

impl EventIdentity {
    /// Returns the identity of the hit's event.
    ///
    /// # Errors
    ///
    /// The hit breaks a limit, so it cannot be encoded.
    pub fn of(hit: &HitV1) -> Result<Self, CodecError> {
        Ok(Self(Sha256::digest(codec::encode_identity(hit)?).into()))
    }

    /// Returns the same as [`of`](Self::of) for a hit whose event is already encoded.
    ///
    /// # Errors
    ///
    /// The hit breaks a limit, so it cannot be encoded.
    pub fn of_encoded(hit: &HitV1, event: &[u8]) -> Result<Self, CodecError> {
        if hit.cut.is_some() {
            return Self::of(hit);
        }
        let mut hash = Sha256::new();
        for part in codec::identity_parts(hit, event) {
            hash.update(part);
        }
        Ok(Self(hash.finalize().into()))
    }

    /// Returns the identity of the event that is the `number`th, from 0, of equal events in one source.
    ///
    /// Events without a record id can be equal in every respect and yet have happened twice.
    #[must_use]
    pub fn occurrence(self, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        Self(Sha256::new().chain_update(self.0).chain_update(number.to_le_bytes()).finalize().into())
    }

    /// Returns the identity of the event as reported by this sensor.
    ///
    /// What one sensor reports must never stand for a report of another. A collector cannot count the equal events of a
    /// source, of which it may see a part, so an event without a record id is told from its equals by its number there.
    #[must_use]
    pub fn from_sensor(self, sensor: &str, hit: &HitV1) -> Self {
        let number = match hit.event_record_id {
            Some(_) => 0,
            None => hit.source_sequence,
        };
        let hash = Sha256::new().chain_update(self.0).chain_update(number.to_le_bytes());
        Self(hash.chain_update(sensor.as_bytes()).finalize().into())
    }

    /// Returns the identity of the detection that this rule makes of the event.
    #[must_use]
    pub fn with_rule(self, rule: &RuleRefV1) -> Self {
        let mut hash = Sha256::new().chain_update(self.0);
        let mut update = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        update(rule.id.as_bytes());
        update(rule.title.as_bytes());
        // Rules without an id can share a title. This project's sensors derive an id for them, others may not.
        if rule.id.is_empty() {
            update(rule.level.as_bytes());
            for id in &rule.attack {
                update(id.as_bytes());
            }
            for span in &rule.spans {
                update(&[&[span.text][..], &span.start.to_le_bytes(), &span.len.to_le_bytes()].concat());
            }
        }
        Self(hash.finalize().into())
    }

    /// Returns the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
