//! The stand-in's report about the delivered records, to compare with the counts of the program.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The end of a call of `ProcessTrace`.
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

/// The records delivered by one call of `ProcessTrace`. The report of a killed process is at most 250 ms old.
///
/// `emitted + lost_records + hostile = delivered_total + filtered + too_large`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Events of the scenario that were emitted.
    pub emitted: u64,
    /// Records of all kinds that were passed to the callback.
    pub delivered_total: u64,
    /// Records passed to the callback by event id, including hostile ones and those of lost events (id 0).
    pub delivered: BTreeMap<u16, u64>,
    /// Records of RT_LostEvent among them.
    pub lost_records: u64,
    /// Hostile records, delivered or filtered out.
    pub hostile: u64,
    /// Events that no enabled provider of the session admits.
    pub filtered: u64,
    /// Events that do not fit into a buffer; also counted in `EventsLost`.
    pub too_large: u64,
    /// Time in the callback, in ns.
    pub callback_ns: u64,
    /// The part of `callback_ns` per record for reading the clock twice, in ns.
    pub clock_ns: u64,
    /// The end of the call.
    pub ending: Ending,
}
