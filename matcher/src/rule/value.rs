//! Values of selections, and the expressions that they become.
//!
//! Escapes are part of the value: modifiers that change a value get the unescaped text with its wildcards. Only `re`
//! takes the text as written.

use crate::error::{Located, Position, Problem};
use crate::field::{EventKind, Field};
use crate::pattern::{Part, Pattern};
use crate::rule::modifier::{Anchor, Key, Step, Wide, shown};
use crate::rule::pcre;
use crate::rule::regex::{REGEX_SIZE_MAX, build_regex};
use crate::rule::report::Report;
use crate::rule::{Comparison, Expr, Op, Test};
use crate::yaml::{Node, Value};

/// Maximum length of a value, in bytes.
pub(crate) const VALUE_LEN_MAX: usize = 16 * 1024;
/// Maximum number of dashes in a `windash` value: each has five spellings.
pub(crate) const WINDASH_DASHES_MAX: usize = 4;

/// The characters that Windows programs and PowerShell accept before an option.
const DASHES: [u16; 5] = ['-' as u16, '/' as u16, 0x2013, 0x2014, 0x2015];
/// Memory of one test without its pattern, including the expressions around it.
pub(crate) const TEST_LEN: usize = 4 * size_of::<Expr>();

impl Key {
    /// Returns the expression for the value, or list of values, of this key. Returns `None` if it is invalid; the error
    /// has been reported.
    pub(crate) fn expr(&self, values: &Node, report: &mut Report<'_>) -> Option<Expr> {
        let found = match &values.value {
            Value::List(items) if items.is_empty() => {
                report.take(Err(values.form("value", "a value or a list of values")))?
            }
            Value::List(items) => {
                // Reads every value, to report the errors of all.
                let mut parts = Vec::with_capacity(items.len());
                for item in items {
                    let part = self.one(item, report);
                    parts.push(report.take(part));
                }
                match <[Expr; 1]>::try_from(parts.into_iter().collect::<Option<Vec<_>>>()?) {
                    Ok([part]) => part,
                    Err(parts) if self.all => Expr::And(parts),
                    Err(parts) => Expr::Or(parts),
                }
            }
            _ => {
                let part = self.one(values, report);
                report.take(part)?
            }
        };
        Some(if self.negated { Expr::Not(Box::new(found)) } else { found })
    }

    fn one(&self, value: &Node, report: &mut Report<'_>) -> Result<Expr, Located> {
        let at = value.at;
        report.allocate(at, TEST_LEN)?;
        if value.is_null() && self.field.is_some() {
            let is_plain = self.anchor == Anchor::Whole
                && self.steps.is_empty()
                && !self.cased
                && self.regex.is_none()
                && self.compare.is_none();
            if self.exists || !is_plain {
                return Err(value.form("value", "a string, as null takes no modifiers"));
            }
            return Ok(self.test(Op::Exists(false)));
        }
        let Some(text) = value.text() else {
            return Err(value.form("value", "a string or number"));
        };
        if text.len() > VALUE_LEN_MAX {
            return Err((at, Problem::TooLarge { what: "length of a value", max: VALUE_LEN_MAX }));
        }
        report.charge(at, text.len())?;
        if self.exists {
            return match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Ok(self.test(Op::Exists(true))),
                "false" | "no" | "off" => Ok(self.test(Op::Exists(false))),
                _ => Err(invalid(at, text, "`exists` takes true or false")),
            };
        }
        if let Some(options) = self.regex {
            return self.expression(at, text, options, report);
        }
        if let Some(field) = self.field.filter(|field| field.is_number()) {
            let number = text.parse().map_err(|_| invalid(at, text, "this field is a whole number"))?;
            self.warn_if_impossible(field, number, at, report);
            return Ok(self.test(Op::Number(self.compare.unwrap_or(Comparison::Eq), number)));
        }
        let mut patterns = vec![Pattern::parse(text)];
        report.allocate(at, pattern_len(&patterns[0]))?;
        for step in &self.steps {
            patterns = match step {
                Step::Windash => windash(&patterns, at, text, report)?,
                Step::Base64 { wide, any_offset } => {
                    encoded(&patterns, *wide, *any_offset, at, text, report)?
                }
            };
        }
        let mut tests: Vec<_> = patterns.into_iter().map(|pattern| self.text(pattern)).collect();
        Ok(if tests.len() == 1 { tests.remove(0) } else { Expr::Or(tests) })
    }

    fn expression(
        &self,
        at: Position,
        text: &str,
        options: pcre::Options,
        report: &mut Report<'_>,
    ) -> Result<Expr, Located> {
        let problem = |column, reason| (at, Problem::Regex { pattern: excerpt(text), column, reason });
        let source = pcre::translate(text, options, &mut report.budget)
            .map_err(|error| problem(error.column, error.reason))?;
        match build_regex(&source) {
            Ok(_) => Ok(self.test(Op::Regex(source))),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(problem(1, format!("its compiled form is larger than {REGEX_SIZE_MAX} bytes")))
            }
            Err(error) => Err(problem(1, error.to_string())),
        }
    }

    /// Warns about a number that an event never has. It is probably a mistake, even if the rule can match without it.
    fn warn_if_impossible(&self, field: Field, number: i64, at: Position, report: &mut Report<'_>) {
        if field == Field::EventId && self.compare.is_none() {
            let has = |kind: EventKind| self.events.contains(kind) && i64::from(kind.event_id()) == number;
            if !EventKind::ALL.into_iter().any(has) {
                report.warn(
                    at,
                    Problem::Impossible { field: "EventID", value: number, events: shown(self.events) },
                );
            }
        }
    }

    fn text(&self, pattern: Pattern) -> Expr {
        let pattern = match self.anchor {
            // A keyword may occur anywhere in the event.
            Anchor::Contains => pattern.any_before().any_after(),
            Anchor::Whole if self.field.is_none() => pattern.any_before().any_after(),
            Anchor::Whole => pattern,
            Anchor::StartsWith => pattern.any_after(),
            Anchor::EndsWith => pattern.any_before(),
        };
        self.test(Op::Text { pattern, cased: self.cased })
    }

    fn test(&self, op: Op) -> Expr {
        Expr::Test(Test { field: self.field, op })
    }
}

fn invalid(at: Position, text: &str, reason: &str) -> Located {
    (at, Problem::Value { value: excerpt(text), reason: reason.into() })
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

fn pattern_len(pattern: &Pattern) -> usize {
    size_of_val(pattern.parts())
}

/// Returns all spellings of the patterns in which each dash or slash before a word, but not inside one, is any of the
/// dashes.
fn windash(
    patterns: &[Pattern],
    at: Position,
    text: &str,
    report: &mut Report<'_>,
) -> Result<Vec<Pattern>, Located> {
    let mut all = Vec::new();
    for pattern in patterns {
        let places = dashes(pattern.parts());
        if places.len() > WINDASH_DASHES_MAX {
            return Err(invalid(at, text, "`windash` takes at most 4 dashes; split the value"));
        }
        let spellings = DASHES.len().pow(places.len() as u32);
        report.allocate(at, 2 * spellings * (pattern_len(pattern) + TEST_LEN))?;
        let mut own = vec![pattern.parts().to_vec()];
        for place in places {
            own = own
                .iter()
                .flat_map(|spelling| {
                    DASHES.map(|dash| {
                        let mut other = spelling.clone();
                        other[place] = Part::Unit(dash);
                        other
                    })
                })
                .collect();
        }
        all.extend(own.into_iter().map(Pattern::of_parts));
    }
    Ok(all)
}

/// Returns the positions of dashes and slashes that are followed but not preceded by a word.
fn dashes(parts: &[Part]) -> Vec<usize> {
    let is_word = |at: Option<usize>| match at.and_then(|at| parts.get(at)) {
        Some(Part::Unit(unit)) => {
            char::from_u32(u32::from(*unit)).is_some_and(|c| c.is_alphanumeric() || c == '_')
        }
        _ => false,
    };
    (0..parts.len())
        .filter(
            |&at| matches!(parts[at], Part::Unit(unit) if unit == u16::from(b'-') || unit == u16::from(b'/')),
        )
        .filter(|&at| is_word(Some(at + 1)) && !is_word(at.checked_sub(1)))
        .collect()
}

/// Encodes patterns in Base64.
fn encoded(
    patterns: &[Pattern],
    wide: Option<Wide>,
    any_offset: bool,
    at: Position,
    text: &str,
    report: &mut Report<'_>,
) -> Result<Vec<Pattern>, Located> {
    let mut all = Vec::new();
    for pattern in patterns {
        let Some(units) = pattern.units() else {
            return Err(invalid(
                at,
                text,
                "wildcards cannot be encoded; write `\\*` or `\\?` for the characters",
            ));
        };
        let copies = if any_offset { 3 } else { 1 };
        // A unit becomes at most 3 bytes, and these become 4 digits.
        report.allocate(at, copies * (4 * units.len() * size_of::<Part>() + TEST_LEN))?;
        let bytes: Vec<u8> = match wide {
            None => String::from_utf16_lossy(&units).into_bytes(),
            Some(Wide::LittleEndian) => units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            Some(Wide::BigEndian) => units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            Some(Wide::Marked) => [0xFEFF].iter().chain(&units).flat_map(|unit| unit.to_le_bytes()).collect(),
        };
        if units.is_empty() {
            return Err(invalid(at, text, "there is nothing to encode"));
        }
        if any_offset {
            all.extend(base64_at_offsets(&bytes).iter().map(|digits| Pattern::literal(digits)));
        } else {
            all.push(Pattern::literal(&base64(&bytes)));
        }
    }
    Ok(all)
}

/// Encodes bytes in Base64 (RFC 4648, section 4) with padding.
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

/// Returns the digits for `bytes` inside a longer text, at each of the three offsets in a Base64 group.
fn base64_at_offsets(bytes: &[u8]) -> Vec<String> {
    (0..3)
        .map(|offset| {
            let mut shifted = vec![0; offset];
            shifted.extend_from_slice(bytes);
            let text = base64(&shifted);
            // Removes digits that contain bits of neighbouring bytes.
            let start = [0, 2, 3][offset];
            let end = text.len() - [0, 3, 2][shifted.len() % 3];
            text[start.min(end)..end].to_owned()
        })
        .filter(|text| !text.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{base64, base64_at_offsets, windash};
    use crate::error::Position;
    use crate::pattern::{Part, Pattern};
    use crate::rule::report::Report;
    use etwsieve_budget::Budget;

    #[test]
    fn base64_of_known_texts() {
        let rows = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in rows {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    /// Whatever bytes surround a text, its encoding contains one of the three strings of digits.
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
        let mut report = Report::new(Budget::new(1 << 30, 1 << 30));
        let at = Position { line: 1, column: 1 };
        let mut spell = |text: &str| -> Option<Vec<String>> {
            let patterns = windash(&[Pattern::parse(text)], at, text, &mut report).ok()?;
            let shown = |part: &Part| match part {
                Part::Unit(unit) => char::from_u32(u32::from(*unit)).unwrap(),
                Part::Any => '*',
                Part::One => '?',
            };
            Some(patterns.iter().map(|pattern| pattern.parts().iter().map(shown).collect()).collect())
        };
        let spellings = spell("cmd-let -Foo /b").unwrap();
        assert_eq!(spellings.len(), 25);
        assert!(spellings.contains(&"cmd-let \u{2013}Foo -b".to_owned()));
        assert!(spellings.iter().all(|s| s.starts_with("cmd-let ")));
        assert_eq!(spell("*-enc*").unwrap()[4], "*\u{2015}enc*");
        assert_eq!(spell("-a -a -a -a -a"), None);
    }
}
