//! Keys of selections, `Field|modifier|…`: checks the modifiers, their order, and their combination.
//!
//! Source: Sigma specification 2.1, appendix "Modifiers". Modifiers apply in the order in which they are written. A
//! modifier that has no meaning for these events is rejected by name.

use crate::error::{Position, Problem};
use crate::field::{EventKind, EventKinds, Field};
use crate::rule::Comparison;
use crate::rule::pcre::Options;
use crate::rule::report::Report;

/// The known modifiers, for suggestions.
const KNOWN: [&str; 27] = [
    "contains",
    "startswith",
    "endswith",
    "all",
    "cased",
    "neq",
    "windash",
    "exists",
    "re",
    "i",
    "ignorecase",
    "m",
    "multiline",
    "s",
    "dotall",
    "wide",
    "utf16le",
    "utf16be",
    "utf16",
    "base64",
    "base64offset",
    "lt",
    "lte",
    "gt",
    "gte",
    "cidr",
    "fieldref",
];

const SCRIPT_FIELDS: [&str; 6] =
    ["ScriptBlockText", "ScriptBlockId", "Path", "MessageNumber", "MessageTotal", "EventID"];
const MODULE_FIELDS: [&str; 4] = ["ContextInfo", "UserData", "Payload", "EventID"];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Anchor {
    #[default]
    Whole,
    Contains,
    StartsWith,
    EndsWith,
}

/// A modifier that derives other values from a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Every spelling of the dashes.
    Windash,
    Base64 {
        /// The encoding applied before; `None` for UTF-8.
        wide: Option<Wide>,
        /// True for all three offsets in a group of Base64 digits.
        any_offset: bool,
    },
}

/// A UTF-16 encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wide {
    LittleEndian,
    BigEndian,
    /// Little-endian with a byte order mark.
    Marked,
}

/// A parsed key.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate modifier")]
pub(crate) struct Key {
    pub(crate) field: Option<Field>,
    pub(crate) events: EventKinds,
    pub(crate) anchor: Anchor,
    pub(crate) steps: Vec<Step>,
    pub(crate) all: bool,
    pub(crate) cased: bool,
    pub(crate) negated: bool,
    pub(crate) exists: bool,
    pub(crate) compare: Option<Comparison>,
    /// `Some` for `re`, with its flags.
    pub(crate) regex: Option<Options>,
    /// A UTF-16 encoding that Base64 has to follow.
    wide: Option<Wide>,
}

/// The reason why a modifier is rejected.
enum Refusal {
    Unknown,
    Reason(&'static str),
}

impl Key {
    /// Parses `Field|modifier|…`; an empty field name means keywords. Returns `None` if it is invalid; the error has
    /// been reported.
    pub(crate) fn parse(
        text: &str,
        at: Position,
        events: EventKinds,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mark = report.mark();
        let mut parts = text.split('|');
        let name = parts.next().unwrap_or_default();
        let mut key = Self { field: field(name, at, events, report), events, ..Self::default() };
        for modifier in parts {
            match key.add(modifier).and_then(|()| key.check().map_err(Refusal::Reason)) {
                Ok(()) => {}
                Err(Refusal::Unknown) => {
                    let suggestion = report.nearest(modifier, KNOWN).map(str::to_owned);
                    let modifier = modifier.chars().take(60).collect();
                    report.error(at, Problem::UnknownModifier { modifier, suggestion });
                }
                Err(Refusal::Reason(reason)) => {
                    report.error(at, Problem::Modifier { modifier: modifier.into(), reason });
                }
            }
        }
        if key.wide.is_some() {
            let reason = "must be followed directly by base64 or base64offset";
            report.error(at, Problem::Modifier { modifier: "wide".into(), reason });
        }
        (!report.failed_since(mark)).then_some(key)
    }

    fn add(&mut self, modifier: &str) -> Result<(), Refusal> {
        let flag = match modifier {
            "all" => Some(&mut self.all),
            "cased" => Some(&mut self.cased),
            "neq" => Some(&mut self.negated),
            "exists" => Some(&mut self.exists),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            return Ok(());
        }
        let own = match modifier {
            "contains" => self.set_anchor(Anchor::Contains),
            "startswith" => self.set_anchor(Anchor::StartsWith),
            "endswith" => self.set_anchor(Anchor::EndsWith),
            "windash" => self.add_windash(),
            "re" if self.regex.is_none() => {
                self.regex = Some(Options::default());
                Ok(())
            }
            "re" => Err("is given twice"),
            "i" | "ignorecase" => self.add_flag(|options| &mut options.caseless),
            "m" | "multiline" => self.add_flag(|options| &mut options.multiline),
            "s" | "dotall" => self.add_flag(|options| &mut options.dotall),
            "wide" | "utf16le" => self.set_wide(Wide::LittleEndian),
            "utf16be" => self.set_wide(Wide::BigEndian),
            "utf16" => self.set_wide(Wide::Marked),
            "base64" => self.add_base64(false),
            "base64offset" => self.add_base64(true),
            "lt" => self.set_comparison(Comparison::Lt),
            "lte" => self.set_comparison(Comparison::Lte),
            "gt" => self.set_comparison(Comparison::Gt),
            "gte" => self.set_comparison(Comparison::Gte),
            "cidr" => Err("has no meaning here: these events have no address fields"),
            "fieldref" | "expand" | "minute" | "hour" | "day" | "week" | "month" | "year" => {
                Err("is not supported")
            }
            _ => return Err(Refusal::Unknown),
        };
        own.map_err(Refusal::Reason)
    }

    fn set_anchor(&mut self, anchor: Anchor) -> Result<(), &'static str> {
        if self.anchor != Anchor::Whole {
            return Err("cannot be combined with contains, startswith or endswith");
        }
        self.anchor = anchor;
        Ok(())
    }

    fn add_flag(&mut self, flag: impl Fn(&mut Options) -> &mut bool) -> Result<(), &'static str> {
        *flag(self.regex.as_mut().ok_or("is a flag of `re` and must follow it")?) = true;
        Ok(())
    }

    fn add_windash(&mut self) -> Result<(), &'static str> {
        if self.wide.is_some() || !self.steps.is_empty() {
            return Err("must be written before other modifiers that change the value, and once");
        }
        self.steps.push(Step::Windash);
        Ok(())
    }

    fn set_wide(&mut self, wide: Wide) -> Result<(), &'static str> {
        if self.steps.iter().any(|step| *step != Step::Windash) || self.wide.is_some() {
            return Err("must not follow another encoding");
        }
        self.before_anchor()?;
        self.wide = Some(wide);
        Ok(())
    }

    fn add_base64(&mut self, any_offset: bool) -> Result<(), &'static str> {
        self.before_anchor()?;
        if self.steps.len() == STEPS_MAX {
            return Err("exceeds the maximum number of encodings");
        }
        self.steps.push(Step::Base64 { wide: self.wide.take(), any_offset });
        Ok(())
    }

    fn before_anchor(&self) -> Result<(), &'static str> {
        if self.anchor == Anchor::Whole {
            return Ok(());
        }
        Err("must be written before contains, startswith and endswith, whose wildcards cannot be encoded")
    }

    fn set_comparison(&mut self, comparison: Comparison) -> Result<(), &'static str> {
        if self.compare.is_some() {
            return Err("cannot be combined with another comparison");
        }
        self.compare = Some(comparison);
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        let textual =
            self.anchor != Anchor::Whole || !self.steps.is_empty() || self.wide.is_some() || self.cased;
        let number = self.field.is_some_and(Field::is_number);
        let kinds = usize::from(textual)
            + usize::from(self.regex.is_some())
            + usize::from(self.exists)
            + usize::from(self.compare.is_some());
        if kinds > 1 {
            return Err("cannot be combined with the modifiers before it");
        }
        if number && (textual || self.regex.is_some()) {
            return Err("has no meaning on a number");
        }
        if !number && self.compare.is_some() {
            return Err("compares numbers; this field is text");
        }
        if self.exists && self.field.is_none() {
            return Err("needs a field");
        }
        Ok(())
    }
}

/// Maximum number of steps of a key: `windash` and two encodings.
const STEPS_MAX: usize = 3;

/// Returns the field of this name; `None` for keywords. A field that none of the rule's events has is an error, because
/// the rule could never match and nobody would notice.
fn field(name: &str, at: Position, events: EventKinds, report: &mut Report<'_>) -> Option<Field> {
    if name.is_empty() {
        return None;
    }
    let found = Field::from_name(name).filter(|field| !field.kinds().and(events).is_empty());
    if found.is_some() {
        return found;
    }
    let of_scripts: &[&str] = if events.contains(EventKind::ScriptBlock) { &SCRIPT_FIELDS } else { &[] };
    let of_modules: &[&str] = if events.contains(EventKind::Module) { &MODULE_FIELDS } else { &[] };
    let meant = report.nearest(name, of_scripts.iter().chain(of_modules).copied());
    let problem = Problem::Field {
        field: name.chars().take(60).collect(),
        events: shown(events),
        known: known(events),
        suggestion: meant.map(str::to_owned),
    };
    report.error(at, problem);
    // Continues with the field that was probably intended, or a text field, to check the modifiers.
    meant.and_then(Field::from_name).or(Some(Field::ScriptBlockText))
}

/// Describes events in a message.
pub(crate) fn shown(events: EventKinds) -> &'static str {
    match (events.contains(EventKind::ScriptBlock), events.contains(EventKind::Module)) {
        (true, false) => "events of ps_script (4104)",
        (false, true) => "events of ps_module (4103)",
        _ => "events of service powershell (4103, 4104)",
    }
}

/// Lists their fields in a message.
fn known(events: EventKinds) -> &'static str {
    match (events.contains(EventKind::ScriptBlock), events.contains(EventKind::Module)) {
        (true, false) => "ScriptBlockText, ScriptBlockId, Path, MessageNumber, MessageTotal and EventID",
        (false, true) => "ContextInfo, UserData, Payload and EventID",
        _ => {
            "ScriptBlockText, ScriptBlockId, Path, MessageNumber, MessageTotal (4104), ContextInfo, UserData, Payload (4103) and EventID"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Key;
    use crate::error::Position;
    use crate::field::EventKinds;
    use crate::rule::report::Report;
    use etwsieve_budget::Budget;

    #[test]
    fn modifiers_are_rejected_by_name() {
        let rows = [
            ("ScriptBlockText|wide", "followed directly"),
            ("ScriptBlockText|wide|contains", "followed directly"),
            ("ScriptBlockText|contains|startswith", "modifier `startswith`"),
            ("ScriptBlockText|contains|base64", "before contains"),
            ("ScriptBlockText|startswith|utf16|base64offset", "before contains"),
            ("ScriptBlockText|base64|wide|base64", "follow another encoding"),
            ("ScriptBlockText|base64|windash", "before other modifiers"),
            ("ScriptBlockText|wide|windash|base64", "before other modifiers"),
            ("ScriptBlockText|i", "flag of `re`"),
            ("ScriptBlockText|cidr", "cidr"),
            ("ScriptBlockText|nonsense", "unknown modifier `nonsense`"),
            ("ScriptBlockText|contain", "(did you mean `contains`?)"),
            ("ScriptBlockText|base64ofset|contains", "(did you mean `base64offset`?)"),
            ("ScriptBlockText|gt", "number"),
            ("MessageNumber|contains", "number"),
            ("MessageNumber|lt|gt", "another comparison"),
            ("ScriptBlockText|re|contains", "modifier `contains`"),
            ("CommandLine", "unknown field `CommandLine`"),
            ("scriptblocktext|contains", "(did you mean `ScriptBlockText`?)"),
            ("Payloads", "(did you mean `Payload`?)"),
        ];
        for (key, word) in rows {
            let mut report = Report::new(Budget::new(1 << 20, 1 << 20));
            assert!(
                Key::parse(key, Position { line: 1, column: 1 }, EventKinds::ALL, &mut report).is_none(),
                "{key}"
            );
            let shown: Vec<_> = report.errors.iter().map(|(_, problem)| problem.to_string()).collect();
            assert!(shown.iter().any(|error| error.contains(word)), "{key}: {shown:?}");
        }
    }

    #[test]
    fn every_error_in_a_key_is_reported() {
        let mut report = Report::new(Budget::new(1 << 20, 1 << 20));
        let at = Position { line: 1, column: 1 };
        assert!(Key::parse("Paht|contain|al", at, EventKinds::ALL, &mut report).is_none());
        let suggestions: Vec<_> = report.errors.iter().map(|(_, problem)| problem.suggestion()).collect();
        assert_eq!(suggestions, [Some("Path"), Some("contains"), Some("all")]);
    }
}
