//! Counts of one source during a run.
//!
//! The source thread and the matcher threads write different cache lines without locks. A reader always sees counts
//! that add up: it reads the numbers of finished events before the number of selected events, and calls the difference
//! `waiting`.

use crate::ledger::{AmsiLedger, BlockLedger, Ledger, LossLedger};
use etwsieve_matcher::block::BlockCounts;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Maximum number of different words in [`Reasons`]; further words are counted as [`REASON_OTHER`].
pub const REASONS_MAX: usize = 16;
/// The word for all reasons beyond [`REASONS_MAX`].
pub const REASON_OTHER: &str = "other";

/// Counts by reason, a fixed word. Counting neither locks nor allocates.
#[derive(Debug, Default)]
pub struct Reasons {
    words: [OnceLock<&'static str>; REASONS_MAX],
    counts: [AtomicU64; REASONS_MAX],
    other: AtomicU64,
}

impl Reasons {
    /// Adds `n` to the count of `word`.
    pub fn add(&self, word: &'static str, n: u64) {
        for (own, count) in self.words.iter().zip(&self.counts) {
            if *own.get_or_init(|| word) == word {
                count.fetch_add(n, Ordering::Release);
                return;
            }
        }
        self.other.fetch_add(n, Ordering::Release);
    }

    /// Returns the counts that are not zero.
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        let words = self.words.iter().map(|word| word.get().copied());
        words
            .zip(&self.counts)
            .filter_map(|(word, count)| Some((word?, count)))
            .chain([(REASON_OTHER, &self.other)])
            .map(|(word, count)| (word, count.load(Ordering::Acquire)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Counts of one source.
#[derive(Debug, Default)]
pub struct Tally {
    intake: Intake,
    work: Work,
    damaged: Reasons,
    lost: OnceLock<LossLedger>,
    amsi: AmsiTally,
}

/// Counts of AMSI events, which the other counts include.
#[derive(Debug, Default)]
pub(super) struct AmsiTally {
    enabled: AtomicBool,
    seen: AtomicU64,
    selected: AtomicU64,
    dropped: AtomicU64,
    work: Work,
}

impl AmsiTally {
    /// Includes the counts in the ledger, even if they are zero.
    pub(super) fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// Counts an event of any program. Must be called by one thread only, like the next two functions.
    pub(super) fn seen(&self) {
        add_unshared(&self.seen, 1);
    }

    /// Counts an event of PowerShell.
    pub(super) fn selected(&self) {
        add_unshared(&self.selected, 1);
    }

    /// Counts an event that will not be searched.
    pub(super) fn dropped(&self) {
        add_unshared(&self.dropped, 1);
    }

    /// Counts a searched event that this many rules matched.
    pub(super) fn searched(&self, rules: usize) {
        self.work.searched(rules);
    }

    fn read(&self) -> Option<AmsiLedger> {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        // Same order as in `Tally::read`, for the same reason.
        let (matched, not_matched) = (load(&self.work.matched), load(&self.work.not_matched));
        let detections = load(&self.work.detections);
        let dropped = load(&self.dropped);
        let selected = load(&self.selected);
        self.enabled.load(Ordering::Relaxed).then(|| AmsiLedger {
            events_seen: load(&self.seen),
            events_selected: selected,
            events_matched: matched,
            events_not_matched: not_matched,
            events_waiting: selected - matched - not_matched - dropped,
            events_dropped: dropped,
            detections,
        })
    }
}

/// Counts that the source thread writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Intake {
    selected: AtomicU64,
    other: AtomicU64,
    payload_bytes: AtomicU64,
    dropped: Reasons,
}

/// Counts that the matcher threads write.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Work {
    matched: AtomicU64,
    not_matched: AtomicU64,
    detections: AtomicU64,
    undecodable: AtomicU64,
    view_detections: AtomicU64,
    views_cut: AtomicU64,
    blocks: BlockWork,
}

/// Counts of script blocks of several events, which the matcher threads write.
#[derive(Debug, Default)]
struct BlockWork {
    fragments: AtomicU64,
    duplicates: AtomicU64,
    lying: AtomicU64,
    unplaced: AtomicU64,
    reduced: AtomicU64,
    joined: AtomicU64,
    partial: AtomicU64,
    evicted: AtomicU64,
    detections: AtomicU64,
    open: AtomicU64,
    bytes: AtomicU64,
}

impl Work {
    fn searched(&self, rules: usize) {
        if rules == 0 {
            self.not_matched.fetch_add(1, Ordering::Release);
        } else {
            self.detections.fetch_add(rules as u64, Ordering::Release);
            self.matched.fetch_add(1, Ordering::Release);
        }
    }
}

/// Adds without a read-modify-write instruction. Only one thread may write `count`.
fn add_unshared(count: &AtomicU64, n: u64) {
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Release);
}

impl Tally {
    /// Counts a selected event with a payload of this length. Must be called by one thread only.
    pub(super) fn selected(&self, payload_len: usize) {
        add_unshared(&self.intake.payload_bytes, payload_len as u64);
        add_unshared(&self.intake.selected, 1);
    }

    /// Counts an event that no rule searches. Must be called by one thread only.
    pub(super) fn other(&self) {
        add_unshared(&self.intake.other, 1);
    }

    /// Counts a selected event that will not be searched.
    pub(super) fn dropped(&self, reason: &'static str) {
        self.intake.dropped.add(reason, 1);
    }

    /// Counts unreadable parts of the input.
    pub(super) fn damaged(&self, reason: &'static str, count: u64) {
        self.damaged.add(reason, count);
    }

    /// Records the losses that the source reports. Only the first call has an effect.
    pub(super) fn lost(&self, losses: LossLedger) {
        self.lost.get_or_init(|| losses);
    }

    /// Counts a searched event that this many rules matched.
    pub(super) fn searched(&self, rules: usize) {
        self.work.searched(rules);
    }

    /// Returns the counts of AMSI events.
    pub(super) fn amsi(&self) -> &AmsiTally {
        &self.amsi
    }

    /// Counts a searched event whose payload does not have the layout of its template.
    pub(super) fn undecodable(&self) {
        self.work.undecodable.fetch_add(1, Ordering::Release);
    }

    /// Counts an event or joined block whose views were cut short.
    pub(super) fn views_cut(&self) {
        self.work.views_cut.fetch_add(1, Ordering::Release);
    }

    /// Counts the rules that matched other views of an event.
    pub(super) fn view_detections(&self, rules: usize) {
        if rules > 0 {
            self.work.view_detections.fetch_add(rules as u64, Ordering::Release);
        }
    }

    /// Counts the rules that matched a joined block.
    pub(super) fn block_detections(&self, rules: usize) {
        if rules > 0 {
            self.work.blocks.detections.fetch_add(rules as u64, Ordering::Release);
        }
    }

    /// Adds the counts of blocks since the last call, and the change in the number and memory of open blocks on one
    /// thread from `before` to `now`.
    pub(super) fn blocks(&self, done: &BlockCounts, before: (usize, usize), now: (usize, usize)) {
        let work = &self.work.blocks;
        let rows = [
            (&work.fragments, done.fragments),
            (&work.duplicates, done.duplicates),
            (&work.lying, done.inconsistent),
            (&work.unplaced, done.unplaced),
            (&work.reduced, done.trimmed),
            (&work.joined, done.joined),
            (&work.partial, done.partial),
            (&work.evicted, done.evicted),
            // Atomic addition wraps, so a decrease is added as a large number.
            (&work.open, (now.0 as u64).wrapping_sub(before.0 as u64)),
            (&work.bytes, (now.1 as u64).wrapping_sub(before.1 as u64)),
        ];
        for (count, more) in rows {
            if more != 0 {
                count.fetch_add(more, Ordering::Release);
            }
        }
    }

    /// Returns the counts at this moment. `events_waiting` are the events between source and matchers.
    pub fn read(&self) -> Ledger {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        // Finished events are read before selected ones, so that no event is finished but not selected.
        let amsi = self.amsi.read();
        let undecodable = load(&self.work.undecodable);
        let (matched, not_matched) = (load(&self.work.matched), load(&self.work.not_matched));
        let detections = load(&self.work.detections);
        let dropped = self.intake.dropped.read();
        let selected = load(&self.intake.selected);
        let other = load(&self.intake.other);
        let dropped_events: u64 = dropped.values().sum();
        Ledger {
            events_seen: selected + other,
            events_selected: selected,
            events_other: other,
            events_matched: matched,
            events_not_matched: not_matched,
            events_waiting: selected - matched - not_matched - dropped_events,
            detections,
            amsi,
            view_detections: load(&self.work.view_detections),
            views_cut: load(&self.work.views_cut),
            blocks: self.work.blocks.read(),
            dropped,
            undecodable,
            damaged: self.damaged.read(),
            lost: self.lost.get().copied(),
            payload_bytes: load(&self.intake.payload_bytes),
            elapsed_seconds: 0.0,
        }
    }
}

impl BlockWork {
    fn read(&self) -> BlockLedger {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        BlockLedger {
            fragments: load(&self.fragments),
            duplicates: load(&self.duplicates),
            lying: load(&self.lying),
            unplaced: load(&self.unplaced),
            reduced: load(&self.reduced),
            joined: load(&self.joined),
            partial: load(&self.partial),
            evicted: load(&self.evicted),
            detections: load(&self.detections),
            open: load(&self.open),
            bytes: load(&self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{REASON_OTHER, REASONS_MAX, Reasons, Tally};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn reasons_beyond_the_maximum_are_counted_as_other() {
        let reasons = Reasons::default();
        let words: Vec<&'static str> =
            (0..REASONS_MAX + 3).map(|n| &*Box::leak(format!("r{n}").into_boxed_str())).collect();
        for (n, word) in (1..).zip(&words) {
            reasons.add(word, n);
        }
        let read = reasons.read();
        assert_eq!(read["r0"], 1);
        assert_eq!(read[REASON_OTHER], 17 + 18 + 19);
        assert_eq!(read.values().sum::<u64>(), (1..=19).sum::<u64>());
    }

    #[test]
    fn counts_add_up_at_every_moment() {
        let tally = Tally::default();
        let done = AtomicBool::new(false);
        let (sender, receiver) = crossbeam_channel::bounded::<()>(8);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200_000u32 {
                    tally.selected(10);
                    if n.is_multiple_of(5) || sender.try_send(()).is_err() {
                        tally.dropped("full");
                    }
                    tally.other();
                }
                done.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                while !(done.load(Ordering::Acquire) && receiver.is_empty()) {
                    if receiver.try_recv().is_ok() {
                        tally.searched(usize::from(receiver.len() == 3));
                    }
                }
            });
            while !done.load(Ordering::Acquire) {
                let ledger = tally.read();
                assert!(ledger.balances() && ledger.events_waiting <= 200_000, "{ledger:?}");
            }
        });
        let ledger = tally.read();
        assert!(ledger.balances() && ledger.events_waiting == 0, "{ledger:?}");
        assert_eq!(ledger.events_seen, 400_000);
    }
}
