//! The blocks of one matcher thread: fragments in, hits of whole blocks out.

use super::super::Outcome;
use super::super::tally::Tally;
use crate::detect::block::{BlockHit, FirstFragment};
use crate::detect::{RULES_PER_HIT, by_view};
use crate::event::RawEvent;
use crate::search::Search;
use crossbeam_channel::Sender;
use etwsieve_matcher::block::{Assembly, BlockCounts, Closed, FoundNeedles, Fragment, Joined, Limits};
use etwsieve_matcher::{EventKind, Matcher, Payload, Rule, Scratch, ViewBudget};

/// UTF-16 units on either side of a border that are looked at as one, to see whether a view could differ there.
const BORDER_UNITS: usize = 64;

/// Fragments on their way to whole blocks.
pub(super) struct Blocks {
    search: Search,
    shards: Vec<Shard>,
    joined: Joined,
    /// The source of the open blocks.
    source: u32,
}

/// Blocks with bounds of their own.
struct Shard {
    assembly: Assembly<FirstFragment>,
    /// What the tally of the source knows.
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
    /// Whether the views of a block are to end, because the run does.
    pub(super) stop: &'a dyn Fn() -> bool,
}

impl Blocks {
    /// With room for events of so many shards, at least 1.
    pub(super) fn new(search: Search, shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::new()).collect();
        Self { search, shards, joined: Joined::default(), source: 0 }
    }

    /// Whether any block waits for fragments.
    pub(super) fn any_open(&self) -> bool {
        self.shards.iter().any(Shard::is_open)
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
        (found_needles, views_could_differ): (FoundNeedles, bool),
        hands: &mut Hands<'_>,
    ) {
        let RawEvent { header, user_sid, computer, sequence, payload, shard, .. } = event;
        let shard = usize::from(*shard).min(self.shards.len() - 1);
        let fragment = Fragment {
            source: self.source,
            process_id: header.process_id,
            time: header.time.0,
            views_could_differ,
            found_needles,
        };
        let assembly = &mut self.shards[shard].assembly;
        hands.matcher.take_fragment(assembly, fragment, payload, given, hands.scratch, || FirstFragment {
            header: *header,
            user_sid: *user_sid,
            computer: computer.as_str().into(),
            sequence: *sequence,
        });
        self.search_closed(shard, hands);
        self.tell(shard, hands);
    }

    /// An event of this time that is no fragment has come.
    pub(super) fn advance(&mut self, time: u64, hands: &mut Hands<'_>) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].is_open() {
                self.shards[shard].assembly.advance(time);
                if self.search_closed(shard, hands) {
                    self.tell(shard, hands);
                }
            }
        }
    }

    /// The rules have been exchanged.
    pub(super) fn exchange(&mut self, old: &[Rule], new: &Matcher) {
        self.shards.iter_mut().for_each(|shard| new.adopt(&mut shard.assembly, old));
    }

    /// Searches what is open, as far as it goes.
    pub(super) fn finish(&mut self, hands: &mut Hands<'_>) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].assembly.close_oldest() {
                self.search_closed(shard, hands);
            }
            self.tell(shard, hands);
        }
    }

    /// Searches the blocks that have closed; whether there were any.
    fn search_closed(&mut self, shard: usize, hands: &mut Hands<'_>) -> bool {
        let mut any = false;
        while let Some(closed) = self.shards[shard].assembly.next_closed() {
            any = true;
            self.search(&closed, hands);
            self.shards[shard].assembly.recycle(closed);
        }
        any
    }

    fn search(&mut self, closed: &Closed<FirstFragment>, hands: &mut Hands<'_>) {
        // What one fragment shows its event has shown.
        if closed.fragments() < 2 {
            return;
        }
        let raw = hands.matcher.find_joined(closed, hands.scratch, &mut self.joined).to_vec();
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
        let stop = hands.stop;
        let mut budget = ViewBudget::new(closed.text_bytes()).until(stop);
        let mut differs = |units: &[[u8; 2]]| {
            hands.matcher.views_could_differ(EventKind::ScriptBlock, units, views, &mut budget)
        };
        if views.any()
            && (closed.views_could_differ() || closed.borders(BORDER_UNITS).any(|units| differs(&units)))
        {
            closed.join(&mut self.joined);
            let mut known = [closed.reported(), &raw].concat();
            known.sort_unstable();
            let payload = Payload {
                kind: EventKind::ScriptBlock,
                process_id: closed.facts().header.process_id,
                bytes: self.joined.bytes(),
            };
            let found = hands.matcher.find_views(&payload, views, &known, hands.scratch, &mut budget);
            if budget.is_cut() {
                hands.tallies[self.source as usize].views_cut();
            }
            for matches in by_view(&found) {
                detections += matches.len();
                let of = BlockHit { closed, joined: &self.joined, source: name, matcher: hands.matcher };
                let _ = hands.outcomes.send(Outcome::Hit(self.source, of.view(&matches)));
            }
        }
        hands.tallies[self.source as usize].block_detections(detections);
    }

    /// Brings the tally of the source up to date.
    fn tell(&mut self, shard: usize, hands: &mut Hands<'_>) {
        let Shard { assembly, told, told_open } = &mut self.shards[shard];
        let counts = assembly.counts();
        let open = (assembly.open(), assembly.bytes());
        hands.tallies[self.source as usize].blocks(&counts.since(told), *told_open, open);
        (*told, *told_open) = (counts, open);
    }
}

impl Shard {
    fn new() -> Self {
        Self { assembly: Assembly::new(Limits::default()), told: BlockCounts::default(), told_open: (0, 0) }
    }

    fn is_open(&self) -> bool {
        self.assembly.open() > 0
    }
}
