//! Why a rule was refused: the file, the line, and the construct.

use std::fmt;

/// One reason to refuse one rule, or one document of a rule file.
///
/// Displays as `file:line: what is wrong`, the form that editors jump to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Name of the rule file, as the caller gave it.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// The construct, and what is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

impl std::error::Error for RuleError {}

/// What is wrong with a construct of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is not YAML, or uses a part of YAML that rules do not need.
    #[error("not readable as YAML: {0}")]
    Yaml(String),
    /// A limit of this crate was passed.
    #[error("{what} exceeds the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit's value.
        max: usize,
    },
    /// A key that a rule needs is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A value has another form than Sigma gives it.
    #[error("`{what}` should be {expected}, found {found}")]
    Form {
        /// The key.
        what: String,
        /// The form that it should have.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// The rule asks for events that this sensor does not read.
    #[error(
        "log source {0} is not read by this sensor (it reads ps_script, ps_module and service powershell)"
    )]
    LogSource(String),
    /// A field that the event does not have.
    #[error("field `{field}` is unknown; known are {known}")]
    Field {
        /// The field of the rule.
        field: String,
        /// The fields that the rule's events have.
        known: &'static str,
    },
    /// A modifier that is unknown, or stands where it has no meaning.
    #[error("modifier `{modifier}`: {reason}")]
    Modifier {
        /// The modifier.
        modifier: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A value that its modifier cannot take.
    #[error("value {value:?}: {reason}")]
    Value {
        /// The value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// The condition does not parse, or names what is not there.
    #[error("condition at column {column}: {reason}")]
    Condition {
        /// Column within the condition, from 1, in characters.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A kind of Sigma document, or a part of one, that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Two rules of one set have the same id.
    #[error("id {id} is already loaded from {first}")]
    DuplicateId {
        /// The id.
        id: String,
        /// Where the first rule of this id stands, `file:line`.
        first: String,
    },
    /// A filter cannot be applied to a rule that it names.
    #[error("filter names rule {0}, which reads other events than the filter")]
    FilterLogSource(String),
}

/// A problem and its line, before the file is known.
pub(crate) type Located = (usize, Problem);
