//! Decodes and hashes batches on a separate thread before they are written.

use super::{AppendRequest, StoreRequest};
use crate::backend::{Entry, EntryBody, Id, Refusal};
use etwsieve_transport::hit::{EventIdentity, HitV1};
use etwsieve_transport::wire::codec::{self, CodecError};
use etwsieve_transport::wire::message::{GapV1, RefusalReason};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// An entry that is ready to be written.
pub(super) struct Prepared {
    pub(super) sensor: Arc<str>,
    pub(super) epoch: Id,
    pub(super) item: PreparedItem,
}

pub(super) enum PreparedItem {
    Hit(Box<PreparedHit>),
    Gap(GapV1),
    /// The sequence number of a hit that cannot be stored.
    Refused(u64, Refusal),
}

pub(super) struct PreparedHit {
    pub(super) sequence: u64,
    pub(super) hit: HitV1,
    /// The hit without its rules.
    pub(super) event: Vec<u8>,
    /// The identity of the event as reported by this sensor.
    pub(super) identity: EventIdentity,
    /// SHA-256 of the hit as it was sent.
    pub(super) hash: [u8; 32],
}

/// Prepares batches until the channel is closed.
pub(super) fn run(batches: &Receiver<AppendRequest>, requests: &Sender<StoreRequest>) {
    for AppendRequest { entries, reply } in batches {
        let batch = entries.into_iter().map(prepare).collect();
        // If the writing thread is gone, the reply is dropped, too.
        let _ = requests.send(StoreRequest::Append { batch, reply });
    }
}

fn prepare(entry: Entry) -> Prepared {
    let item = match entry.item {
        EntryBody::Hit { sequence, bytes, .. } => match prepare_hit(&entry.sensor, sequence, &bytes) {
            Ok(hit) if hit.hit.rules.is_empty() => PreparedItem::Refused(sequence, Refusal::without_rules()),
            Ok(hit) => PreparedItem::Hit(Box::new(hit)),
            Err(error) => {
                let refusal = Refusal { reason: RefusalReason::NotStorable, detail: error.to_string() };
                PreparedItem::Refused(sequence, refusal)
            }
        },
        EntryBody::Gap(gap) => PreparedItem::Gap(gap),
    };
    Prepared { sensor: entry.sensor, epoch: entry.epoch, item }
}

/// Prepares a hit of version 1, the only one. The connection has already checked that it decodes.
fn prepare_hit(sensor: &str, sequence: u64, bytes: &[u8]) -> Result<PreparedHit, CodecError> {
    let hit = codec::decode_hit(bytes)?;
    let event = codec::encode_event(&hit)?;
    let identity = EventIdentity::of_encoded(&hit, &event)?.from_sensor(sensor, &hit);
    Ok(PreparedHit { sequence, hit, event, identity, hash: Sha256::digest(bytes).into() })
}
