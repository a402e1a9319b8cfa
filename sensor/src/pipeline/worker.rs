//! A matcher thread: receives events, searches them, and returns their buffers.

mod blocks;

use super::tally::Tally;
use super::{Gap, Outcome, Settings, WhenFull};
use crate::detect::{RULES_PER_HIT, by_view, hit, view_hit};
use crate::event::RawEvent;
use crate::payload::has_template_layout;
use crate::rules::{ActiveRules, Generation};
use crate::search::Search;
use crate::stop::Stop;
use blocks::{Blocks, WorkerContext};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use etwsieve_event::time::TICKS_PER_SECOND;
use etwsieve_matcher::block::FoundNeedles;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, ViewMatch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Interval at which open blocks are checked while no event arrives.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// Drops that are less than a second apart are reported as one gap. In FILETIME ticks.
const GAP_TICKS: u64 = TICKS_PER_SECOND;
/// Maximum number of times that an event is searched again because the rules were replaced.
const ATTEMPTS_MAX: u32 = 4;

pub(super) struct Worker<'a> {
    rules: &'a ActiveRules,
    matcher: Arc<Matcher>,
    generation: Generation,
    names: &'a [String],
    tallies: &'a [Tally],
    channels: Channels,
    search: Search,
    scratch: Scratch,
    blocks: Blocks,
    gap: Option<(u32, Gap)>,
    /// True if the source is a live session.
    is_live: bool,
    /// FILETIME of the last event.
    time: u64,
    stop: &'a Stop,
}

/// The result of searching an event.
struct SearchResult {
    /// The rules that match the raw text, ascending.
    raw: Vec<u32>,
    views: Vec<ViewMatch>,
    found_needles: FoundNeedles,
    /// True if a view may differ from the raw text.
    could_differ: bool,
    /// True if the views were cut short.
    is_cut: bool,
}

/// The channels of a matcher thread.
pub(super) struct Channels {
    pub(super) events: Receiver<Box<RawEvent>>,
    pub(super) returned: Sender<Box<RawEvent>>,
    pub(super) outcomes: Sender<Outcome>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        rules: &'a ActiveRules,
        names: &'a [String],
        tallies: &'a [Tally],
        channels: Channels,
        settings: &Settings,
        stop: &'a Stop,
    ) -> Self {
        let search = settings.search;
        let (matcher, generation) = rules.current();
        let (scratch, blocks) = (Scratch::default(), Blocks::new(search, settings.shard.count()));
        let is_live = settings.when_full == WhenFull::Drop;
        Self {
            rules,
            matcher,
            generation,
            names,
            tallies,
            channels,
            search,
            scratch,
            blocks,
            gap: None,
            is_live,
            time: 0,
            stop,
        }
    }

    /// Searches events until the channel is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(mut event) = self.next() {
            self.note_gap(&event);
            self.search(&mut event);
            // Fails if the source has ended, which then does not need the buffer.
            let _ = self.channels.returned.send(event);
        }
        self.with_blocks(Blocks::finish);
        self.report_gap();
    }

    /// Waits for the next event; `None` if the channel is closed.
    fn next(&mut self) -> Option<Box<RawEvent>> {
        if self.is_live && self.blocks.any_open() {
            self.next_or_idle()
        } else {
            self.channels.events.recv().ok()
        }
    }

    /// Like [`next`](Self::next), and meanwhile closes open blocks that have reached their maximum age.
    fn next_or_idle(&mut self) -> Option<Box<RawEvent>> {
        let idle_since = Instant::now();
        while self.blocks.any_open() {
            match self.channels.events.recv_timeout(IDLE_TICK) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let time = self.time.saturating_add((idle_since.elapsed().as_nanos() / 100) as u64);
                    self.with_blocks(|blocks, context| blocks.advance(time, context));
                }
            }
        }
        self.channels.events.recv().ok()
    }

    fn search(&mut self, event: &mut RawEvent) {
        let tally = &self.tallies[event.source as usize];
        self.update_rules();
        self.with_blocks(|blocks, context| blocks.begin(event.source, context));
        let Some(kind) = EventKind::from_event_id(event.header.event_id) else {
            tally.searched(0);
            return;
        };
        if !has_template_layout(kind, &event.payload) {
            tally.undecodable();
        }
        let payload = Payload { kind, process_id: event.header.process_id, bytes: &event.payload };
        let is_fragment = self.search.block && payload.fragment().is_some();
        let mut attempts_left = ATTEMPTS_MAX;
        let found = loop {
            attempts_left -= 1;
            match self.find(&payload, is_fragment, attempts_left > 0) {
                Some(found) => break found,
                // Nothing of this event has been reported yet, so it is searched again.
                None => self.update_rules(),
            }
        };
        tally.searched(found.raw.len());
        if kind == EventKind::Amsi {
            tally.amsi().searched(found.raw.len());
        }
        if found.is_cut {
            tally.views_cut();
        }
        let name = &self.names[event.source as usize];
        if self.search.event && self.search.raw {
            for rules in found.raw.chunks(RULES_PER_HIT) {
                let hit = hit(event, kind, name, &self.matcher, rules);
                // The caller receives outcomes until all workers have ended.
                let _ = self.channels.outcomes.send(Outcome::Hit(event.source, hit));
            }
        }
        if self.search.event && !found.views.is_empty() {
            tally.view_detections(found.views.len());
            for matches in by_view(&found.views) {
                let hit = view_hit(event, kind, name, &self.matcher, &matches);
                let _ = self.channels.outcomes.send(Outcome::Hit(event.source, hit));
            }
        }
        let SearchResult { raw: mut reported, views, found_needles, could_differ, .. } = found;
        reported.extend(views.iter().map(|found| found.rule));
        reported.sort_unstable();
        let time = event.header.time.0;
        self.time = time;
        self.with_blocks(|blocks, context| {
            if is_fragment {
                blocks.take(event, &reported, (found_needles, could_differ), context);
            } else if blocks.any_open() {
                blocks.advance(time, context);
            }
        });
    }

    /// Searches the raw text of an event and its views; `None` if the rules are replaced meanwhile and `may_restart`.
    fn find(&mut self, payload: &Payload<'_>, is_fragment: bool, may_restart: bool) -> Option<SearchResult> {
        let matched = if is_fragment {
            self.matcher.find_fragment(payload, &mut self.scratch)
        } else {
            self.matcher.find(payload, &mut self.scratch)
        };
        // Usually empty, and then not allocated.
        let raw = matched.to_vec();
        let found_needles = if is_fragment { self.scratch.found_needles() } else { FoundNeedles::default() };
        let (rules, generation, stop) = (self.rules, self.generation, self.stop);
        let is_replaced = || may_restart && rules.generation() != generation;
        let must_end = || stop.requested() || is_replaced();
        let views = self.search.views;
        let mut budget = ViewBudget::new(payload.bytes.len()).until(&must_end);
        let could_differ =
            self.matcher.views_could_differ_from_raw(payload, views, &self.scratch, &mut budget);
        let found = if could_differ {
            self.matcher.find_views(payload, views, &raw, &mut self.scratch, &mut budget)
        } else {
            Vec::new()
        };
        if budget.is_stopped() && is_replaced() {
            return None;
        }
        Some(SearchResult { raw, views: found, found_needles, could_differ, is_cut: budget.is_cut() })
    }

    /// Switches to the active rules if they have been replaced.
    fn update_rules(&mut self) {
        if self.rules.generation() != self.generation {
            let old = Arc::clone(&self.matcher);
            (self.matcher, self.generation) = self.rules.current();
            self.blocks.replace_rules(old.rules(), &self.matcher);
        }
    }

    /// Calls `work` with the blocks and the context that they need.
    fn with_blocks<T>(&mut self, work: impl FnOnce(&mut Blocks, &mut WorkerContext<'_>) -> T) -> T {
        let stop = self.stop;
        let must_end = || stop.requested();
        let mut context = WorkerContext {
            matcher: &self.matcher,
            scratch: &mut self.scratch,
            names: self.names,
            tallies: self.tallies,
            outcomes: &self.channels.outcomes,
            stop: &must_end,
        };
        work(&mut self.blocks, &mut context)
    }

    /// Combines drops that are close together into one gap.
    fn note_gap(&mut self, event: &RawEvent) {
        let (time, events) = (event.header.time, event.dropped_before);
        if let Some((source, gap)) = &mut self.gap {
            if *source == event.source && time.0.saturating_sub(gap.until.0) < GAP_TICKS {
                if events > 0 {
                    gap.until = gap.until.max(time);
                    gap.events += events;
                }
                return;
            }
            self.report_gap();
        }
        if events > 0 {
            self.gap = Some((event.source, Gap { until: time, before_sequence: event.sequence, events }));
        }
    }

    fn report_gap(&mut self) {
        if let Some((source, gap)) = self.gap.take() {
            let _ = self.channels.outcomes.send(Outcome::Gap(source, gap));
        }
    }
}
