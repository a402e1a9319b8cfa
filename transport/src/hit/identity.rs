//! Identities of events, by which a store recognises an event that it already has.
//!
//! The identity depends on what was recorded, not on where the recording is: a copy of a trace at another path contains
//! the same events. `docs/wire.md` defines the bytes that are hashed.

use super::{HitV1, RuleRefV1};
use crate::wire::codec::{self, CodecError};
use sha2::{Digest, Sha256};

/// The identity of an event in one scope and view: a SHA-256.
///
/// It covers everything in a hit except the source, the number in the source, the rules, and the pieces of a truncated
/// text. Provider, computer, record id, time, event id, process, thread, user and payload are all part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventIdentity([u8; 32]);

impl EventIdentity {
    /// Returns the identity of the hit's event.
    ///
    /// # Errors
    ///
    /// Returns an error if the hit exceeds a limit, because it then cannot be encoded.
    pub fn of(hit: &HitV1) -> Result<Self, CodecError> {
        Ok(Self(Sha256::digest(codec::encode_identity(hit)?).into()))
    }

    /// Returns the same as [`of`](Self::of) for a hit whose event is already encoded.
    ///
    /// # Errors
    ///
    /// Returns an error if the hit exceeds a limit, because it then cannot be encoded.
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

    /// Returns the identity of the event that is number `number`, starting at 0, of the equal events in one source.
    ///
    /// Events without a record id can be equal in every respect although both happened.
    #[must_use]
    pub fn occurrence(self, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        Self(Sha256::new().chain_update(self.0).chain_update(number.to_le_bytes()).finalize().into())
    }

    /// Returns the identity of the event as reported by this sensor.
    ///
    /// An event reported by one sensor must never be taken for an event of another. A collector may see only a part of
    /// a source and so cannot count its equal events; an event without a record id is distinguished by its number in
    /// the source instead.
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
        // Rules without an id can share a title. This project's sensors derive an id for such rules; other sensors may
        // not.
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
