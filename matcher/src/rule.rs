//! The rule model: the meaning of a Sigma rule after parsing and before compiling.
//!
//! A rule's detection and condition are lowered to one [`Expr`] over [`Test`]s of fields. The naive evaluator traverses
//! it; the compiler turns it into a gate and a program.

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
    /// The rule's id, a UUID in Sigma. A rule without one gets [`DERIVED_ID_PREFIX`](crate::DERIVED_ID_PREFIX) and a
    /// UUID derived from its contents. Never empty, and unique within a set.
    pub id: String,
    /// The title.
    pub title: String,
    /// `informational`, `low`, `medium`, `high` or `critical`; empty if the rule has none.
    pub level: String,
    /// ATT&CK technique ids from the tags, such as `T1021.006`.
    pub attack: Vec<String>,
    /// Name of the file and line at which the rule starts.
    pub origin: Origin,
    /// The events to which the rule applies.
    pub events: EventKinds,
    /// When the rule matches.
    pub expr: Expr,
    /// Sigma's `name`, by which filters can refer to the rule; empty if the rule has none.
    pub name: String,
    /// Use of the call-aware view.
    pub calls: Calls,
    /// Id of the rule whose match makes a call-aware match of this one redundant; empty if there is none.
    pub base: String,
}

/// Use of the call-aware view by a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// The rule is not searched in it.
    #[default]
    No,
    /// The rule is searched in it as well.
    Also,
    /// The rule is searched in no other view.
    Only,
}

/// The position of a rule.
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
    /// True if all parts are true, or if there are none.
    And(Vec<Expr>),
    /// True if some part is true; false if there are none.
    Or(Vec<Expr>),
    /// True if the part is false.
    Not(Box<Expr>),
    /// A test of a field.
    Test(Test),
}

/// A test of one field, or of all text fields of the event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    /// The field; `None` for a keyword, which holds if any text field satisfies it.
    pub field: Option<Field>,
    /// The operation.
    pub op: Op,
}

/// An operation on the value of a field. All operations except `Exists` are false for an absent field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The whole value matches the pattern, ignoring the case of ASCII letters unless `cased`.
    Text {
        /// The pattern.
        pattern: Pattern,
        /// True if the match is case-sensitive.
        cased: bool,
    },
    /// The regular expression matches somewhere in the value. Flags are part of the expression, as in `(?i)…`.
    Regex(String),
    /// The value, a number, compares with this one.
    Number(Comparison, i64),
    /// The field is present (true) or absent (false).
    Exists(bool),
}

/// A comparison of numbers.
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
    /// Compares two numbers.
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
