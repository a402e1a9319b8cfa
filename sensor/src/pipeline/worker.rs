//! A matcher thread: takes events off its channel, searches them, and gives the buffers back.

use crate::detect::{RULES_PER_HIT, hit};
use crate::event::RawEvent;
use crate::ledger::Ledger;
use crossbeam_channel::{Receiver, Sender};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch};
use etwsieve_transport::hit::HitV1;

pub(super) struct Worker<'a> {
    matcher: &'a Matcher,
    names: &'a [String],
    events: Receiver<Box<RawEvent>>,
    emptied: Sender<Box<RawEvent>>,
    hits: Sender<(u32, HitV1)>,
    scratch: Scratch,
    ledgers: Vec<Ledger>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        matcher: &'a Matcher,
        names: &'a [String],
        events: Receiver<Box<RawEvent>>,
        emptied: Sender<Box<RawEvent>>,
        hits: Sender<(u32, HitV1)>,
    ) -> Self {
        let ledgers = vec![Ledger::default(); names.len()];
        Self { matcher, names, events, emptied, hits, scratch: Scratch::default(), ledgers }
    }

    /// Works until the channel is closed and empty. Returns what became of the events, by source.
    pub(super) fn run(mut self) -> Vec<Ledger> {
        while let Ok(event) = self.events.recv() {
            self.search(&event);
            // The feed may have gone; then nobody needs the buffer.
            let _ = self.emptied.send(event);
        }
        self.ledgers
    }

    fn search(&mut self, event: &RawEvent) {
        let ledger = &mut self.ledgers[event.source as usize];
        let Some(kind) = EventKind::from_event_id(event.header.event_id) else {
            ledger.events_not_matched += 1;
            return;
        };
        let payload = Payload { kind, process_id: event.header.process_id, bytes: &event.payload };
        let matched = self.matcher.find(&payload, &mut self.scratch);
        if matched.is_empty() {
            ledger.events_not_matched += 1;
            return;
        }
        ledger.events_matched += 1;
        ledger.detections += matched.len() as u64;
        let name = &self.names[event.source as usize];
        for rules in matched.chunks(RULES_PER_HIT) {
            let hit = hit(event, kind, name, rules.iter().map(|&rule| &self.matcher.rules()[rule as usize]));
            // The caller takes hits until every worker has gone.
            let _ = self.hits.send((event.source, hit));
        }
    }
}
