//! The blocks of one matcher thread: fragments in, hits of whole blocks out.

use super::super::Outcome;
use super::super::tally::Tally;
use crate::detect::block::{BlockHit, FirstFragment};
use crate::detect::{RULES_PER_HIT, by_view};
use crate::event::RawEvent;
use crate::search::Search;
use crossbeam_channel::Sender;
use etwsieve_matcher::block::{Assembly, BlockCounts, Closed, Fragment, Joined, Limits, Noted};
use etwsieve_matcher::{EventKind, Matcher, Payload, Rule, Scratch};

/// UTF-16 units on either side of a border that are looked at as one, to see whether a view could differ there.
const BORDER_UNITS: usize = 64;

/// Fragments on their way to whole blocks.
pub(super) struct Blocks {
    search: Search,
    assembly: Assembly<FirstFragment>,
    joined: Joined,
    /// The source of the open blocks.
    source: u32,
    /// What the tally of that source knows.
    told: BlockCounts,
    told_open: (usize, usize),
}

/// What blocks need of their thread.
pub(super) struct Hands<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) scratch: &'a mut Scratch,
    pub(super) names: &'a [String],
    pub(super) tallies: &'a [Tally],
    pub(super) outcomes: &'a Sender<Outcome>,
}

impl Blocks {
    pub(super) fn new(search: Search) -> Self {
        Self {
            search,
            assembly: Assembly::new(Limits::default()),
            joined: Joined::default(),
            source: 0,
            told: BlockCounts::default(),
            told_open: (0, 0),
        }
    }

    /// Whether any block waits for fragments.
    pub(super) fn any_open(&self) -> bool {
        self.assembly.open() > 0
    }

    /// An event of this source comes next: blocks of another one get no more fragments.
    pub(super) fn begin(&mut self, source: u32, hands: &mut Hands<'_>) {
        if source != self.source {
            self.finish(hands);
            self.source = source;
        }
    }

    /// Takes a fragment that has been searched. `given`: the rules reported for it, ascending.
    pub(super) fn take(
        &mut self,
        event: &mut RawEvent,
        given: &[u32],
        (noted, views_could_differ): (Noted, bool),
        hands: &mut Hands<'_>,
    ) {
        let RawEvent { header, user_sid, computer, sequence, payload, .. } = event;
        let fragment = Fragment {
            source: self.source,
            process_id: header.process_id,
            time: header.time.0,
            is_needed: views_could_differ,
            noted,
        };
        self.assembly.take(fragment, payload, given, hands.matcher, hands.scratch, || FirstFragment {
            header: *header,
            user_sid: *user_sid,
            computer: computer.as_str().into(),
            sequence: *sequence,
        });
        self.search_closed(hands);
        self.tell(hands);
    }

    /// An event of this time that is no fragment has come.
    pub(super) fn advance(&mut self, time: u64, hands: &mut Hands<'_>) {
        self.assembly.advance(time);
        if self.search_closed(hands) {
            self.tell(hands);
        }
    }

    /// The rules have been exchanged.
    pub(super) fn exchange(&mut self, old: &[Rule], new: &Matcher) {
        self.assembly.exchange(old, new);
    }

    /// Searches what is open, as far as it goes.
    pub(super) fn finish(&mut self, hands: &mut Hands<'_>) {
        while self.assembly.give_up() {
            self.search_closed(hands);
        }
        self.tell(hands);
    }

    /// Searches the blocks that have closed; whether there were any.
    fn search_closed(&mut self, hands: &mut Hands<'_>) -> bool {
        let mut any = false;
        while let Some(closed) = self.assembly.next_closed() {
            any = true;
            self.search(&closed, hands);
            self.assembly.recycle(closed);
        }
        any
    }

    fn search(&mut self, closed: &Closed<FirstFragment>, hands: &mut Hands<'_>) {
        // What one fragment shows its event has shown.
        if closed.fragments() < 2 {
            return;
        }
        let raw = closed.search(hands.matcher, hands.scratch, &mut self.joined).to_vec();
        let name = &hands.names[self.source as usize];
        let mut detections = 0;
        if self.search.raw {
            for rules in raw.chunks(RULES_PER_HIT) {
                detections += rules.len();
                let of = BlockHit { closed, joined: &self.joined, source: name, matcher: hands.matcher };
                let _ = hands.outcomes.send(Outcome::Hit(self.source, of.raw(rules)));
            }
        }
        let views = self.search.views;
        let differs =
            |units: &[[u8; 2]]| hands.matcher.views_could_differ(EventKind::ScriptBlock, units, views);
        if views.any() && (closed.is_needed() || closed.borders(BORDER_UNITS).any(|units| differs(&units))) {
            closed.join(&mut self.joined);
            let mut known = [closed.given(), &raw].concat();
            known.sort_unstable();
            let payload = Payload {
                kind: EventKind::ScriptBlock,
                process_id: closed.facts().header.process_id,
                bytes: self.joined.bytes(),
            };
            let found = hands.matcher.find_views(&payload, views, &known, hands.scratch);
            for matches in by_view(&found) {
                detections += matches.len();
                let of = BlockHit { closed, joined: &self.joined, source: name, matcher: hands.matcher };
                let _ = hands.outcomes.send(Outcome::Hit(self.source, of.view(&matches)));
            }
        }
        hands.tallies[self.source as usize].block_detections(detections);
    }

    /// Brings the tally of the source up to date.
    fn tell(&mut self, hands: &mut Hands<'_>) {
        let counts = self.assembly.counts();
        let open = (self.assembly.open(), self.assembly.bytes());
        hands.tallies[self.source as usize].blocks(&counts.since(&self.told), self.told_open, open);
        (self.told, self.told_open) = (counts, open);
    }
}
