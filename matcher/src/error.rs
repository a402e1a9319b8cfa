//! Errors and warnings about rules: file, position and construct.

use std::fmt;

/// Maximum number of problems that are listed for one file; others are counted.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// A problem in a rule file: the reason why a rule was rejected, or a warning about a rule that is loaded.
///
/// Displays as `file:line: message`, a form that editors can jump to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Name of the rule file, as the caller gave it.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, from 1, in characters: that of the key of the value in question, or of the list item.
    pub column: usize,
    /// The construct and what is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message())
    }
}

impl RuleError {
    /// Returns the message without the position. Characters of the rule that a terminal would interpret are escaped.
    pub fn message(&self) -> String {
        // Control characters, and those that change the direction of text.
        let is_hidden = |c: char| {
            c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let mut message = String::new();
        for c in self.problem.to_string().chars() {
            if is_hidden(c) {
                message.extend(c.escape_unicode());
            } else {
                message.push(c);
            }
        }
        message
    }
}

impl std::error::Error for RuleError {}

/// The kind of a problem in a rule, with its details.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is not YAML, or uses a feature of YAML that rules do not need.
    #[error("invalid YAML: {0}")]
    Yaml(String),
    /// The file has no document.
    #[error("the file is empty")]
    Empty,
    /// A limit of this crate was exceeded.
    #[error("{what} exceeds the limit of {max}")]
    TooLarge {
        /// The quantity that is too large.
        what: &'static str,
        /// The limit's value.
        max: usize,
    },
    /// A key that a rule needs is absent.
    #[error("`{key}` is missing{}", found.as_ref().map(|found| format!(" (is `{found}` a misspelling?)")).unwrap_or_default())]
    Missing {
        /// The key.
        key: &'static str,
        /// A key in the document that looks like it.
        found: Option<String>,
    },
    /// A key that is ignored but looks like a misspelled known key.
    #[error("unknown key `{key}`{}", did_you_mean(suggestion.as_deref()))]
    Key {
        /// The key.
        key: String,
        /// The key that was probably intended.
        suggestion: Option<String>,
    },
    /// A value is not of the type that Sigma prescribes.
    #[error("`{what}` should be {expected}, found {found}")]
    Form {
        /// The key.
        what: String,
        /// The expected type.
        expected: &'static str,
        /// The value that was found.
        found: String,
    },
    /// An attribute of the rule has a value that the specification does not allow.
    #[error("invalid {what} `{value}`{}; {expected}", did_you_mean(suggestion.as_deref()))]
    Attribute {
        /// The attribute: `status`, `level`, `date`, `tag` and so on.
        what: &'static str,
        /// Its value.
        value: String,
        /// The expected form.
        expected: &'static str,
        /// The value that was probably intended.
        suggestion: Option<String>,
    },
    /// The status of the rule says that it should not be used.
    #[error("the rule has the status `{0}`")]
    Status(String),
    /// The log source does not exist, but looks like one that this sensor reads.
    #[error(
        "unknown log source {found}{}; this sensor reads category ps_script, category ps_module and service powershell",
        did_you_mean(suggestion.as_deref())
    )]
    LogSource {
        /// The attributes of the log source.
        found: String,
        /// The log source that was probably intended.
        suggestion: Option<String>,
    },
    /// The events of the rule do not have this field.
    #[error("unknown field `{field}`{}; {events} have {known}", did_you_mean(suggestion.as_deref()))]
    Field {
        /// The field of the rule.
        field: String,
        /// The rule's events.
        events: &'static str,
        /// The fields that they have.
        known: &'static str,
        /// The field that was probably intended.
        suggestion: Option<String>,
    },
    /// A modifier that does not exist.
    #[error("unknown modifier `{modifier}`{}", did_you_mean(suggestion.as_deref()))]
    UnknownModifier {
        /// The modifier.
        modifier: String,
        /// The modifier that was probably intended.
        suggestion: Option<String>,
    },
    /// A modifier that has no meaning where it is used.
    #[error("modifier `{modifier}` {reason}")]
    Modifier {
        /// The modifier.
        modifier: String,
        /// The reason for the rejection.
        reason: &'static str,
    },
    /// A value that its modifier cannot take.
    #[error("invalid value {value:?}: {reason}")]
    Value {
        /// The value.
        value: String,
        /// The reason for the rejection.
        reason: String,
    },
    /// A regular expression that is invalid, or cannot be matched in linear time.
    #[error("regular expression {pattern:?}, column {column}: {reason}")]
    Regex {
        /// The expression, truncated.
        pattern: String,
        /// Column within the expression, from 1, in characters.
        column: usize,
        /// The construct and the reason for the rejection.
        reason: String,
    },
    /// The condition is invalid, or refers to something that does not exist.
    #[error("condition, column {column}: {reason}{}", did_you_mean(suggestion.as_deref()))]
    Condition {
        /// Column within the condition, from 1, in characters.
        column: usize,
        /// The error.
        reason: String,
        /// The name that was probably intended.
        suggestion: Option<String>,
    },
    /// The condition does not refer to this selection.
    #[error("the condition does not use the selection `{0}`")]
    Unused(String),
    /// A number that the field never has in the events of the rule.
    #[error("{field} is never {value} in {events}")]
    Impossible {
        /// The field.
        field: &'static str,
        /// The number.
        value: i64,
        /// The rule's events.
        events: &'static str,
    },
    /// The rule cannot match any event.
    #[error("the rule can never match: {0}")]
    Never(String),
    /// A kind of Sigma document, or a feature, that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Two rules of the set have the same id.
    #[error("id {id} is already used by the rule at {first}")]
    DuplicateId {
        /// The id.
        id: String,
        /// The position of the first rule with this id, `file:line`.
        first: String,
    },
    /// A filter refers to a rule that reads events outside the filter's log source.
    #[error("the filter does not apply to rule {0}, which reads other events than the filter")]
    FilterLogSource(String),
    /// No rule of the set is affected by the filter.
    #[error("the filter applies to no rule of this set")]
    FilterUnused,
    /// Number of problems beyond the limit, which are not listed.
    #[error("{0} more problems in this file")]
    More(usize),
}

impl Problem {
    /// Returns a stable identifier of the kind of problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "yaml",
            Self::Empty => "empty-file",
            Self::TooLarge { .. } => "too-large",
            Self::Missing { .. } => "missing-key",
            Self::Key { .. } => "unknown-key",
            Self::Form { .. } => "wrong-form",
            Self::Attribute { .. } => "invalid-attribute",
            Self::Status(_) => "status",
            Self::LogSource { .. } => "unknown-log-source",
            Self::Field { .. } => "unknown-field",
            Self::UnknownModifier { .. } => "unknown-modifier",
            Self::Modifier { .. } => "misplaced-modifier",
            Self::Value { .. } => "invalid-value",
            Self::Regex { .. } => "regex",
            Self::Condition { .. } => "condition",
            Self::Unused(_) => "unused-selection",
            Self::Impossible { .. } => "impossible-value",
            Self::Never(_) => "never-matches",
            Self::Unsupported(_) => "unsupported",
            Self::DuplicateId { .. } => "duplicate-id",
            Self::FilterLogSource(_) => "filter-log-source",
            Self::FilterUnused => "filter-unused",
            Self::More(_) => "more",
        }
    }

    /// Returns the part of the rule that is wrong, if it is a single word or value.
    pub fn construct(&self) -> Option<String> {
        Some(match self {
            Self::Missing { key, .. } => (*key).to_owned(),
            Self::Key { key, .. } => key.clone(),
            Self::Form { what, .. } => what.clone(),
            Self::Attribute { value, .. } | Self::Value { value, .. } => value.clone(),
            Self::LogSource { found, .. } => found.clone(),
            Self::Field { field, .. } => field.clone(),
            Self::UnknownModifier { modifier, .. } | Self::Modifier { modifier, .. } => modifier.clone(),
            Self::Regex { pattern, .. } => pattern.clone(),
            Self::Unused(name) => name.clone(),
            Self::Impossible { value, .. } => value.to_string(),
            Self::Status(own) | Self::Unsupported(own) | Self::FilterLogSource(own) => own.clone(),
            Self::DuplicateId { id, .. } => id.clone(),
            Self::Yaml(_)
            | Self::Empty
            | Self::TooLarge { .. }
            | Self::Condition { .. }
            | Self::Never(_)
            | Self::FilterUnused
            | Self::More(_) => return None,
        })
    }

    /// Returns what was probably intended.
    pub fn suggestion(&self) -> Option<&str> {
        match self {
            Self::Missing { key, found: Some(_) } => Some(key),
            Self::Key { suggestion, .. }
            | Self::Attribute { suggestion, .. }
            | Self::LogSource { suggestion, .. }
            | Self::Field { suggestion, .. }
            | Self::UnknownModifier { suggestion, .. }
            | Self::Condition { suggestion, .. } => suggestion.as_deref(),
            _ => None,
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default()
}

/// A position in a rule file; line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A problem with its position, before the file is known.
pub(crate) type Located = (Position, Problem);
