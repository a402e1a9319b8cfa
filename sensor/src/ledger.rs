//! Counts of what happened to every event.
//!
//! For each source and in total:
//!
//! * `events_seen = events_selected + events_other`,
//! * `events_selected = events_matched + events_not_matched + events_waiting + the sum of dropped`.
//!
//! When a run has ended, `events_waiting` is 0. If AMSI events are searched, they are part of all counts, and are
//! counted separately as well.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Counts of one source, or of all sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// Events of any provider in the source.
    pub events_seen: u64,
    /// Events that at least one rule searches.
    pub events_selected: u64,
    /// All other events.
    pub events_other: u64,
    /// Selected events that at least one rule matched.
    pub events_matched: u64,
    /// Selected events that no rule matched.
    pub events_not_matched: u64,
    /// Selected events that are queued for a matcher; 0 when a run has ended.
    #[serde(skip)]
    pub events_waiting: u64,
    /// Pairs of a rule and an event that it matched in the raw text.
    pub detections: u64,
    /// Of all these, the AMSI events; `None` if they are not searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amsi: Option<AmsiLedger>,
    /// Pairs of a rule and an event that it matched only in a view other than the raw text.
    pub view_detections: u64,
    /// Events and joined blocks whose views were not searched completely, because of the work limit, a stop, or the
    /// length of the text. Matches that were found by then are reported.
    pub views_cut: u64,
    /// Script blocks that consist of several events.
    pub blocks: BlockLedger,
    /// Selected events that were not searched, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Searched events whose payload does not have the layout of its template: too short, of odd length, or without a
    /// final NUL.
    pub undecodable: u64,
    /// Unreadable parts of the input, by reason. The number of events in them is unknown.
    pub damaged: BTreeMap<&'static str, u64>,
    /// Losses that the recordings report for the time before they were written; `None` if the format has no such field.
    /// Not part of any other count.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LossLedger>,
    /// User data of the selected events, in bytes.
    pub payload_bytes: u64,
    /// Time from opening the source to its last event; for the total, duration of the run.
    pub elapsed_seconds: f64,
}

/// Losses that event traces report, under the same names as in `etwsieve trace`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LossLedger {
    /// Events that the sessions lost.
    pub events_lost: u64,
    /// Buffers that the sessions lost. The number of events in them is unknown.
    pub buffers_lost: u64,
    /// Buffers in the traces whose header states that events or a buffer were lost before them.
    pub buffers_marking_loss: u64,
    /// Events of the provider RT_LostEvent, which report losses.
    pub lost_event_records: u64,
}

impl LossLedger {
    /// Returns whether anything was lost.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    fn add(&mut self, other: &Self) {
        self.events_lost += other.events_lost;
        self.buffers_lost += other.buffers_lost;
        self.buffers_marking_loss += other.buffers_marking_loss;
        self.lost_event_records += other.lost_event_records;
    }
}

impl fmt::Display for LossLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events_lost, buffers_lost, buffers_marking_loss, lost_event_records } = self;
        write!(f, "{events_lost} events and {buffers_lost} buffers were lost before the recording")?;
        if buffers_marking_loss + lost_event_records > 0 {
            write!(f, " (reported by {buffers_marking_loss} buffers and {lost_event_records} events)")?;
        }
        Ok(())
    }
}

/// Counts of AMSI events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AmsiLedger {
    /// Scans requested by any program.
    pub events_seen: u64,
    /// Scans requested by PowerShell.
    pub events_selected: u64,
    /// Selected events that at least one rule matched.
    pub events_matched: u64,
    /// Selected events that no rule matched.
    pub events_not_matched: u64,
    /// Selected events that are queued for a matcher; 0 when a run has ended.
    #[serde(skip)]
    pub events_waiting: u64,
    /// Selected events that were not searched, for any reason.
    pub events_dropped: u64,
    /// Pairs of a rule and an event that it matched.
    pub detections: u64,
}

impl AmsiLedger {
    fn add(&mut self, other: &Self) {
        self.events_seen += other.events_seen;
        self.events_selected += other.events_selected;
        self.events_matched += other.events_matched;
        self.events_not_matched += other.events_not_matched;
        self.events_waiting += other.events_waiting;
        self.events_dropped += other.events_dropped;
        self.detections += other.detections;
    }

    fn balances(&self) -> bool {
        self.events_seen >= self.events_selected
            && self.events_selected
                == self.events_matched + self.events_not_matched + self.events_waiting + self.events_dropped
    }
}

/// Counts of events that are fragments of a script block. Each fragment is also searched as a single event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockLedger {
    /// Events that are fragments.
    pub fragments: u64,
    /// Fragments whose number was already present in their block; not joined.
    pub duplicates: u64,
    /// Fragments with impossible numbers; joined nevertheless.
    pub lying: u64,
    /// Fragments without a script block id; not joined.
    pub unplaced: u64,
    /// Fragments of which only both ends were kept to save memory, because no rule needs the rest.
    pub reduced: u64,
    /// Complete blocks.
    pub joined: u64,
    /// Incomplete blocks that were searched because of their age or at the end of the run.
    pub partial: u64,
    /// Incomplete blocks that were searched early to free memory.
    pub evicted: u64,
    /// Pairs of a rule and a block that it matched but that no single event of the block matched.
    pub detections: u64,
    /// Blocks that are still missing fragments; 0 when a run has ended.
    #[serde(skip)]
    pub open: u64,
    /// Memory of the open blocks in bytes.
    #[serde(skip)]
    pub bytes: u64,
}

impl BlockLedger {
    fn add(&mut self, other: &Self) {
        self.fragments += other.fragments;
        self.duplicates += other.duplicates;
        self.lying += other.lying;
        self.unplaced += other.unplaced;
        self.reduced += other.reduced;
        self.joined += other.joined;
        self.partial += other.partial;
        self.evicted += other.evicted;
        self.detections += other.detections;
        self.open += other.open;
        self.bytes += other.bytes;
    }
}

impl Ledger {
    /// Adds the counts of `other`, except its time.
    pub fn add(&mut self, other: &Self) {
        self.events_seen += other.events_seen;
        self.events_selected += other.events_selected;
        self.events_other += other.events_other;
        self.events_matched += other.events_matched;
        self.events_not_matched += other.events_not_matched;
        self.events_waiting += other.events_waiting;
        self.undecodable += other.undecodable;
        self.detections += other.detections;
        self.view_detections += other.view_detections;
        self.views_cut += other.views_cut;
        self.blocks.add(&other.blocks);
        self.payload_bytes += other.payload_bytes;
        if let Some(other) = &other.amsi {
            self.amsi.get_or_insert_default().add(other);
        }
        if let Some(other) = &other.lost {
            self.lost.get_or_insert_default().add(other);
        }
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        for (reason, count) in &other.damaged {
            *self.damaged.entry(reason).or_default() += count;
        }
    }

    /// Returns whether every event is accounted for.
    pub fn balances(&self) -> bool {
        let dropped: u64 = self.dropped.values().sum();
        self.events_seen == self.events_selected + self.events_other
            && self.events_selected
                == self.events_matched + self.events_not_matched + self.events_waiting + dropped
            && self.amsi.is_none_or(|amsi| amsi.balances())
    }

    /// Returns whether the whole input was readable.
    pub fn is_undamaged(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// The counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Counts of all sources together.
    #[serde(flatten)]
    pub total: Ledger,
    /// True if the run was stopped before the end of its input.
    pub interrupted: bool,
    /// Number of rules that ran.
    pub rules: usize,
    /// Counts of each source, in the order in which the sources were read.
    pub sources: Vec<SourceSummary>,
}

/// The counts of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceSummary {
    /// Path of the file, or name of the session.
    pub source: String,
    /// Counts of the source.
    #[serde(flatten)]
    pub ledger: Ledger,
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn a_missing_event_unbalances_the_ledger() {
        let mut ledger = Ledger { events_seen: 5, events_selected: 3, events_other: 2, ..Ledger::default() };
        ledger.events_matched = 1;
        ledger.events_not_matched = 1;
        assert!(!ledger.balances());
        ledger.dropped.insert("oversize", 1);
        assert!(ledger.balances());
        let mut total = ledger.clone();
        total.add(&ledger);
        assert!(total.balances());
        assert_eq!(total.dropped["oversize"], 2);
        total.events_seen += 1;
        assert!(!total.balances());
    }
}
