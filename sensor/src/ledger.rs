//! What became of every event: counted where it happens, and summing up exactly.
//!
//! For each source and in total,
//!
//! * `events_seen = events_selected + events_other`,
//! * `events_selected = events_matched + events_not_matched + events_waiting + the sum of dropped`,
//!
//! and nothing waits when a run has ended. Where what PowerShell hands to the antimalware scanner is searched too, these
//! events are part of all counts, and counted apart once more.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Counts of one source, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// Events that the source holds, of any provider.
    pub events_seen: u64,
    /// PowerShell events that some rule is about.
    pub events_selected: u64,
    /// Events that no rule is about.
    pub events_other: u64,
    /// Selected events that at least one rule matched.
    pub events_matched: u64,
    /// Selected events that no rule matched.
    pub events_not_matched: u64,
    /// Selected events on their way to a matcher: none in the summary of a run.
    #[serde(skip)]
    pub events_waiting: u64,
    /// Pairs of a rule and an event that it matched.
    pub detections: u64,
    /// Of all these, the events of the antimalware scanner; `None` if they are not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amsi: Option<AmsiLedger>,
    /// Pairs of a rule and an event of which only another view than the raw one matched.
    pub view_detections: u64,
    /// Events and joined blocks whose views were not made or searched to the end: their work was exhausted or stopped, or
    /// the text is longer than what is viewed. What was found until then is reported.
    pub views_cut: u64,
    /// Script blocks of several events.
    pub blocks: BlockLedger,
    /// Selected events that were not searched, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Searched events whose payload is not as its template says: too short, of odd length, without an end.
    pub undecodable: u64,
    /// Parts of the input that could not be read, by reason. How many events they held nobody knows.
    pub damaged: BTreeMap<&'static str, u64>,
    /// What the recordings themselves say was lost before they were written; `None` if they cannot say so. Not part of
    /// any other count.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LossLedger>,
    /// User data of the selected events, in bytes.
    pub payload_bytes: u64,
    /// Time from opening the source to its last event; in total, of the whole run.
    pub elapsed_seconds: f64,
}

/// Losses that event traces report, under the names that `etwsieve trace` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LossLedger {
    /// Events that the sessions lost.
    pub events_lost: u64,
    /// Buffers that the sessions lost. How many events they held nobody knows.
    pub buffers_lost: u64,
    /// Buffers in the traces that say that events or a buffer were lost before them.
    pub buffers_marking_loss: u64,
    /// Records of losses among the events.
    pub lost_event_records: u64,
}

impl LossLedger {
    /// Whether something was lost.
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
        write!(f, "{events_lost} events and {buffers_lost} buffers were lost before they could be recorded")?;
        if buffers_marking_loss + lost_event_records > 0 {
            write!(f, " ({buffers_marking_loss} buffers and {lost_event_records} events mark where)")?;
        }
        Ok(())
    }
}

/// Counts of the antimalware scanner's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AmsiLedger {
    /// Scans, whichever program asked for them.
    pub events_seen: u64,
    /// Scans of what PowerShell handed over.
    pub events_selected: u64,
    /// Selected events that at least one rule matched.
    pub events_matched: u64,
    /// Selected events that no rule matched.
    pub events_not_matched: u64,
    /// Selected events on their way to a matcher: none in the summary of a run.
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

/// What became of events that are fragments of a script block, each searched by itself as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockLedger {
    /// Events that are fragments.
    pub fragments: u64,
    /// Fragments whose number their block had already: not joined.
    pub duplicates: u64,
    /// Fragments with numbers that cannot be; joined all the same.
    pub lying: u64,
    /// Fragments that name no block: not joined.
    pub unplaced: u64,
    /// Fragments of which only the ends were kept for want of room, since no rule needs the rest.
    pub reduced: u64,
    /// Blocks that became complete.
    pub joined: u64,
    /// Blocks that were searched as far as they went, for their age or at the end.
    pub partial: u64,
    /// Blocks that were searched as far as they went for want of room.
    pub evicted: u64,
    /// Pairs of a rule and a block that it matches, beyond what single events gave.
    pub detections: u64,
    /// Blocks that wait for fragments: none in the summary of a run.
    #[serde(skip)]
    pub open: u64,
    /// Bytes that they hold.
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
    /// Adds the counts of `other`, but not its time.
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

    /// Whether every event is accounted for.
    pub fn balances(&self) -> bool {
        let dropped: u64 = self.dropped.values().sum();
        self.events_seen == self.events_selected + self.events_other
            && self.events_selected
                == self.events_matched + self.events_not_matched + self.events_waiting + dropped
            && self.amsi.is_none_or(|amsi| amsi.balances())
    }

    /// Whether the input was read whole.
    pub fn is_undamaged(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// The counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// All sources together.
    #[serde(flatten)]
    pub total: Ledger,
    /// Whether the run was stopped before the end of its input.
    pub interrupted: bool,
    /// Number of rules that ran.
    pub rules: usize,
    /// Each source by itself, in the order in which they were read.
    pub sources: Vec<SourceSummary>,
}

/// The counts of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceSummary {
    /// The file's path, or the session's name.
    pub source: String,
    /// Its counts.
    #[serde(flatten)]
    pub ledger: Ledger,
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn a_missing_event_shows() {
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
