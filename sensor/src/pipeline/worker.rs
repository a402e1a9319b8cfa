//! A matcher thread: takes events off its channel, searches them, and gives the buffers back.

mod blocks;

use super::tally::Tally;
use super::{Gap, Outcome, Settings, WhenFull};
use crate::detect::{RULES_PER_HIT, by_view, hit, view_hit};
use crate::event::RawEvent;
use crate::payload::looks_whole;
use crate::rules::{ActiveRules, Generation};
use crate::search::Search;
use crate::stop::Stop;
use blocks::{Blocks, Hands};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use etwsieve_matcher::block::FoundNeedles;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, ViewMatch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often open blocks are looked at while no event comes.
const QUIET_TICK: Duration = Duration::from_secs(5);
/// Drops less than this far apart become one gap, in FILETIME ticks: a second.
const GAP_TICKS: u64 = 10_000_000;
/// How often an event is searched while rules are exchanged, at most.
const ATTEMPTS_MAX: u32 = 4;

pub(super) struct Worker<'a> {
    rules: &'a ActiveRules,
    matcher: Arc<Matcher>,
    generation: Generation,
    names: &'a [String],
    tallies: &'a [Tally],
    ends: Ends,
    search: Search,
    scratch: Scratch,
    blocks: Blocks,
    gap: Option<(u32, Gap)>,
    /// Whether the feed must never wait.
    is_live: bool,
    /// Time of the last event, as FILETIME.
    time: u64,
    stop: &'a Stop,
}

/// What the search of an event found.
struct Found {
    /// The rules that match it as recorded, ascending.
    raw: Vec<u32>,
    views: Vec<ViewMatch>,
    found_needles: FoundNeedles,
    /// Whether a view could differ from the text as recorded.
    could_differ: bool,
    /// Whether the views were cut short.
    is_cut: bool,
}

/// The channels of a worker.
pub(super) struct Ends {
    pub(super) events: Receiver<Box<RawEvent>>,
    pub(super) emptied: Sender<Box<RawEvent>>,
    pub(super) outcomes: Sender<Outcome>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        rules: &'a ActiveRules,
        names: &'a [String],
        tallies: &'a [Tally],
        ends: Ends,
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
            ends,
            search,
            scratch,
            blocks,
            gap: None,
            is_live,
            time: 0,
            stop,
        }
    }

    /// Works until the channel is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(mut event) = self.next() {
            self.note_gap(&event);
            self.search(&mut event);
            // The feed may have gone; then nobody needs the buffer.
            let _ = self.ends.emptied.send(event);
        }
        self.with_blocks(Blocks::finish);
        self.report_gap();
    }

    /// The next event; `None`: there will be no more.
    fn next(&mut self) -> Option<Box<RawEvent>> {
        if self.is_live && self.blocks.any_open() {
            self.next_or_quiet()
        } else {
            self.ends.events.recv().ok()
        }
    }

    /// As [`next`](Self::next); meanwhile blocks grow old though no event says how late it is.
    fn next_or_quiet(&mut self) -> Option<Box<RawEvent>> {
        let quiet = Instant::now();
        while self.blocks.any_open() {
            match self.ends.events.recv_timeout(QUIET_TICK) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let time = self.time.saturating_add((quiet.elapsed().as_nanos() / 100) as u64);
                    self.with_blocks(|blocks, hands| blocks.advance(time, hands));
                }
            }
        }
        self.ends.events.recv().ok()
    }

    fn search(&mut self, event: &mut RawEvent) {
        let tally = &self.tallies[event.source as usize];
        self.exchange_rules();
        self.with_blocks(|blocks, hands| blocks.begin(event.source, hands));
        let Some(kind) = EventKind::from_event_id(event.header.event_id) else {
            tally.searched(0);
            return;
        };
        if !looks_whole(kind, &event.payload) {
            tally.undecodable();
        }
        let payload = Payload { kind, process_id: event.header.process_id, bytes: &event.payload };
        let is_fragment = self.search.block && payload.fragment().is_some();
        let mut attempts_left = ATTEMPTS_MAX;
        let found = loop {
            attempts_left -= 1;
            match self.find(&payload, is_fragment, attempts_left > 0) {
                Some(found) => break found,
                // Searched from the beginning, since nothing of it has been reported yet.
                None => self.exchange_rules(),
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
                // The caller takes outcomes until every worker has gone.
                let _ = self.ends.outcomes.send(Outcome::Hit(event.source, hit));
            }
        }
        if self.search.event && !found.views.is_empty() {
            tally.view_detections(found.views.len());
            for matches in by_view(&found.views) {
                let hit = view_hit(event, kind, name, &self.matcher, &matches);
                let _ = self.ends.outcomes.send(Outcome::Hit(event.source, hit));
            }
        }
        let Found { raw: mut given, views, found_needles, could_differ, .. } = found;
        given.extend(views.iter().map(|found| found.rule));
        given.sort_unstable();
        let time = event.header.time.0;
        self.time = time;
        self.with_blocks(|blocks, hands| {
            if is_fragment {
                blocks.take(event, &given, (found_needles, could_differ), hands);
            } else if blocks.any_open() {
                blocks.advance(time, hands);
            }
        });
    }

    /// Searches an event as recorded and in its views; `None` if the rules are exchanged meanwhile and `may_give_up`.
    fn find(&mut self, payload: &Payload<'_>, is_fragment: bool, may_give_up: bool) -> Option<Found> {
        let matched = if is_fragment {
            self.matcher.find_fragment(payload, &mut self.scratch)
        } else {
            self.matcher.find(payload, &mut self.scratch)
        };
        // Empty as a rule, and then made without an allocation.
        let raw = matched.to_vec();
        let found_needles = if is_fragment { self.scratch.found_needles() } else { FoundNeedles::default() };
        let (rules, generation, stop) = (self.rules, self.generation, self.stop);
        let is_exchanged = || may_give_up && rules.generation() != generation;
        let ends = || stop.requested() || is_exchanged();
        let views = self.search.views;
        let mut budget = ViewBudget::new(payload.bytes.len()).until(&ends);
        let could_differ =
            self.matcher.views_could_differ_from_raw(payload, views, &self.scratch, &mut budget);
        let found = if could_differ {
            self.matcher.find_views(payload, views, &raw, &mut self.scratch, &mut budget)
        } else {
            Vec::new()
        };
        if budget.is_stopped() && is_exchanged() {
            return None;
        }
        Some(Found { raw, views: found, found_needles, could_differ, is_cut: budget.is_cut() })
    }

    /// Takes the rules that are active now.
    fn exchange_rules(&mut self) {
        if self.rules.generation() != self.generation {
            let old = Arc::clone(&self.matcher);
            (self.matcher, self.generation) = self.rules.current();
            self.blocks.exchange(old.rules(), &self.matcher);
        }
    }

    /// Works on the blocks, with what they need.
    fn with_blocks<T>(&mut self, work: impl FnOnce(&mut Blocks, &mut Hands<'_>) -> T) -> T {
        let stop = self.stop;
        let ends = || stop.requested();
        let mut hands = Hands {
            matcher: &self.matcher,
            scratch: &mut self.scratch,
            names: self.names,
            tallies: self.tallies,
            outcomes: &self.ends.outcomes,
            stop: &ends,
        };
        work(&mut self.blocks, &mut hands)
    }

    /// Joins neighbouring drops to one gap, so that an overload is not told event by event.
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
            let _ = self.ends.outcomes.send(Outcome::Gap(source, gap));
        }
    }
}
