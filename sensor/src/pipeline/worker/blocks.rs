//! Joins the fragments that arrive on one matcher thread to script blocks, and searches the blocks.

use super::super::Outcome;
use super::super::tally::Tally;
use crate::detect::block::{BlockHit, FirstFragment};
use crate::detect::{RULES_PER_HIT, by_view};
use crate::event::RawEvent;
use crate::search::Search;
use crossbeam_channel::Sender;
use etwsieve_matcher::block::{Assembly, BlockCounts, Closed, FoundNeedles, Fragment, Joined, Limits};
use etwsieve_matcher::{EventKind, Matcher, Payload, Rule, Scratch, ViewBudget};

/// Number of UTF-16 units on either side of a border between fragments in which a view may differ from the raw text.
const BORDER_UNITS: usize = 64;

/// The open blocks of a matcher thread.
pub(super) struct Blocks {
    search: Search,
    shards: Vec<BlockShard>,
    joined: Joined,
    /// The source of the open blocks.
    source: u32,
}

/// A group of blocks with its own memory limit.
struct BlockShard {
    assembly: Assembly<FirstFragment>,
    /// Counts that the tally of the source includes already.
    reported: BlockCounts,
    reported_open: (usize, usize),
}

/// The parts of a matcher thread that [`Blocks`] uses.
pub(super) struct WorkerContext<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) scratch: &'a mut Scratch,
    pub(super) names: &'a [String],
    pub(super) tallies: &'a [Tally],
    pub(super) outcomes: &'a Sender<Outcome>,
    /// Returns true if the run is to end, so that views are cut short.
    pub(super) stop: &'a dyn Fn() -> bool,
}

impl Blocks {
    /// Creates empty blocks with this number of shards, at least 1.
    pub(super) fn new(search: Search, shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| BlockShard::new()).collect();
        Self { search, shards, joined: Joined::default(), source: 0 }
    }

    /// Returns whether any block is still missing fragments.
    pub(super) fn any_open(&self) -> bool {
        self.shards.iter().any(BlockShard::is_open)
    }

    /// Prepares for an event of this source. Blocks of another source are finished, because they get no more fragments.
    pub(super) fn begin(&mut self, source: u32, context: &mut WorkerContext<'_>) {
        if source != self.source {
            self.finish(context);
            self.source = source;
        }
    }

    /// Takes a fragment that has been searched as an event. `reported_rules` were reported for it, ascending.
    pub(super) fn take(
        &mut self,
        event: &mut RawEvent,
        reported_rules: &[u32],
        (found_needles, views_could_differ): (FoundNeedles, bool),
        context: &mut WorkerContext<'_>,
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
        let first = || FirstFragment {
            header: *header,
            user_sid: *user_sid,
            computer: computer.as_str().into(),
            sequence: *sequence,
        };
        context.matcher.take_fragment(assembly, fragment, payload, reported_rules, context.scratch, first);
        self.search_closed(shard, context);
        self.update_tally(shard, context);
    }

    /// Closes blocks that have reached their maximum age at this time.
    pub(super) fn advance(&mut self, time: u64, context: &mut WorkerContext<'_>) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].is_open() {
                self.shards[shard].assembly.advance(time);
                if self.search_closed(shard, context) {
                    self.update_tally(shard, context);
                }
            }
        }
    }

    /// Updates the open blocks after the rules were replaced.
    pub(super) fn replace_rules(&mut self, old: &[Rule], new: &Matcher) {
        self.shards.iter_mut().for_each(|shard| new.adopt(&mut shard.assembly, old));
    }

    /// Searches all open blocks although they are incomplete.
    pub(super) fn finish(&mut self, context: &mut WorkerContext<'_>) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].assembly.close_oldest() {
                self.search_closed(shard, context);
            }
            self.update_tally(shard, context);
        }
    }

    /// Searches the blocks that have been closed. Returns whether there were any.
    fn search_closed(&mut self, shard: usize, context: &mut WorkerContext<'_>) -> bool {
        let mut any = false;
        while let Some(closed) = self.shards[shard].assembly.next_closed() {
            any = true;
            self.search(&closed, context);
            self.shards[shard].assembly.recycle(closed);
        }
        any
    }

    fn search(&mut self, closed: &Closed<FirstFragment>, context: &mut WorkerContext<'_>) {
        // A block of one fragment has been searched as an event.
        if closed.fragments() < 2 {
            return;
        }
        let raw = context.matcher.find_joined(closed, context.scratch, &mut self.joined).to_vec();
        let name = &context.names[self.source as usize];
        let mut detections = 0;
        if self.search.raw {
            for rules in raw.chunks(RULES_PER_HIT) {
                detections += rules.len();
                let of = BlockHit { closed, joined: &self.joined, source: name, matcher: context.matcher };
                let _ = context.outcomes.send(Outcome::Hit(self.source, of.raw(rules)));
            }
        }
        let views = self.search.views;
        let stop = context.stop;
        let mut budget = ViewBudget::new(closed.text_bytes()).until(stop);
        let mut differs = |units: &[[u8; 2]]| {
            context.matcher.views_could_differ(EventKind::ScriptBlock, units, views, &mut budget)
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
            let found = context.matcher.find_views(&payload, views, &known, context.scratch, &mut budget);
            if budget.is_cut() {
                context.tallies[self.source as usize].views_cut();
            }
            for matches in by_view(&found) {
                detections += matches.len();
                let of = BlockHit { closed, joined: &self.joined, source: name, matcher: context.matcher };
                let _ = context.outcomes.send(Outcome::Hit(self.source, of.view(&matches)));
            }
        }
        context.tallies[self.source as usize].block_detections(detections);
    }

    /// Updates the tally of the source.
    fn update_tally(&mut self, shard: usize, context: &mut WorkerContext<'_>) {
        let BlockShard { assembly, reported, reported_open } = &mut self.shards[shard];
        let counts = assembly.counts();
        let open = (assembly.open(), assembly.bytes());
        context.tallies[self.source as usize].blocks(&counts.since(reported), *reported_open, open);
        (*reported, *reported_open) = (counts, open);
    }
}

impl BlockShard {
    fn new() -> Self {
        Self {
            assembly: Assembly::new(Limits::default()),
            reported: BlockCounts::default(),
            reported_open: (0, 0),
        }
    }

    fn is_open(&self) -> bool {
        self.assembly.open() > 0
    }
}
