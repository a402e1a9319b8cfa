//! What can be done before a transaction begins: decoding and hashing, on a thread of its own.

use super::{Batch, Request};
use crate::collector::backend::{BackendError, Entry, Id, Item};
use crate::hit::{EventIdentity, HitV1};
use crate::wire::codec;
use crate::wire::message::{GapV1, StatusV1};
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
    Status(StatusV1),
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
        match entries.into_iter().map(prepare).collect() {
            Ok(batch) => {
                // If the writing thread has gone, so has the reply.
                let _ = requests.send(Request::Append { batch, reply });
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
}

fn prepare(entry: Entry) -> Result<Prepared, BackendError> {
    let item = match entry.item {
        // Only version 1 has ever been released, and the connection has decoded these bytes already.
        Item::Hit { sequence, version: _, bytes } => {
            let refuse = |error: codec::CodecError| BackendError::Failed(error.to_string());
            let hit = codec::decode_hit(&bytes).map_err(refuse)?;
            let event = codec::encode_event(&hit).map_err(refuse)?;
            let identity =
                EventIdentity::of_encoded(&hit, &event).map_err(refuse)?.from_sensor(&entry.sensor, &hit);
            let hash = Sha256::digest(&bytes).into();
            PreparedItem::Hit(Box::new(PreparedHit { sequence, hit, event, identity, hash }))
        }
        Item::Gap(gap) => PreparedItem::Gap(gap),
        Item::Status(status) => PreparedItem::Status(status),
    };
    Ok(Prepared { sensor: entry.sensor, epoch: entry.epoch, item })
}
