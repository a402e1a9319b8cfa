//! What the stand-in says it did, for tests to compare with what the program says it saw.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a run of `ProcessTrace` ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It has not ended, or its process was killed.
    #[default]
    Running,
    /// The session was stopped.
    Stopped,
    /// The consumer closed its handle.
    Closed,
}

/// What one run of `ProcessTrace` delivered. A killed process leaves the state of at most 250 ms before.
///
/// `emitted + lost_records + hostile = delivered_total + filtered + too_large`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Events of the scenario that were emitted.
    pub emitted: u64,
    /// Records handed to the callback, of all kinds.
    pub delivered_total: u64,
    /// Records handed to the callback, by event id; hostile ones and those of lost events (id 0) included.
    pub delivered: BTreeMap<u16, u64>,
    /// Records of RT_LostEvent among them.
    pub lost_records: u64,
    /// Hostile records, delivered or filtered out.
    pub hostile: u64,
    /// Events that no enabled provider of the session admits.
    pub filtered: u64,
    /// Events that do not fit into a buffer; also counted in `EventsLost`.
    pub too_large: u64,
    /// Time inside the callback in ns.
    pub callback_ns: u64,
    /// What reading the clock twice adds to `callback_ns` per record, in ns.
    pub clock_ns: u64,
    /// How it ended.
    pub ending: Ending,
}
