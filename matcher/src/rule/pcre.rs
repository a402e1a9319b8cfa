//! Translates regular expressions from the syntax of PCRE, which the Sigma specification prescribes, to that of the
//! crate `regex`.
//!
//! The two look alike and mean different things in many places: `\<` is a plain `<` in PCRE and the start of a word in
//! the crate, `[&&|]` is a set of two characters in PCRE and an empty intersection in the crate, `a++` is possessive
//! in PCRE and a repeated repetition in the crate. An expression is therefore never handed over as it is. It is parsed
//! here as PCRE2 parses it, and either written down again in the crate's syntax with the same meaning or refused by
//! the name of the construct.
//!
//! "The same meaning" is that of PCRE2 10.42 with `PCRE2_UTF` and without `PCRE2_UCP`: text is Unicode, `\d`, `\w`,
//! `\s` and `\b` are ASCII, letters fold by Unicode's simple case folding, and lines end with a line feed. It is the
//! verdict that is preserved, whether the expression matches somewhere in a text; the extent of a match may differ by
//! the line end at the end of a text. Sources: pcre2pattern(3), pcre2syntax(3); `docs/rules.md` lists the differences.

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
/// Bytes of a state of a compiled expression, about.
const STATE_LEN: usize = 64;
/// Longest name of a group, as in PCRE2.
const GROUP_NAME_LEN_MAX: usize = 32;

/// Why an expression cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct PcreError {
    /// Column within the expression, from 1, in characters.
    pub column: usize,
    /// The construct, what is wrong with it, and what to write instead if there is anything.
    pub reason: String,
}

/// Options that are set before the expression begins, as by the modifiers `i`, `m` and `s` of a Sigma rule.
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

/// Translates an expression in the syntax of PCRE2 to one in the syntax of the crate `regex`.
///
/// # Errors
///
/// [`PcreError`] if the expression is not valid, or has a construct that cannot be translated, or if the budget does not
/// last.
pub fn translate(source: &str, options: Options, budget: &mut Budget<'_>) -> Result<String, PcreError> {
    let node = parse::parse(source, options, budget)?;
    let hir = lower::lower(node)?;
    // Compiling costs time and memory in proportion to the expression written out, up to the compiled size allowed.
    let len = compiled_len(&hir).min(2 * REGEX_SIZE_MAX);
    let paid = budget.charge(len).and_then(|()| budget.allocate(len));
    paid.map_err(|error| PcreError { column: 1, reason: error.to_string() })?;
    let mut translated = String::new();
    // Writing to a string does not fail.
    let _ = regex_syntax::hir::print::Printer::new().print(&hir, &mut translated);
    Ok(translated)
}

/// Bytes that an expression takes when it is compiled, about.
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
    /// A position, and the column at which it was written.
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
    /// `^` in multi-line mode: the start of a line, except behind a line feed that ends the text.
    LineStart,
    /// `\z`: the end of the text.
    End,
    /// `$`, `\Z`: the end of the text, or before a line feed that ends it.
    EndOrLineFeed,
    /// `$` in multi-line mode: the end of a line.
    LineEnd,
    /// `\b`: a border between ASCII word characters and others.
    Word,
    /// `\B`: no such border.
    NotWord,
    /// `\B` behind a character that is not part of a word: no part of a word follows.
    BeforeOther,
    /// `\B` before a character that is not part of a word: no part of a word precedes it.
    BehindOther,
}

#[cfg(test)]
mod tests;
