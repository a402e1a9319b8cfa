//! The collector of the simulation: a store in memory and the collector's side of the protocol.

use super::sensor::epoch_index;
use etwsieve_transport::protocol::{CollectorConnection, Settlement};
use etwsieve_transport::wire::codec::decode_hit;
use etwsieve_transport::wire::message::{GapV1, RefusalReason, RefusedV1};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Epoch and sequence number.
pub type Number = (usize, u64);

/// The durable contents of the store, which survive a restart.
#[derive(Debug, Default)]
pub struct ModelStore {
    pub hits: BTreeMap<Number, Vec<u8>>,
    /// Numbers of gaps and refused hits. A hit that arrives later, over an old connection, is stored all the same.
    pub lost: BTreeSet<Number>,
    pub repeated: u64,
}

impl ModelStore {
    pub fn has(&self, number: Number) -> bool {
        self.hits.contains_key(&number) || self.lost.contains(&number)
    }

    fn highest(&self, epoch: usize) -> u64 {
        let of_hits = self.hits.range((epoch, 0)..=(epoch, u64::MAX)).next_back().map_or(0, |((_, n), _)| *n);
        let of_lost = self.lost.range((epoch, 0)..=(epoch, u64::MAX)).next_back().map_or(0, |(_, n)| *n);
        of_hits.max(of_lost)
    }

    pub fn durable(&self, epoch: [u8; 16]) -> u64 {
        self.highest(epoch_index(epoch))
    }
}

#[derive(Clone, Debug)]
pub enum Entry {
    Hit { sequence: u64, bytes: Vec<u8> },
    Gap(GapV1),
}

/// A frame in the queue of the store.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub connection: usize,
    pub epoch: [u8; 16],
    pub entry: Entry,
    pub ack: u64,
    pub settlement: Rc<RefCell<Settlement>>,
}

impl Ticket {
    /// A hit that the store can never accept, always the same ones.
    pub fn is_poison(&self, one_in: u64) -> bool {
        let Entry::Hit { bytes, .. } = &self.entry else { return false };
        one_in > 0 && decode_hit(bytes).unwrap().source_sequence.is_multiple_of(one_in)
    }

    /// Stores the entry.
    ///
    /// # Panics
    ///
    /// If the number is stored with other contents.
    pub fn store(&self, store: &mut ModelStore) {
        let epoch = epoch_index(self.epoch);
        match &self.entry {
            Entry::Hit { sequence, bytes } => match store.hits.insert((epoch, *sequence), bytes.clone()) {
                Some(known) => {
                    assert_eq!(&known, bytes, "number {sequence} has two contents");
                    store.repeated += 1;
                }
                None => {
                    store.lost.remove(&(epoch, *sequence));
                }
            },
            Entry::Gap(gap) => {
                for number in gap.from..=gap.to {
                    if !store.hits.contains_key(&(epoch, number)) {
                        store.lost.insert((epoch, number));
                    }
                }
            }
        }
    }

    /// Records a hit that can never be stored as lost.
    pub fn refuse(&self, store: &mut ModelStore) -> RefusedV1 {
        let Entry::Hit { sequence, .. } = &self.entry else { panic!("only hits are refused") };
        store.lost.insert((epoch_index(self.epoch), *sequence));
        let (epoch, from, to) = (self.epoch, *sequence, *sequence);
        RefusedV1 { epoch, from, to, reason: RefusalReason::NotStorable, detail: String::new() }
    }
}

/// A connection of the collector.
#[derive(Debug)]
pub struct Connected {
    pub protocol: CollectorConnection,
    pub settlement: Rc<RefCell<Settlement>>,
}

#[derive(Debug, Default)]
pub struct CollectorNode {
    pub store: ModelStore,
    pub connections: BTreeMap<usize, Connected>,
    pub queue: VecDeque<Ticket>,
    /// The collector does not accept connections before this time.
    pub down_until: u64,
}
