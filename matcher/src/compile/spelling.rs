//! Derives needles from what a pattern says about adjacent units.
//!
//! A spelling is a sequence of positions, each with the narrowed bytes that may occur there, and of gaps where the
//! distance between positions is unknown. Adjacent positions multiply out to a clause: `}` followed by a decimal digit
//! gives ten needles, of which one must occur in the text.

use crate::compile::clause::Clause;

/// Maximum number of needles that one window of positions multiplies out to.
const WINDOW_NEEDLES_MAX: usize = 48;
/// The needle limits with which each window is tried.
const WINDOW_NEEDLES_FEW: [usize; 3] = [1, 12, WINDOW_NEEDLES_MAX];
/// Maximum length of a needle.
const WINDOW_LEN_MAX: usize = 256;
/// Maximum number of positions of one spelling; later ones are ignored.
const PLACES_MAX: usize = 16 * 1024;

/// Positions and gaps from left to right.
#[derive(Debug, Default)]
pub(crate) struct Spelling {
    /// Runs of adjacent positions.
    runs: Vec<Vec<Vec<u8>>>,
    places: usize,
    is_open: bool,
}

impl Spelling {
    /// Adds a position with one of these bytes. Too many of them make a gap.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() || bytes.len() > WINDOW_NEEDLES_MAX || self.places >= PLACES_MAX {
            return self.gap();
        }
        if !self.is_open {
            self.runs.push(Vec::new());
            self.is_open = true;
        }
        self.places += 1;
        if let Some(run) = self.runs.last_mut() {
            run.push(bytes);
        }
    }

    /// Adds a gap: any text may occur between the positions before and after it.
    pub(crate) fn gap(&mut self) {
        self.is_open = false;
    }

    /// Returns the rarest clause of each run; only clauses of one needle if `is_single`.
    pub(crate) fn clauses(&self, is_single: bool) -> Vec<Clause> {
        let sizes = if is_single { &WINDOW_NEEDLES_FEW[..1] } else { &WINDOW_NEEDLES_FEW };
        self.runs.iter().filter_map(|run| rarest(run, sizes)).collect()
    }
}

fn rarest(run: &[Vec<u8>], sizes: &[usize]) -> Option<Clause> {
    let mut best: Option<Clause> = None;
    for start in 0..run.len() {
        // Within a literal, every window is the end of a longer one.
        if start % WINDOW_LEN_MAX != 0 && run[start].len() == 1 && run[start - 1].len() == 1 {
            continue;
        }
        let mut last_end = start;
        for &most in sizes {
            let mut needles = 1;
            let end = start
                + run[start..]
                    .iter()
                    .take(WINDOW_LEN_MAX)
                    .take_while(|place| {
                        needles *= place.len();
                        needles <= most
                    })
                    .count();
            if end > last_end {
                let clause = Clause::new(product(&run[start..end]));
                if best.as_ref().is_none_or(|best| clause.rarer(best).is_lt()) {
                    best = Some(clause);
                }
            }
            last_end = last_end.max(end);
        }
    }
    best
}

fn product(places: &[Vec<u8>]) -> Vec<Box<[u8]>> {
    let mut needles = vec![Vec::with_capacity(places.len())];
    for place in places {
        needles = needles
            .iter()
            .flat_map(|needle: &Vec<u8>| place.iter().map(move |&byte| [needle, &[byte][..]].concat()))
            .collect();
    }
    needles.into_iter().map(Vec::into_boxed_slice).collect()
}
