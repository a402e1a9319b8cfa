//! Index of the positions inside the literals of rules, by their surroundings.
//!
//! Undoing obfuscation at a position of a text gives a new match only if that position is then inside a literal. In
//! most cases, two units on either side show that it is not: a bit set, addressed by a hash, contains the surroundings
//! of all positions in literals. Positions that pass are compared with the literals in question.

use super::reader::Reader;
use crate::pattern::Part;
use crate::scan::narrow::narrow_unit;
use crate::view::chars::BLANK;
use std::collections::HashMap;

/// In place of a unit: the literal begins or ends here.
const EDGE: u8 = 1;
/// In place of a unit: any unit.
pub(super) const ANY: u8 = 2;

/// Bits per position of a literal, several of which are set.
const BITS_PER_PLACE: usize = 64;
/// Maximum number of bits: 256 KiB.
const BITS_MAX: usize = 1 << 21;
/// Minimum number of bits.
const BITS_MIN: usize = 1 << 12;
/// Maximum number of positions in all literals; with more, every trigger counts.
const PLACES_MAX: usize = 1 << 22;

/// Steps to compare the surroundings of a position, without the literal's units.
const PLACE_STEPS: usize = 12;

/// Two units before or after a position, in narrowed form, the nearer one first; [`ANY`] for unknown ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) near: u8,
    pub(super) far: u8,
}

/// The text between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// Nothing: they are adjacent.
    Nothing,
    /// Nothing, and the unit after it was made, so that it may be a literal by itself.
    Made,
    /// One blank. It may be the first or the last unit of the literal if so stated; otherwise the text as recorded has
    /// a blank there itself, and such a literal occurs in it unchanged.
    Blank { first: bool, last: bool },
}

impl Between {
    fn table(self) -> usize {
        usize::from(self.is_blank())
    }

    fn is_blank(self) -> bool {
        matches!(self, Self::Blank { .. })
    }
}

/// A literal in narrowed form.
#[derive(Debug)]
pub(super) struct Literal {
    units: Vec<u8>,
    /// True if it is in a gate, or the name of a cmdlet: then it counts even for rules that are not candidates.
    is_gate: bool,
    /// Indices of the rules that contain it.
    rules: Vec<u32>,
}

/// Collects literals.
#[derive(Debug, Default)]
pub(super) struct LiteralSet {
    list: Vec<Literal>,
    numbers: HashMap<Vec<u8>, usize>,
    places: usize,
}

/// The surroundings of all positions in literals.
#[derive(Debug)]
pub(super) struct LiteralIndex {
    literals: Vec<Literal>,
    /// For each unit, those that follow it in a literal, directly or after a blank. Tested first.
    pairs: Vec<u128>,
    bits: Vec<u64>,
    /// Positions by key, which consists of the nearer units: the literal, and the position in it.
    places: Vec<(u32, u32, u32)>,
    /// True if any literal contains a blank.
    pub(super) blanks: bool,
    /// True if there are too many literals to decide.
    all: bool,
}

impl Side {
    /// Returns the forms to look up: the literal continues, or ends after the nearer unit, or before it.
    fn at_edges(self, may_end: bool) -> impl Iterator<Item = Self> + Clone {
        let ends_here = may_end.then_some(Self { near: EDGE, far: EDGE });
        [self, Self { far: EDGE, ..self }].into_iter().chain(ends_here)
    }
}

impl Literal {
    /// Returns true if it counts for the rules in `candidates`; `None` stands for all rules.
    fn applies_to<C: Iterator<Item = u32>>(
        &self,
        candidates: Option<C>,
        can_afford: &impl Fn(usize) -> bool,
    ) -> bool {
        let has = |rule| !can_afford(2 + self.rules.len() / 4) || self.rules.contains(&rule);
        self.is_gate || candidates.is_none_or(|mut rules| rules.any(has))
    }
}

impl LiteralSet {
    /// Adds a literal of a rule, or one that any rule may need.
    pub(super) fn push(&mut self, literal: &[u8], rule: Option<u32>) {
        let number = *self.numbers.entry(literal.to_vec()).or_insert(self.list.len());
        if number == self.list.len() {
            self.places += literal.len();
            self.list.push(Literal { units: literal.to_vec(), is_gate: false, rules: Vec::new() });
        }
        let literal = &mut self.list[number];
        match rule {
            None => literal.is_gate = true,
            Some(rule) if literal.rules.last() != Some(&rule) => literal.rules.push(rule),
            Some(_) => {}
        }
    }

    /// Adds the runs of units in a pattern of a rule.
    pub(super) fn push_pattern(&mut self, parts: &[Part], rule: u32) {
        for run in parts.split(|part| !matches!(part, Part::Unit(_))) {
            let unit = |part: &Part| if let Part::Unit(unit) = part { narrow_unit(*unit) } else { 0 };
            let literal: Vec<u8> = run.iter().map(unit).collect();
            if !literal.is_empty() {
                self.push(&literal, Some(rule));
            }
        }
    }
}

impl LiteralIndex {
    pub(super) fn new(literals: LiteralSet) -> Self {
        let all = literals.places > PLACES_MAX;
        let bits = (literals.places * BITS_PER_PLACE).next_power_of_two().clamp(BITS_MIN, BITS_MAX);
        let mut index = Self {
            literals: Vec::new(),
            pairs: vec![0; 256],
            bits: vec![0; bits / 64],
            places: Vec::new(),
            blanks: all,
            all,
        };
        if !all {
            for (number, literal) in (0u32..).zip(&literals.list) {
                index.add(number, &literal.units);
            }
            index.places.sort_unstable();
            index.literals = literals.list;
        }
        index
    }

    fn add(&mut self, number: u32, literal: &[u8]) {
        let unit = |at: Option<usize>| at.and_then(|at| literal.get(at)).copied().unwrap_or(EDGE);
        let side = |near: Option<usize>, far: Option<usize>| Side { near: unit(near), far: unit(far) };
        // A literal of one unit has a position as well: before it.
        for at in (1..literal.len()).chain((literal.len() == 1).then_some(0)) {
            let before = side(at.checked_sub(1), at.checked_sub(2));
            self.insert(Between::Nothing, before, side(Some(at), Some(at + 1)), (number, at as u32));
        }
        let blank = Between::Blank { first: true, last: true };
        for at in (0..literal.len()).filter(|at| u16::from(literal[*at]) == BLANK) {
            self.blanks = true;
            let before = side(at.checked_sub(1), at.checked_sub(2));
            self.insert(blank, before, side(Some(at + 1), Some(at + 2)), (number, at as u32));
        }
    }

    fn insert(&mut self, between: Between, before: Side, behind: Side, (literal, at): (u32, u32)) {
        if before.near != EDGE && behind.near != EDGE {
            let row = usize::from(before.near & 0x7F) + 128 * between.table();
            self.pairs[row] |= 1 << (behind.near & 0x7F);
        }
        let forms = |side: Side| [side, Side { far: ANY, ..side }];
        for before in forms(before) {
            for behind in forms(behind) {
                let (word, bit) = self.bit(between, before, behind);
                self.bits[word] |= bit;
            }
        }
        self.places.push((key(between, before, behind), literal, at));
    }

    /// Returns true if some literal may have a blank between these ASCII units.
    pub(super) fn may_hold_blank(&self, before: u16, behind: u16) -> bool {
        let row = usize::from(narrow_unit(before) & 0x7F) + 128;
        self.all || self.pairs[row] >> (narrow_unit(behind) & 0x7F) & 1 != 0
    }

    /// Returns true if these ASCII units may be adjacent in some literal.
    pub(super) fn may_touch(&self, before: u16, behind: u16) -> bool {
        self.all
            || self.pairs[usize::from(narrow_unit(before) & 0x7F)] >> (narrow_unit(behind) & 0x7F) & 1 != 0
    }

    /// Returns true if some literal that counts for the candidates contains a position with these surroundings, and
    /// agrees with the text that `readers` read from there in either direction. Also returns true if `can_afford`
    /// refuses the work.
    pub(super) fn contains<C: Iterator<Item = u32>>(
        &self,
        between: Between,
        [before, behind]: [Side; 2],
        readers: &[Reader<'_>; 2],
        candidates: &impl Fn() -> Option<C>,
        can_afford: &impl Fn(usize) -> bool,
    ) -> bool {
        if self.all || before.near == ANY || behind.near == ANY {
            return true;
        }
        let (first, last) = match between {
            Between::Nothing => (false, false),
            // Only a literal of one unit begins after the position.
            Between::Made => (true, false),
            Between::Blank { first, last } => (first, last),
        };
        let row = usize::from(before.near & 0x7F) + 128 * between.table();
        if !first && !last && self.pairs[row] >> (behind.near & 0x7F) & 1 == 0 {
            return false;
        }
        self.forms(between, [before, behind], (first, last)).any(|(before, behind)| {
            self.is_any_there(between, [before, behind], readers, candidates, can_afford)
        })
    }

    /// Returns true if some literal may have a blank between these.
    pub(super) fn may_stand_around_blank(&self, [before, behind]: [Side; 2]) -> bool {
        let between = Between::Blank { first: false, last: false };
        self.all || self.forms(between, [before, behind], (false, false)).next().is_some()
    }

    /// Returns the forms of the two sides that some literal may have.
    fn forms(
        &self,
        between: Between,
        [before, behind]: [Side; 2],
        (first, last): (bool, bool),
    ) -> impl Iterator<Item = (Side, Side)> {
        let pairs = before
            .at_edges(first)
            .flat_map(move |before| behind.at_edges(last).map(move |behind| (before, behind)));
        pairs.filter(move |(before, behind)| {
            let (word, bit) = self.bit(between, *before, *behind);
            self.bits[word] & bit != 0
        })
    }

    #[cold]
    fn is_any_there<C: Iterator<Item = u32>>(
        &self,
        between: Between,
        [before, behind]: [Side; 2],
        readers: &[Reader<'_>; 2],
        candidates: &impl Fn() -> Option<C>,
        can_afford: &impl Fn(usize) -> bool,
    ) -> bool {
        let key = key(between, before, behind);
        let from = self.places.partition_point(|(other, ..)| *other < key);
        let own = self.places[from..].iter().take_while(|(other, ..)| *other == key);
        own.into_iter().any(|&(_, literal, at)| {
            let literal = &self.literals[literal as usize];
            if !can_afford(PLACE_STEPS + literal.units.len()) {
                return true;
            }
            let (head, tail) = literal.units.split_at(at as usize);
            let tail = &tail[usize::from(between.is_blank())..];
            readers[0].clone().reads(head.iter().rev().copied())
                && readers[1].clone().reads(tail.iter().copied())
                && literal.applies_to(candidates(), can_afford)
        })
    }

    fn bit(&self, between: Between, before: Side, behind: Side) -> (usize, u64) {
        let key = u32::from_le_bytes([before.far, before.near, behind.near, behind.far]);
        let key = u64::from(key) << 1 | between.table() as u64;
        let hash = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        ((hash / 64) & (self.bits.len() - 1), 1 << (hash % 64))
    }
}

fn key(between: Between, before: Side, behind: Side) -> u32 {
    u32::from_le_bytes([behind.near, before.near, between.table() as u8, 0])
}
