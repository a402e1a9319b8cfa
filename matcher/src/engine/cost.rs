//! Costs per rule: how often its needles made it a candidate, how often it matched, and how long it took.
//!
//! The meter is a type parameter of the search, so that a search without one pays nothing.

/// A clock that returns ticks of any unit and never goes back. The crate does not read a clock itself.
pub type Clock = fn() -> u64;

/// Collects costs over any number of events; pass it to [`Matcher::find_metered`](crate::Matcher::find_metered).
#[derive(Clone, Debug)]
pub struct CostMeter {
    clock: Clock,
    rules: Vec<RuleCost>,
    gate_ticks: u64,
}

/// The cost of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCost {
    /// Events for which its program ran.
    pub candidates: u64,
    /// Events that it matched.
    pub matches: u64,
    /// Time of its programs, in ticks of the clock. The cost of shared checks goes to the first rule that needs them.
    pub ticks: u64,
}

impl CostMeter {
    /// Creates a meter for this many rules, with all costs 0.
    pub fn new(rules: usize, clock: Clock) -> Self {
        Self { clock, rules: vec![RuleCost::default(); rules], gate_ticks: 0 }
    }

    /// Returns the cost of each rule, by its index in the set.
    pub fn rules(&self) -> &[RuleCost] {
        &self.rules
    }

    /// Returns the time before rules are evaluated, in ticks: narrowing, the gate, and looking up repeats.
    pub fn gate_ticks(&self) -> u64 {
        self.gate_ticks
    }

    /// Time of all programs, in ticks.
    pub fn rule_ticks(&self) -> u64 {
        self.rules.iter().map(|rule| rule.ticks).sum()
    }

    /// Returns the rule's share of [`rule_ticks`](Self::rule_ticks), from 0 to 1; 0 if there is no such rule.
    pub fn share(&self, rule: usize) -> f64 {
        let own = self.rules.get(rule).map_or(0, |cost| cost.ticks);
        own as f64 / self.rule_ticks().max(1) as f64
    }
}

/// Receives the times of a search.
pub(crate) trait Meter {
    fn now(&self) -> u64;
    /// Records that the gate is done.
    fn searched(&mut self, start: u64);
    /// Records that a candidate's program is done.
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
        // A meter made for fewer rules ignores the others.
        if let Some(cost) = self.rules.get_mut(rule as usize) {
            cost.candidates += 1;
            cost.matches += u64::from(is_match);
            cost.ticks += ticks;
        }
    }
}
