//! The rule model: what a Sigma rule means, after parsing and before compiling.
//!
//! A rule's detection and condition are lowered to one [`Expr`] over [`Test`]s of fields. The naive evaluator
//! walks it as it is; the compiler turns it into a gate and a program.

mod cmdlets;
pub(crate) mod condition;
pub(crate) mod filter;
pub(crate) mod identity;
pub mod load;
pub(crate) mod loaded;
mod logsource;
mod metadata;
pub(crate) mod modifier;
mod never;
pub mod pcre;
pub(crate) mod regex;
pub(crate) mod report;
pub(crate) mod selection;
pub(crate) mod sigma;
mod suggest;
mod tags;
pub(crate) mod value;

use crate::field::{EventKinds, Field};
use crate::pattern::Pattern;

/// A loaded rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's id, a GUID in Sigma. A rule without one gets [`DERIVED_ID_PREFIX`](crate::DERIVED_ID_PREFIX) and a UUID
    /// that follows from its contents. Never empty, and no two rules of a set have the same.
    pub id: String,
    /// The title, for people.
    pub title: String,
    /// informational, low, medium, high or critical; empty if the rule has none.
    pub level: String,
    /// ATT&CK technique ids from the tags, such as `T1021.006`.
    pub attack: Vec<String>,
    /// Name of the file and line at which the rule starts.
    pub origin: Origin,
    /// The events that the rule is about.
    pub events: EventKinds,
    /// When the rule matches.
    pub expr: Expr,
    /// Sigma's `name`, by which filters may refer to the rule; empty if the rule has none.
    pub name: String,
    /// Whether the call-aware view is asked for.
    pub calls: Calls,
    /// Id of the rule whose match makes a call-aware match of this one superfluous; empty if there is none.
    pub base: String,
}

/// Whether a rule is searched in the call-aware view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// No.
    #[default]
    No,
    /// There as well.
    Also,
    /// There and in no other view.
    Only,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the file, as the caller gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// A truth-valued expression over tests of an event's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// True if all parts are; true if there are none.
    And(Vec<Expr>),
    /// True if some part is; false if there are none.
    Or(Vec<Expr>),
    /// True if the part is not.
    Not(Box<Expr>),
    /// A test of a field.
    Test(Test),
}

/// A test of one field, or of all text fields of the event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    /// `None`: a keyword, true if it holds for any text field.
    pub field: Option<Field>,
    /// What is asked of the field.
    pub op: Op,
}

/// What a test asks of a field's value. Every operation but `Exists` is false for an absent field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The whole value matches the pattern; ASCII letters match both cases unless `cased`.
    Text {
        /// The pattern.
        pattern: Pattern,
        /// Letters match their own case only.
        cased: bool,
    },
    /// The regular expression matches somewhere in the value. Flags are part of the pattern, `(?i)…`.
    Regex(String),
    /// The value, a number, compares so with this one.
    Number(Comparison, i64),
    /// The field is there (true) or absent (false).
    Exists(bool),
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Less than.
    Lt,
    /// Less than or equal.
    Lte,
    /// Greater than.
    Gt,
    /// Greater than or equal.
    Gte,
}

impl Comparison {
    /// Compares.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Eq => left == right,
            Self::Lt => left < right,
            Self::Lte => left <= right,
            Self::Gt => left > right,
            Self::Gte => left >= right,
        }
    }
}
