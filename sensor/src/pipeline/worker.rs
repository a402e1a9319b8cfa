//! A matcher thread: takes events off its channel, searches them, and gives the buffers back.

mod blocks;

use super::tally::Tally;
use super::{Gap, Outcome, Settings, WhenFull};
use crate::detect::{RULES_PER_HIT, by_view, hit, view_hit};
use crate::event::RawEvent;
use crate::payload::looks_whole;
use crate::rules::{ActiveRules, Generation};
use crate::search::Search;
use blocks::{Blocks, Hands};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use etwsieve_matcher::block::Noted;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often open blocks are looked at while no event comes.
const QUIET_TICK: Duration = Duration::from_secs(5);
/// Drops less than this far apart become one gap, in FILETIME ticks: a second.
const GAP_TICKS: u64 = 10_000_000;

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
        let (blocks, mut hands) = self.blocks();
        blocks.finish(&mut hands);
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
                    let (blocks, mut hands) = self.blocks();
                    blocks.advance(time, &mut hands);
                }
            }
        }
        self.ends.events.recv().ok()
    }

    fn search(&mut self, event: &mut RawEvent) {
        let tally = &self.tallies[event.source as usize];
        if self.rules.generation() != self.generation {
            let old = Arc::clone(&self.matcher);
            (self.matcher, self.generation) = self.rules.current();
            self.blocks.exchange(old.rules(), &self.matcher);
        }
        let (blocks, mut hands) = self.blocks();
        blocks.begin(event.source, &mut hands);
        let Some(kind) = EventKind::from_event_id(event.header.event_id) else {
            tally.searched(0);
            return;
        };
        if !looks_whole(kind, &event.payload) {
            tally.undecodable();
        }
        let payload = Payload { kind, process_id: event.header.process_id, bytes: &event.payload };
        let is_fragment = self.search.block && payload.fragment().is_some();
        let matched = if is_fragment {
            self.matcher.find_fragment(&payload, &mut self.scratch)
        } else {
            self.matcher.find(&payload, &mut self.scratch)
        };
        tally.searched(matched.len());
        if kind == EventKind::Amsi {
            tally.amsi().searched(matched.len());
        }
        let name = &self.names[event.source as usize];
        if self.search.event && self.search.raw {
            for rules in matched.chunks(RULES_PER_HIT) {
                let hit = hit(event, kind, name, &self.matcher, rules);
                // The caller takes outcomes until every worker has gone.
                let _ = self.ends.outcomes.send(Outcome::Hit(event.source, hit));
            }
        }
        // Empty as a rule, and then made without an allocation.
        let mut given = matched.to_vec();
        let noted = if is_fragment { self.scratch.noted() } else { Noted::default() };
        let could_differ =
            self.matcher.views_could_differ_from_raw(&payload, self.search.views, &self.scratch);
        if could_differ {
            let found = self.matcher.find_views(&payload, self.search.views, &given, &mut self.scratch);
            if self.search.event {
                tally.view_detections(found.len());
                for matches in by_view(&found) {
                    let hit = view_hit(event, kind, name, &self.matcher, &matches);
                    let _ = self.ends.outcomes.send(Outcome::Hit(event.source, hit));
                }
            }
            given.extend(found.iter().map(|found| found.rule));
            given.sort_unstable();
        }
        let time = event.header.time.0;
        self.time = time;
        let (blocks, mut hands) = self.blocks();
        if is_fragment {
            blocks.take(event, &given, (noted, could_differ), &mut hands);
        } else if blocks.any_open() {
            blocks.advance(time, &mut hands);
        }
    }

    /// The blocks, and what they need.
    fn blocks(&mut self) -> (&mut Blocks, Hands<'_>) {
        let hands = Hands {
            matcher: &self.matcher,
            scratch: &mut self.scratch,
            names: self.names,
            tallies: self.tallies,
            outcomes: &self.ends.outcomes,
        };
        (&mut self.blocks, hands)
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
