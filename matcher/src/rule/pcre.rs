//! Translates regular expressions from PCRE syntax, which the Sigma specification prescribes, to that of the crate
//! `regex`.
//!
//! The two look alike, but mean different things in many places: `\<` is a plain `<` in PCRE and the start of a word in
//! the crate, `[&&|]` is a set of two characters in PCRE and an empty intersection in the crate, `a++` is possessive in
//! PCRE and a repeated repetition in the crate. An expression is therefore never passed on unchanged. It is parsed as
//! PCRE2 would parse it, and then either written in the crate's syntax with the same meaning or rejected with the name
//! of the construct.
//!
//! "The same meaning" refers to PCRE2 10.42 with `PCRE2_UTF` and without `PCRE2_UCP`: text is Unicode, `\d`, `\w`, `\s`
//! and `\b` are ASCII, letters fold by Unicode's simple case folding, and lines end with a line feed. The verdict is
//! preserved, that is, whether the expression matches somewhere in a text; the extent of a match may differ by the line
//! feed at the end of a text. Sources: pcre2pattern(3), pcre2syntax(3); `docs/rules.md` lists the differences.

mod class;
mod lower;
mod parse;

use crate::rule::regex::REGEX_SIZE_MAX;
use etwsieve_budget::Budget;
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind};

/// Maximum depth of groups, so that the translated expression stays within the nesting limit of `regex-syntax`.
pub const REGEX_DEPTH_MAX: usize = 40;
/// Maximum number in a quantifier, as in PCRE2.
pub(crate) const REGEX_REPEAT_MAX: u32 = 65_535;
/// Approximate size of a state of a compiled expression, in bytes.
const STATE_LEN: usize = 64;
/// Maximum length of a group name, as in PCRE2.
const GROUP_NAME_LEN_MAX: usize = 32;

/// The reason why an expression cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct PcreError {
    /// Column within the expression, from 1, in characters.
    pub column: usize,
    /// The construct, what is wrong with it, and what to write instead, if anything.
    pub reason: String,
}

/// Options in effect at the start of the expression, as set by the modifiers `i`, `m` and `s` of a Sigma rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of PCRE2")]
pub struct Options {
    /// `PCRE2_CASELESS`.
    pub caseless: bool,
    /// `PCRE2_MULTILINE`.
    pub multiline: bool,
    /// `PCRE2_DOTALL`.
    pub dotall: bool,
    /// `PCRE2_EXTENDED`.
    pub(crate) extended: bool,
    /// `PCRE2_UNGREEDY`.
    pub(crate) ungreedy: bool,
}

/// Translates an expression in PCRE2 syntax to the syntax of the crate `regex`.
///
/// # Errors
///
/// Returns [`PcreError`] if the expression is invalid, if it contains a construct that cannot be translated, or if the
/// budget is exhausted.
pub fn translate(source: &str, options: Options, budget: &mut Budget<'_>) -> Result<String, PcreError> {
    let node = parse::parse(source, options, budget)?;
    let hir = lower::lower(node)?;
    // Compiling costs time and memory in proportion to the expanded expression, up to the maximum compiled size.
    let len = compiled_len(&hir).min(2 * REGEX_SIZE_MAX);
    let paid = budget.charge(len).and_then(|()| budget.allocate(len));
    paid.map_err(|error| PcreError { column: 1, reason: error.to_string() })?;
    let mut translated = String::new();
    // Writing to a string does not fail.
    let _ = regex_syntax::hir::print::Printer::new().print(&hir, &mut translated);
    Ok(translated)
}

/// Returns the approximate compiled size of an expression, in bytes.
fn compiled_len(hir: &Hir) -> usize {
    let sum = |parts: &[Hir]| parts.iter().map(compiled_len).fold(0, usize::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE_LEN,
        HirKind::Literal(literal) => STATE_LEN * literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => STATE_LEN * (1 + class.ranges().len()),
        HirKind::Class(Class::Bytes(class)) => STATE_LEN * (1 + class.ranges().len()),
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min.saturating_add(1));
            compiled_len(&repetition.sub).saturating_mul(copies.max(1) as usize)
        }
        HirKind::Capture(capture) => compiled_len(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

/// A part of a parsed expression.
#[derive(Debug)]
enum Node {
    /// Matches the empty text.
    Empty,
    /// One character of a set.
    Set(ClassUnicode),
    /// An assertion, and the column at which it was written.
    Look(Look, usize),
    Concat(Vec<Node>),
    Either(Vec<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greedy: bool,
    },
}

/// An assertion about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// `^`, `\A`: the start of the text.
    Start,
    /// `^` in multi-line mode: the start of a line, except after a line feed that ends the text.
    LineStart,
    /// `\z`: the end of the text.
    End,
    /// `$`, `\Z`: the end of the text, or before a line feed that ends it.
    EndOrLineFeed,
    /// `$` in multi-line mode: the end of a line.
    LineEnd,
    /// `\b`: a boundary between ASCII word characters and others.
    Word,
    /// `\B`: not such a boundary.
    NotWord,
    /// `\B` after a character that is not part of a word: no word character follows.
    BeforeOther,
    /// `\B` before a character that is not part of a word: no word character precedes it.
    BehindOther,
}

#[cfg(test)]
mod tests;
