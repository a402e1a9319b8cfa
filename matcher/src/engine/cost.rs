//! What each rule costs: how often its needles let it through, how often it matched, how long it took.
//!
//! Metering is a type parameter of the search, so that a search without it pays nothing.

/// A clock: ticks of any unit, never going back. The crate has none of its own.
pub type Clock = fn() -> u64;

/// Collects costs over any number of events; give it to [`Matcher::find_metered`](crate::Matcher::find_metered).
#[derive(Clone, Debug)]
pub struct CostMeter {
    clock: Clock,
    rules: Vec<RuleCost>,
    gate_ticks: u64,
}

/// What one rule cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCost {
    /// Events for which its program ran.
    pub candidates: u64,
    /// Events that it matched.
    pub matches: u64,
    /// Time of its programs, in ticks of the clock. What rules share is charged to the one that asks first.
    pub ticks: u64,
}

impl CostMeter {
    /// A meter for `rules` rules, all at nothing.
    pub fn new(rules: usize, clock: Clock) -> Self {
        Self { clock, rules: vec![RuleCost::default(); rules], gate_ticks: 0 }
    }

    /// The cost of each rule, by its index in the set.
    pub fn rules(&self) -> &[RuleCost] {
        &self.rules
    }

    /// Time before any rule was looked at, in ticks: narrowing, the gate, and looking up repeats.
    pub fn gate_ticks(&self) -> u64 {
        self.gate_ticks
    }

    /// Time of all programs, in ticks.
    pub fn rule_ticks(&self) -> u64 {
        self.rules.iter().map(|rule| rule.ticks).sum()
    }

    /// The rule's part of [`rule_ticks`](Self::rule_ticks), from 0 to 1; 0 if there is no such rule.
    pub fn share(&self, rule: usize) -> f64 {
        let own = self.rules.get(rule).map_or(0, |cost| cost.ticks);
        own as f64 / self.rule_ticks().max(1) as f64
    }
}

/// What a search tells about its course.
pub(crate) trait Meter {
    fn now(&self) -> u64;
    /// The gate is done.
    fn searched(&mut self, start: u64);
    /// A candidate's program is done.
    fn evaluated(&mut self, rule: u32, is_match: bool, start: u64);
}

/// Measures nothing.
pub(crate) struct NoMeter;

impl Meter for NoMeter {
    fn now(&self) -> u64 {
        0
    }
    fn searched(&mut self, _start: u64) {}
    fn evaluated(&mut self, _rule: u32, _is_match: bool, _start: u64) {}
}

impl Meter for CostMeter {
    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn searched(&mut self, start: u64) {
        self.gate_ticks += self.now().saturating_sub(start);
    }

    fn evaluated(&mut self, rule: u32, is_match: bool, start: u64) {
        let ticks = self.now().saturating_sub(start);
        // A meter made for fewer rules leaves the others out.
        if let Some(cost) = self.rules.get_mut(rule as usize) {
            cost.candidates += 1;
            cost.matches += u64::from(is_match);
            cost.ticks += ticks;
        }
    }
}
