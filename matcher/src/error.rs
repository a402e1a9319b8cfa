//! Why a rule was refused, or is doubtful: the file, the place, and the construct.

use std::fmt;

/// Most problems that are listed for one file; others are counted.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// A problem of one rule file: a reason to refuse a rule, or a doubt about one that is loaded.
///
/// Displays as `file:line: what is wrong`, the form that editors jump to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Name of the rule file, as the caller gave it.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, from 1, in characters: that of the key whose value is meant, or of the item of a list.
    pub column: usize,
    /// The construct, and what is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message())
    }
}

impl RuleError {
    /// Returns the problem without its place. Characters of the rule that a terminal would obey are written as escapes.
    pub fn message(&self) -> String {
        // Controls, and what changes the direction of text.
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

/// What is wrong with a construct of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is not YAML, or uses a part of YAML that rules do not need.
    #[error("invalid YAML: {0}")]
    Yaml(String),
    /// The file has no document.
    #[error("the file is empty")]
    Empty,
    /// A limit of this crate was exceeded.
    #[error("{what} exceeds the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit's value.
        max: usize,
    },
    /// A key that a rule needs is absent.
    #[error("`{key}` is missing{}", found.as_ref().map(|found| format!(" (is `{found}` a misspelling?)")).unwrap_or_default())]
    Missing {
        /// The key.
        key: &'static str,
        /// A key that is there and looks like it.
        found: Option<String>,
    },
    /// A key that nobody reads and that looks like one that would be read.
    #[error("unknown key `{key}`{}", did_you_mean(suggestion.as_deref()))]
    Key {
        /// The key.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value has another form than Sigma gives it.
    #[error("`{what}` should be {expected}, found {found}")]
    Form {
        /// The key.
        what: String,
        /// The form that it should have.
        expected: &'static str,
        /// The value that was found.
        found: String,
    },
    /// An attribute that describes the rule has a value that the specification does not allow.
    #[error("invalid {what} `{value}`{}; {expected}", did_you_mean(suggestion.as_deref()))]
    Attribute {
        /// The attribute: `status`, `level`, `date`, `tag` and so on.
        what: &'static str,
        /// Its value.
        value: String,
        /// The form that it should have.
        expected: &'static str,
        /// The value that was probably meant.
        suggestion: Option<String>,
    },
    /// The rule has a status that says that it should not be used.
    #[error("the rule has the status `{0}`")]
    Status(String),
    /// The log source is not one that exists, but looks like one of this sensor's.
    #[error(
        "unknown log source {found}{}; this sensor reads category ps_script, category ps_module and service powershell",
        did_you_mean(suggestion.as_deref())
    )]
    LogSource {
        /// The attributes of the log source.
        found: String,
        /// The log source that was probably meant.
        suggestion: Option<String>,
    },
    /// A field that the rule's events do not have.
    #[error("unknown field `{field}`{}; {events} have {known}", did_you_mean(suggestion.as_deref()))]
    Field {
        /// The field of the rule.
        field: String,
        /// The rule's events.
        events: &'static str,
        /// The fields that they have.
        known: &'static str,
        /// The field that was probably meant.
        suggestion: Option<String>,
    },
    /// A modifier that does not exist.
    #[error("unknown modifier `{modifier}`{}", did_you_mean(suggestion.as_deref()))]
    UnknownModifier {
        /// The modifier.
        modifier: String,
        /// The modifier that was probably meant.
        suggestion: Option<String>,
    },
    /// A modifier that has no meaning in its place.
    #[error("modifier `{modifier}` {reason}")]
    Modifier {
        /// The modifier.
        modifier: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A value that its modifier cannot take.
    #[error("invalid value {value:?}: {reason}")]
    Value {
        /// The value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// A regular expression that is not valid, or has no equal in linear time.
    #[error("regular expression {pattern:?}, column {column}: {reason}")]
    Regex {
        /// The expression, or its beginning.
        pattern: String,
        /// Column within the expression, from 1, in characters.
        column: usize,
        /// The construct, and why it is refused.
        reason: String,
    },
    /// The condition does not parse, or names what is not there.
    #[error("condition, column {column}: {reason}{}", did_you_mean(suggestion.as_deref()))]
    Condition {
        /// Column within the condition, from 1, in characters.
        column: usize,
        /// What is wrong.
        reason: String,
        /// The name that was probably meant.
        suggestion: Option<String>,
    },
    /// A selection to which no condition refers.
    #[error("the condition does not use the selection `{0}`")]
    Unused(String),
    /// A number that the field never has in the rule's events.
    #[error("{field} is never {value} in {events}")]
    Impossible {
        /// The field.
        field: &'static str,
        /// The number.
        value: i64,
        /// The rule's events.
        events: &'static str,
    },
    /// The rule matches no event at all.
    #[error("the rule can never match: {0}")]
    Never(String),
    /// A kind of Sigma document, or a part of one, that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Two rules of one set have the same id.
    #[error("id {id} is already used by the rule at {first}")]
    DuplicateId {
        /// The id.
        id: String,
        /// The place of the first rule with this id, `file:line`.
        first: String,
    },
    /// A filter names a rule that reads events which the filter is not about.
    #[error("the filter does not apply to rule {0}, which reads other events than the filter")]
    FilterLogSource(String),
    /// A filter names no rule of the set.
    #[error("the filter applies to no rule of this set")]
    FilterUnused,
    /// So many problems that the others are only counted.
    #[error("{0} more problems in this file")]
    More(usize),
}

impl Problem {
    /// Returns the kind of problem, as a stable word for programs.
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

    /// Returns the text of the rule that is meant, if it is a single word or value.
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

    /// Returns what was probably meant instead.
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

/// A place in a rule file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A problem and its place, before the file is known.
pub(crate) type Located = (Position, Problem);
