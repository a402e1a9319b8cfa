//! Patterns of `-replace` and `-split`: plain text, or regular expressions whose cost is estimated before they are
//! built.
//!
//! The crate `regex` searches in time linear in the text and the expression. But it does not report the size of the
//! compiled expression, nor how far a search looked beyond the match that it found, and building an expression may take
//! a thousand times as long as using it. Therefore the syntax tree, which is cheap to make, is weighed first.

use super::needle::Needle;
use super::value::{List, Value};
use super::weight::{CHARACTER_LEN_MAX, POSITIONS_MAX, Weight};
use crate::view::work::Work;
use regex_syntax::ast;
use std::sync::Arc;

/// Maximum length of an expression, in bytes.
const PATTERN_LEN_MAX: usize = 256;
/// Maximum size of a compiled expression, in bytes.
const PATTERN_SIZE_MAX: usize = 64 * 1024;
/// Maximum number of expressions that are built for one event.
const PATTERNS_MAX: usize = 16;
/// Steps to parse one byte of an expression.
const PARSE_STEPS: usize = 40;
/// Steps to start a search.
const SEARCH_STEPS: usize = 64;

/// The expressions that were built for one event; `None` for those that were rejected.
#[derive(Debug, Default)]
pub(in crate::view) struct PatternCache(Vec<(Vec<u16>, bool, Option<Arc<Expression>>)>);

/// A pattern.
pub(super) enum OperatorPattern {
    /// The empty text, which matches everywhere.
    Empty,
    /// Text without special characters.
    Plain(Needle),
    Expression(Arc<Expression>),
}

/// A regular expression.
#[derive(Debug)]
pub(super) struct Expression {
    regex: regex::Regex,
    /// Steps per byte searched.
    steps_per_byte: usize,
    /// Maximum number of bytes after a match that the search for it may have read; `None` for all.
    lookahead: Option<usize>,
}

impl OperatorPattern {
    /// Returns `None` if the crate `regex` does not support the pattern, or if it costs too much.
    pub(super) fn new(
        source: &[u16],
        is_cased: bool,
        patterns: &mut PatternCache,
        work: &mut Work<'_, '_>,
    ) -> Option<Self> {
        const SIGNS: &[u8] = b"\\.^$|?*+()[]{}";
        let is_sign = |unit: &u16| u8::try_from(*unit).is_ok_and(|byte| SIGNS.contains(&byte));
        work.charge(2 * source.len())?;
        work.allocate(2 * source.len())?;
        // A backslash escapes a special character.
        let mut text = Vec::with_capacity(source.len());
        let mut units = source.iter();
        while let Some(unit) = units.next() {
            match units.as_slice().first() {
                Some(next) if *unit == u16::from(b'\\') && is_sign(next) => {
                    text.push(*next);
                    units.next();
                }
                _ if is_sign(unit) => {
                    return Some(Self::Expression(expression(source, is_cased, patterns, work)?));
                }
                _ => text.push(*unit),
            }
        }
        if text.is_empty() { Some(Self::Empty) } else { Needle::new(&text, is_cased, work).map(Self::Plain) }
    }

    /// Evaluates `-replace`.
    pub(super) fn replace(&self, text: &[u16], with: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
        match self {
            Self::Empty => None,
            Self::Plain(what) => super::operation::replace(text, what, with, work),
            Self::Expression(expression) => expression.replace(text, with, work),
        }
    }

    /// Appends the parts between the matches of the pattern.
    pub(super) fn split(&self, text: &[u16], list: &mut List, work: &mut Work<'_, '_>) -> Option<()> {
        match self {
            Self::Empty => super::operation::split_everywhere(text, list, work),
            Self::Plain(at) => super::operation::split(text, at, list, work),
            Self::Expression(expression) => expression.split(text, list, work),
        }
    }
}

/// Returns the expression, which is built once per event.
fn expression(
    source: &[u16],
    is_cased: bool,
    patterns: &mut PatternCache,
    work: &mut Work<'_, '_>,
) -> Option<Arc<Expression>> {
    if source.len() > PATTERN_LEN_MAX {
        return None;
    }
    work.charge(PATTERN_LEN_MAX / 4)?;
    let is_known = |(own, cased, _): &&(Vec<u16>, bool, _)| own == source && *cased == is_cased;
    if let Some((_, _, known)) = patterns.0.iter().find(is_known) {
        return known.clone();
    }
    if patterns.0.len() == PATTERNS_MAX {
        return None;
    }
    work.allocate(PATTERN_LEN_MAX)?;
    let made = Expression::new(source, is_cased, work).map(Arc::new);
    patterns.0.push((source.to_vec(), is_cased, made.clone()));
    made
}

impl Expression {
    fn new(source: &[u16], is_cased: bool, work: &mut Work<'_, '_>) -> Option<Self> {
        work.charge(PARSE_STEPS * source.len())?;
        let source = String::from_utf16(source).ok().filter(|source| source.len() <= PATTERN_LEN_MAX)?;
        let weight = Weight::of(&ast::parse::Parser::new().parse(&source).ok()?);
        work.charge(weight.build_steps())?;
        work.allocate(PATTERN_SIZE_MAX)?;
        let regex = regex::RegexBuilder::new(&source)
            .case_insensitive(!is_cased)
            .size_limit(PATTERN_SIZE_MAX)
            .dfa_size_limit(PATTERN_SIZE_MAX)
            .build()
            .ok()?;
        Some(Self {
            regex,
            steps_per_byte: 1 + weight.positions.min(POSITIONS_MAX),
            lookahead: weight.lookahead(),
        })
    }

    /// Converts the text and charges one pass over it, which all searches share.
    fn text(&self, text: &[u16], work: &mut Work<'_, '_>) -> Option<String> {
        work.charge(2 * text.len())?;
        work.allocate(3 * text.len())?;
        let text = String::from_utf16_lossy(text);
        work.charge(self.steps_per_byte.saturating_mul(text.len()))?;
        Some(text)
    }

    /// Charges a search from `at` on, without the text up to the match.
    fn charge_search(&self, text: &str, at: usize, work: &mut Work<'_, '_>) -> Option<()> {
        let rest = text.len() - at;
        let beyond = self.lookahead.map_or(rest, |lookahead| lookahead.min(rest));
        work.charge(SEARCH_STEPS.saturating_add(self.steps_per_byte.saturating_mul(beyond)))
    }

    /// Returns the next match, as [`regex::Regex::find_iter`] does; the outer `None` means that the work is exhausted.
    #[expect(clippy::option_option, reason = "the outer option means that the work is exhausted")]
    fn next<'t>(
        &self,
        text: &'t str,
        last: Option<regex::Match<'t>>,
        work: &mut Work<'_, '_>,
    ) -> Option<Option<regex::Match<'t>>> {
        let at = last.map_or(0, |last| last.end());
        self.charge_search(text, at, work)?;
        let found = self.regex.find_at(text, at);
        // An empty match directly after another match counts as part of it.
        if !found.is_some_and(|found| found.is_empty() && last.is_some_and(|last| last.end() == found.end()))
        {
            return Some(found);
        }
        let Some(c) = text[at..].chars().next() else { return Some(None) };
        self.charge_search(text, at + c.len_utf8(), work)?;
        Some(self.regex.find_at(text, at + c.len_utf8()))
    }

    fn replace(&self, text: &[u16], with: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
        let text = self.text(text, work)?;
        work.charge(2 * with.len())?;
        let with = String::from_utf16_lossy(with);
        // Each may expand to the whole match.
        let groups = with.matches('$').count();
        if groups > 0 {
            // The matches are searched again for their groups, with the positions of all groups.
            let steps = self.steps_per_byte.saturating_mul(self.regex.captures_len());
            work.charge(steps.saturating_mul(text.len()))?;
        }
        let mut out = String::new();
        let mut before: Option<regex::Match<'_>> = None;
        let mut from = 0;
        while let Some(found) = self.next(&text, before, work)? {
            let most = with.len().saturating_add(groups.saturating_mul(found.len()));
            let added = (found.start() - from).saturating_add(most);
            work.allocate(added)?;
            if out.len().saturating_add(added) > CHARACTER_LEN_MAX * work.value_units_max {
                return None;
            }
            out.push_str(&text[from..found.start()]);
            if groups == 0 {
                out.push_str(&with);
            } else {
                self.charge_search(&text, found.start(), work)?;
                self.regex.captures_at(&text, found.start())?.expand(&with, &mut out);
            }
            from = found.end();
            before = Some(found);
        }
        work.allocate(text.len() - from)?;
        out.push_str(&text[from..]);
        work.charge(2 * out.len())?;
        work.allocate(2 * out.len())?;
        let made: Vec<u16> = out.encode_utf16().collect();
        if made.len() > work.value_units_max { None } else { Value::of_text(made, work) }
    }

    fn split(&self, text: &[u16], list: &mut List, work: &mut Work<'_, '_>) -> Option<()> {
        let text = self.text(text, work)?;
        let mut add = |part: &str, work: &mut Work<'_, '_>| {
            work.charge(2 * part.len())?;
            work.allocate(2 * part.len())?;
            list.push(Value::of_text(part.encode_utf16().collect(), work)?, work)
        };
        let mut before: Option<regex::Match<'_>> = None;
        let mut from = 0;
        while let Some(found) = self.next(&text, before, work)? {
            add(&text[from..found.start()], work)?;
            from = found.end();
            before = Some(found);
        }
        add(&text[from..], work)
    }
}

#[cfg(test)]
mod tests {
    use super::{OperatorPattern, PatternCache};
    use crate::view::fold::tests::with_work;
    use crate::view::fold::value::{List, Value};
    use proptest::prelude::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn shown(value: &Value) -> String {
        with_work(1 << 20, |work| String::from_utf16(&value.text(work).unwrap()).unwrap())
    }

    proptest! {
        /// Successive searches find the same matches as the iterators of the crate.
        #[test]
        fn equals_the_iterators_of_the_crate(
            source in r"(a|b\?|[ab]\*|\(a\|\)|\\b|\(a\|b\)|\.|a\+\?|x\*){1,4}",
            text in "[ab \u{e9}]{0,12}",
            with in r"[x-]{0,2}(\$0|\$1)?",
        ) {
            let Ok(regex) = regex::RegexBuilder::new(&source).case_insensitive(true).build() else { return Ok(()) };
            let (what, text_units) = (units(&source), units(&text));
            let made = with_work(1 << 20, |work| {
                let pattern = OperatorPattern::new(&what, false, &mut PatternCache::default(), work)?;
                let mut parts = List::default();
                pattern.split(&text_units, &mut parts, work)?;
                Some((pattern.replace(&text_units, &units(&with), work), parts))
            });
            let (replaced, parts) = made.expect("a small expression");
            let is_expression = source.contains(['*', '?', '(', '.', '+', '\\']);
            if is_expression {
                prop_assert_eq!(replaced.as_ref().map(shown), Some(regex.replace_all(&text, &with[..]).into_owned()));
                let parts: Vec<String> = parts.items().iter().map(shown).collect();
                prop_assert_eq!(parts, regex.split(&text).map(str::to_owned).collect::<Vec<_>>());
            }
        }
    }

    /// Each expression is built once per event, up to a maximum number.
    #[test]
    fn expressions_are_built_once_and_limited_in_number() {
        let mut patterns = PatternCache::default();
        with_work(1 << 20, |work| {
            for number in 0..40 {
                let source = units(&format!("a+{}", number % 20));
                let built = OperatorPattern::new(&source, true, &mut patterns, work).is_some();
                assert_eq!(built, number % 20 < super::PATTERNS_MAX, "{number}");
            }
        });
    }
}
