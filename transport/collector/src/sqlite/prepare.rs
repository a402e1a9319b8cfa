//! What can be done before a transaction begins: decoding and hashing, on a thread of its own.

use super::{Batch, Request};
use crate::backend::{Entry, Id, Item, Refusal};
use etwsieve_transport::hit::{EventIdentity, HitV1};
use etwsieve_transport::wire::codec::{self, CodecError};
use etwsieve_transport::wire::message::{GapV1, RefusalReason};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// An entry, ready to be written.
pub(super) struct Prepared {
    pub(super) sensor: Arc<str>,
    pub(super) epoch: Id,
    pub(super) item: PreparedItem,
}

pub(super) enum PreparedItem {
    Hit(Box<PreparedHit>),
    Gap(GapV1),
    /// A hit that cannot be stored, by its number.
    Refused(u64, Refusal),
}

pub(super) struct PreparedHit {
    pub(super) sequence: u64,
    pub(super) hit: HitV1,
    /// The hit without its rules.
    pub(super) event: Vec<u8>,
    /// The event, as reported by this sensor.
    pub(super) identity: EventIdentity,
    /// Of the bytes as they were sent.
    pub(super) hash: [u8; 32],
}

/// Prepares batches until nobody can send any.
pub(super) fn run(batches: &Receiver<Batch>, requests: &Sender<Request>) {
    for Batch { entries, reply } in batches {
        let batch = entries.into_iter().map(prepare).collect();
        // If the writing thread has gone, so has the reply.
        let _ = requests.send(Request::Append { batch, reply });
    }
}

fn prepare(entry: Entry) -> Prepared {
    let item = match entry.item {
        Item::Hit { sequence, bytes, .. } => match prepare_hit(&entry.sensor, sequence, &bytes) {
            Ok(hit) if hit.hit.rules.is_empty() => PreparedItem::Refused(sequence, Refusal::without_rules()),
            Ok(hit) => PreparedItem::Hit(Box::new(hit)),
            Err(error) => {
                let refusal = Refusal { reason: RefusalReason::NotStorable, detail: error.to_string() };
                PreparedItem::Refused(sequence, refusal)
            }
        },
        Item::Gap(gap) => PreparedItem::Gap(gap),
    };
    Prepared { sensor: entry.sensor, epoch: entry.epoch, item }
}

/// Only version 1 was ever released, and the connection has decoded these bytes already.
fn prepare_hit(sensor: &str, sequence: u64, bytes: &[u8]) -> Result<PreparedHit, CodecError> {
    let hit = codec::decode_hit(bytes)?;
    let event = codec::encode_event(&hit)?;
    let identity = EventIdentity::of_encoded(&hit, &event)?.from_sensor(sensor, &hit);
    Ok(PreparedHit { sequence, hit, event, identity, hash: Sha256::digest(bytes).into() })
}
