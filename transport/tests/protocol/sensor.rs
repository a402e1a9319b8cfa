//! The sensor of the simulation: a spool in memory and the sensor's side of the protocol.

use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Scope, View};
use etwsieve_transport::protocol::SensorConnection;
use etwsieve_transport::protocol::sensor::Backlog;
use etwsieve_transport::sender::route::Route;
use etwsieve_transport::spool::{Front, Keep, ReadLimits, SpoolError};
use etwsieve_transport::wire::frame::{FrameType, encode_frame};
use etwsieve_transport::wire::message::{GapReason, GapV1};
use etwsieve_transport::wire::{codec::encode_hit, encode_message};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// An epoch, as an index into the spool's list.
type Epoch = usize;

#[derive(Clone, Debug)]
enum Row {
    /// The DATA frame.
    Hit(Vec<u8>),
    /// The last number of the gap.
    Gap(u64),
}

#[derive(Debug, Default)]
struct EpochRows {
    rows: BTreeMap<u64, Row>,
    acked: u64,
    last: u64,
}

impl EpochRows {
    /// Turns a number into a gap, or into a part of the gap before it.
    fn add_gap(&mut self, number: u64) {
        self.rows.remove(&number);
        let mut first = number;
        if let Some((before, Row::Gap(last))) = self.rows.range(..number).next_back()
            && *last + 1 == number
        {
            first = *before;
        }
        let mut last = number;
        if let Some(Row::Gap(end)) = self.rows.get(&(number + 1)) {
            last = *end;
            self.rows.remove(&(number + 1));
        }
        self.rows.insert(first, Row::Gap(last));
    }
}

/// What the oracle must know of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    pub hit: u64,
    /// The spool dropped the hit.
    pub is_dropped: bool,
}

/// A spool in memory with the rules of the real one.
#[derive(Debug)]
pub struct ModelSpool {
    epochs: Vec<EpochRows>,
    hits_max: usize,
    keep: Keep,
    /// Hits up to this one may be in flight and are not dropped.
    read_through: (Epoch, u64),
    /// Every number that was ever assigned.
    pub offered: BTreeMap<(Epoch, u64), Offered>,
    /// Numbers acknowledged since the oracle looked last.
    pub newly_acknowledged: Vec<(Epoch, u64)>,
    /// Numbers counted as refused.
    pub refused: BTreeSet<(Epoch, u64)>,
}

pub fn epoch_id(epoch: Epoch) -> [u8; 16] {
    (epoch as u128 + 1).to_le_bytes()
}

pub fn epoch_index(id: [u8; 16]) -> Epoch {
    (u128::from_le_bytes(id) - 1) as Epoch
}

impl ModelSpool {
    pub fn new(hits_max: usize, keep: Keep) -> Self {
        Self {
            epochs: vec![EpochRows::default()],
            hits_max,
            keep,
            read_through: (0, 0),
            offered: BTreeMap::new(),
            newly_acknowledged: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    /// A new process of the sensor.
    pub fn start_epoch(&mut self) {
        self.epochs.push(EpochRows::default());
    }

    pub fn rewind(&mut self) {
        self.read_through = (0, 0);
    }

    pub fn is_empty(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.acked == epoch.last)
    }

    pub fn push(&mut self, hit: u64) {
        let index = self.epochs.len() - 1;
        let epoch = &mut self.epochs[index];
        epoch.last += 1;
        let number = epoch.last;
        let mut payload = number.to_le_bytes().to_vec();
        payload.extend(encode_hit(&model_hit(hit)).unwrap());
        let mut frame = Vec::new();
        encode_frame(FrameType::Data, &payload, &mut frame).unwrap();
        epoch.rows.insert(number, Row::Hit(frame));
        self.offered.insert((index, number), Offered { hit, is_dropped: false });
        self.make_room();
    }

    fn make_room(&mut self) {
        let read_through = self.read_through;
        loop {
            let mut hits = self.epochs.iter().enumerate().flat_map(|(index, epoch)| {
                epoch
                    .rows
                    .iter()
                    .filter(|(_, row)| matches!(row, Row::Hit(_)))
                    .map(move |(number, _)| (index, *number))
            });
            if hits.clone().count() <= self.hits_max {
                return;
            }
            let dropped = match self.keep {
                Keep::Newest => hits.find(|hit| *hit > read_through),
                Keep::Oldest => hits.last().filter(|hit| *hit > read_through),
            };
            let Some((epoch, number)) = dropped else { return };
            self.epochs[epoch].add_gap(number);
            self.offered.get_mut(&(epoch, number)).unwrap().is_dropped = true;
        }
    }
}

impl Backlog for ModelSpool {
    fn front(&self) -> Front {
        let epoch = self.epochs.iter().position(|epoch| epoch.acked < epoch.last);
        let epoch = epoch.unwrap_or(self.epochs.len() - 1);
        Front { epoch: epoch_id(epoch), first_unacknowledged: self.epochs[epoch].acked + 1 }
    }

    fn read(
        &mut self,
        epoch: &[u8; 16],
        first: u64,
        limits: ReadLimits,
        out: &mut Vec<u8>,
        lasts: &mut Vec<u64>,
    ) -> Result<(), SpoolError> {
        let index = epoch_index(*epoch);
        let rows = &self.epochs[index].rows;
        let start = match rows.range(..=first).next_back() {
            Some((start, Row::Gap(last))) if *last >= first => *start,
            _ => first,
        };
        let (mut next, len) = (first, out.len());
        for (number, row) in rows.range(start..) {
            if lasts.len() >= limits.frames || out.len() - len >= limits.bytes {
                break;
            }
            assert!(*number <= next, "the spool has every number");
            let last = match row {
                Row::Hit(frame) => {
                    out.extend_from_slice(frame);
                    *number
                }
                Row::Gap(to) => {
                    let gap =
                        GapV1 { from: next, to: *to, count: to - next + 1, reason: GapReason::SpoolFull };
                    encode_message(&gap, out).unwrap();
                    *to
                }
            };
            lasts.push(last);
            next = last + 1;
        }
        if next > first {
            self.read_through = self.read_through.max((index, next - 1));
        }
        Ok(())
    }

    fn acknowledge(&mut self, epoch: &[u8; 16], through: u64) {
        let index = epoch_index(*epoch);
        let epoch = &mut self.epochs[index];
        assert!(through <= epoch.last, "an ACK of a number that was never assigned");
        self.newly_acknowledged.extend((epoch.acked + 1..=through).map(|number| (index, number)));
        epoch.acked = epoch.acked.max(through);
        while let Some(entry) = epoch.rows.first_entry()
            && *entry.key() <= through
        {
            if let Row::Gap(last) = entry.remove()
                && last > through
            {
                epoch.rows.insert(through + 1, Row::Gap(last));
            }
        }
    }

    fn count_refused(&mut self, epoch: &[u8; 16], from: u64, to: u64) -> u64 {
        let index = epoch_index(*epoch);
        let acked = self.epochs[index].acked;
        let numbers = (from.max(acked + 1)..=to).map(|number| (index, number));
        numbers.filter(|number| self.refused.insert(*number)).count() as u64
    }
}

/// A small hit that carries its number.
pub fn model_hit(number: u64) -> HitV1 {
    HitV1 {
        time: 133_000_000_000_000_000 + number,
        source: String::new(),
        source_sequence: number,
        provider: [7; 16],
        event_id: 1,
        version: 1,
        channel: 0,
        level: 3,
        opcode: 0,
        task: 0,
        keywords: 0,
        computer: None,
        user_sid: None,
        process_id: None,
        thread_id: None,
        activity_id: None,
        event_record_id: None,
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content: EventContent::Notice { detail: String::new() },
        cut: None,
        rules: vec![RuleRefV1::default()],
    }
}

/// The sensor's state beside its spool.
#[derive(Debug)]
pub struct SensorNode {
    pub spool: ModelSpool,
    pub route: Route,
    /// Index in the network, and the protocol.
    pub connection: Option<(usize, SensorConnection)>,
    /// When to try the next connection.
    pub retry: Option<Instant>,
}
