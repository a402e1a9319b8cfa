//! A selection's key, `Field|modifier|…`, and what it makes of the values beside it.
//!
//! Source: Sigma specification 2.1, appendix "Modifiers". What has no meaning on these events is refused by name.

use crate::error::{Located, Problem};
use crate::field::{EventKinds, Field};
use crate::pattern::Pattern;
use crate::rule::{Comparison, Expr, Op, Test};
use crate::yaml::{Node, Value};

/// Longest value of a rule, in bytes.
pub(crate) const VALUE_LEN_MAX: usize = 16 * 1024;
/// Most dashes in one `windash` value: each may be written in five ways.
pub(crate) const WINDASH_DASHES_MAX: usize = 4;
/// Largest compiled form of a regular expression, in bytes, and of its lazy automaton's cache.
pub(crate) const REGEX_SIZE_MAX: usize = 1 << 20;

/// The dashes that Windows programs and PowerShell take for one another before an option.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Whole,
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    None,
    /// UTF-16 with the byte order given (`true`: little-endian), still to be encoded in Base64.
    Wide(bool),
    Base64 {
        wide: Option<bool>,
        any_offset: bool,
    },
}

/// A parsed key.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a modifier of its own")]
pub(crate) struct Key {
    field: Option<Field>,
    place: Place,
    encoding: Encoding,
    all: bool,
    cased: bool,
    windash: bool,
    exists: bool,
    compare: Option<Comparison>,
    /// `Some` for `re`, with its flags.
    regex: Option<String>,
}

impl Key {
    /// Parses `Field|modifier|…`; an empty field name stands for keywords.
    pub(crate) fn parse(text: &str, line: usize, events: EventKinds) -> Result<Self, Located> {
        let mut parts = text.split('|');
        let name = parts.next().unwrap_or_default();
        let field = if name.is_empty() {
            None
        } else {
            // A field that none of the rule's events has would never match, and nobody would notice.
            let field = Field::from_name(name).filter(|field| !field.kinds().and(events).is_empty());
            Some(field.ok_or_else(|| (line, Problem::Field { field: name.into(), known: Field::NAMES }))?)
        };
        let mut key = Self {
            field,
            place: Place::Whole,
            encoding: Encoding::None,
            all: false,
            cased: false,
            windash: false,
            exists: false,
            compare: None,
            regex: None,
        };
        for modifier in parts {
            key.add(modifier)
                .and_then(|()| key.check())
                .map_err(|reason| (line, Problem::Modifier { modifier: modifier.into(), reason }))?;
        }
        if matches!(key.encoding, Encoding::Wide(_)) {
            let reason = "needs base64 or base64offset behind it";
            return Err((line, Problem::Modifier { modifier: "wide".into(), reason }));
        }
        Ok(key)
    }

    fn add(&mut self, modifier: &str) -> Result<(), &'static str> {
        match modifier {
            "contains" => self.set_place(Place::Contains)?,
            "startswith" => self.set_place(Place::StartsWith)?,
            "endswith" => self.set_place(Place::EndsWith)?,
            "all" => self.all = true,
            "cased" => self.cased = true,
            "windash" => self.windash = true,
            "exists" => self.exists = true,
            "re" => self.regex = Some(String::new()),
            "i" | "ignorecase" => self.add_flag('i')?,
            "m" | "multiline" => self.add_flag('m')?,
            "s" | "dotall" => self.add_flag('s')?,
            "wide" | "utf16le" => self.set_wide(true)?,
            "utf16be" => self.set_wide(false)?,
            "base64" => self.set_base64(false)?,
            "base64offset" => self.set_base64(true)?,
            "lt" => self.compare = Some(Comparison::Lt),
            "lte" => self.compare = Some(Comparison::Lte),
            "gt" => self.compare = Some(Comparison::Gt),
            "gte" => self.compare = Some(Comparison::Gte),
            "neq" => return Err("write `not` in the condition instead"),
            "cidr" => return Err("these events have no address fields"),
            "fieldref" | "expand" | "utf16" | "minute" | "hour" | "day" | "week" | "month" | "year" => {
                return Err("is not supported");
            }
            _ => return Err("is unknown"),
        }
        Ok(())
    }

    fn set_place(&mut self, place: Place) -> Result<(), &'static str> {
        if self.place != Place::Whole {
            return Err("only one of contains, startswith, endswith may stand");
        }
        self.place = place;
        Ok(())
    }

    fn add_flag(&mut self, flag: char) -> Result<(), &'static str> {
        self.regex.as_mut().ok_or("is a flag of `re` and must stand behind it")?.push(flag);
        Ok(())
    }

    fn set_wide(&mut self, little_endian: bool) -> Result<(), &'static str> {
        if self.encoding != Encoding::None {
            return Err("stands behind another encoding");
        }
        self.encoding = Encoding::Wide(little_endian);
        Ok(())
    }

    fn set_base64(&mut self, any_offset: bool) -> Result<(), &'static str> {
        let wide = match self.encoding {
            Encoding::None => None,
            Encoding::Wide(little_endian) => Some(little_endian),
            Encoding::Base64 { .. } => return Err("stands behind another encoding"),
        };
        self.encoding = Encoding::Base64 { wide, any_offset };
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        let textual =
            self.place != Place::Whole || self.encoding != Encoding::None || self.cased || self.windash;
        let number = self.field.is_some_and(Field::is_number);
        let kinds = usize::from(textual)
            + usize::from(self.regex.is_some())
            + usize::from(self.exists)
            + usize::from(self.compare.is_some());
        if kinds > 1 {
            return Err("has no meaning beside the modifiers before it");
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
        if self.windash && self.encoding != Encoding::None {
            return Err("has no meaning beside an encoding");
        }
        Ok(())
    }

    /// The expression for the value, or list of values, beside this key.
    pub(crate) fn expr(&self, values: &Node) -> Result<Expr, Located> {
        let Value::List(items) = &values.value else {
            return self.one(values);
        };
        if items.is_empty() {
            return Err(values.form("value", "a value or a list of values"));
        }
        let parts = items.iter().map(|item| self.one(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(match <[Expr; 1]>::try_from(parts) {
            Ok([part]) => part,
            Err(parts) if self.all => Expr::And(parts),
            Err(parts) => Expr::Or(parts),
        })
    }

    fn one(&self, value: &Node) -> Result<Expr, Located> {
        if value.is_null() && self.field.is_some() {
            let plain = self.place == Place::Whole && self.regex.is_none() && self.compare.is_none();
            if self.exists || !plain {
                return Err(value.form("value", "a string; null stands alone"));
            }
            return Ok(self.test(Op::Exists(false)));
        }
        let Some(text) = value.text() else {
            return Err(value.form("value", "a string or number"));
        };
        let refuse =
            |reason: &str| Err((value.line, Problem::Value { value: excerpt(text), reason: reason.into() }));
        if text.len() > VALUE_LEN_MAX {
            return Err((value.line, Problem::TooLarge { what: "length of a value", max: VALUE_LEN_MAX }));
        }
        if self.exists {
            return match text.to_ascii_lowercase().as_str() {
                "true" | "yes" => Ok(self.test(Op::Exists(true))),
                "false" | "no" => Ok(self.test(Op::Exists(false))),
                _ => refuse("`exists` takes true or false"),
            };
        }
        if let Some(flags) = &self.regex {
            let source = if flags.is_empty() { text.to_owned() } else { format!("(?{flags}){text}") };
            return match build_regex(&source) {
                Ok(_) => Ok(self.test(Op::Regex(source))),
                Err(error) => refuse(&error.to_string()),
            };
        }
        if self.field.is_some_and(Field::is_number) {
            return match text.parse() {
                Ok(number) => Ok(self.test(Op::Number(self.compare.unwrap_or(Comparison::Eq), number))),
                Err(_) => refuse("this field is a whole number"),
            };
        }
        if let Encoding::Base64 { wide, any_offset } = self.encoding {
            if Pattern::parse(text).has_wildcard() {
                return refuse("wildcards cannot be encoded");
            }
            let bytes: Vec<u8> = match wide {
                None => text.bytes().collect(),
                Some(true) => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                Some(false) => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            };
            if bytes.is_empty() {
                return refuse("nothing to encode");
            }
            let texts = if any_offset { base64_at_offsets(&bytes) } else { vec![base64(&bytes)] };
            return Ok(or(texts.iter().map(|t| self.text(Pattern::literal(t))).collect()));
        }
        if self.windash {
            let Some(spellings) = windash(text) else {
                return refuse("too many dashes for `windash`");
            };
            return Ok(or(spellings.iter().map(|t| self.text(Pattern::parse(t))).collect()));
        }
        Ok(self.text(Pattern::parse(text)))
    }

    fn text(&self, pattern: Pattern) -> Expr {
        let pattern = match self.place {
            // A keyword may stand anywhere in the event.
            Place::Contains => pattern.any_before().any_after(),
            Place::Whole if self.field.is_none() => pattern.any_before().any_after(),
            Place::Whole => pattern,
            Place::StartsWith => pattern.any_after(),
            Place::EndsWith => pattern.any_before(),
        };
        self.test(Op::Text { pattern, cased: self.cased })
    }

    fn test(&self, op: Op) -> Expr {
        Expr::Test(Test { field: self.field, op })
    }
}

fn or(mut parts: Vec<Expr>) -> Expr {
    if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) }
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Builds a rule's regular expression within [`REGEX_SIZE_MAX`].
pub(crate) fn build_regex(source: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(source).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build()
}

/// Every spelling of `text` in which a dash or slash before a word, and not inside one, is another dash.
fn windash(text: &str) -> Option<Vec<String>> {
    let word = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let chars: Vec<char> = text.chars().collect();
    let places: Vec<usize> = (0..chars.len())
        .filter(|&at| matches!(chars[at], '-' | '/'))
        .filter(|&at| word(chars.get(at + 1)) && (at == 0 || !word(chars.get(at - 1))))
        .collect();
    if places.len() > WINDASH_DASHES_MAX {
        return None;
    }
    let mut spellings = vec![chars];
    for place in places {
        spellings = spellings
            .iter()
            .flat_map(|spelling| {
                DASHES.map(|dash| {
                    let mut other = spelling.clone();
                    other[place] = dash;
                    other
                })
            })
            .collect();
    }
    Some(spellings.into_iter().map(String::from_iter).collect())
}

/// Base64 (RFC 4648, section 4) with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0, |group, &byte| group << 8 | usize::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[group >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// The digits that `bytes` give inside a longer text, at each of the three places in a group of Base64.
fn base64_at_offsets(bytes: &[u8]) -> Vec<String> {
    (0..3)
        .map(|offset| {
            let mut shifted = vec![0; offset];
            shifted.extend_from_slice(bytes);
            let text = base64(&shifted);
            // Digits that hold bits of the neighbours are cut off.
            let start = [0, 2, 3][offset];
            let end = text.len() - [0, 3, 2][shifted.len() % 3];
            text[start.min(end)..end].to_owned()
        })
        .filter(|text| !text.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Key, base64, base64_at_offsets, windash};
    use crate::field::EventKinds;

    #[test]
    fn base64_of_known_texts() {
        let rows = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in rows {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    /// Whatever stands around the bytes, one of the three digits strings is in the encoding.
    #[test]
    fn base64_is_found_at_every_offset() {
        for (before, after) in [("", ""), ("x", "yz"), ("xy", "z"), ("xyz", ""), ("abcd", "efgh")] {
            for word in ["Invoke", "IEX(", "longer text"] {
                let whole = base64(format!("{before}{word}{after}").as_bytes());
                let found = base64_at_offsets(word.as_bytes());
                assert!(found.iter().any(|digits| whole.contains(digits)), "{before}{word}{after}");
            }
        }
    }

    #[test]
    fn windash_spells_options_only() {
        let spellings = windash("cmd-let -Foo /b").unwrap();
        assert_eq!(spellings.len(), 25);
        assert!(spellings.contains(&"cmd-let \u{2013}Foo -b".to_owned()));
        assert!(spellings.iter().all(|s| s.starts_with("cmd-let ")));
        assert!(windash("-a -a -a -a -a").is_none());
    }

    #[test]
    fn refuses_modifiers_by_name() {
        let rows = [
            ("ScriptBlockText|wide", "wide"),
            ("ScriptBlockText|contains|startswith", "startswith"),
            ("ScriptBlockText|i", "flag of `re`"),
            ("ScriptBlockText|cidr", "cidr"),
            ("ScriptBlockText|nonsense", "nonsense"),
            ("ScriptBlockText|gt", "number"),
            ("MessageNumber|contains", "number"),
            ("ScriptBlockText|re|contains", "contains"),
            ("CommandLine", "CommandLine"),
        ];
        for (key, word) in rows {
            let (_, problem) = Key::parse(key, 1, EventKinds::ALL).unwrap_err();
            assert!(problem.to_string().contains(word), "{key}: {problem}");
        }
    }
}
