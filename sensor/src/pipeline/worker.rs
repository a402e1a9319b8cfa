//! A matcher thread: takes events off its channel, searches them, and gives the buffers back.

use super::tally::Tally;
use super::{Gap, Outcome};
use crate::detect::{RULES_PER_HIT, hit};
use crate::event::RawEvent;
use crate::payload::looks_whole;
use crate::rules::{ActiveRules, Generation};
use crossbeam_channel::{Receiver, Sender};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch};
use std::sync::Arc;

/// Drops less than this far apart become one gap, in FILETIME ticks: a second.
const GAP_TICKS: u64 = 10_000_000;

pub(super) struct Worker<'a> {
    rules: &'a ActiveRules,
    matcher: Arc<Matcher>,
    generation: Generation,
    names: &'a [String],
    tallies: &'a [Tally],
    events: Receiver<Box<RawEvent>>,
    emptied: Sender<Box<RawEvent>>,
    outcomes: Sender<Outcome>,
    scratch: Scratch,
    gap: Option<(u32, Gap)>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        rules: &'a ActiveRules,
        names: &'a [String],
        tallies: &'a [Tally],
        events: Receiver<Box<RawEvent>>,
        emptied: Sender<Box<RawEvent>>,
        outcomes: Sender<Outcome>,
    ) -> Self {
        let (matcher, generation) = rules.current();
        let scratch = Scratch::default();
        Self { rules, matcher, generation, names, tallies, events, emptied, outcomes, scratch, gap: None }
    }

    /// Works until the channel is closed and empty.
    pub(super) fn run(mut self) {
        while let Ok(event) = self.events.recv() {
            self.note_gap(&event);
            self.search(&event);
            // The feed may have gone; then nobody needs the buffer.
            let _ = self.emptied.send(event);
        }
        self.report_gap();
    }

    fn search(&mut self, event: &RawEvent) {
        let tally = &self.tallies[event.source as usize];
        if self.rules.generation() != self.generation {
            (self.matcher, self.generation) = self.rules.current();
        }
        let Some(kind) = EventKind::from_event_id(event.header.event_id) else {
            tally.searched(0);
            return;
        };
        if !looks_whole(kind, &event.payload) {
            tally.undecodable();
        }
        let payload = Payload { kind, process_id: event.header.process_id, bytes: &event.payload };
        let matched = self.matcher.find(&payload, &mut self.scratch);
        tally.searched(matched.len());
        if kind == EventKind::Amsi {
            tally.amsi().searched(matched.len());
        }
        let name = &self.names[event.source as usize];
        for rules in matched.chunks(RULES_PER_HIT) {
            let hit = hit(event, kind, name, &self.matcher, rules);
            // The caller takes outcomes until every worker has gone.
            let _ = self.outcomes.send(Outcome::Hit(event.source, hit));
        }
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
            let _ = self.outcomes.send(Outcome::Gap(source, gap));
        }
    }
}
