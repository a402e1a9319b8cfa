//! Text without U+0000, for SQL.
//!
//! SQLite can store U+0000, but `length`, `LIKE`, `=` with a literal and the command-line shell stop at the first one
//! (<https://sqlite.org/nulinstr.html>), so an attacker could hide text from queries. PowerShell itself logs U+2400
//! instead of U+0000, and the text columns do the same. One UTF-16 unit replaces another, so spans stay correct.

use std::borrow::Cow;

/// The replacement for U+0000: U+2400, SYMBOL FOR NULL.
const NUL_SYMBOL: &str = "\u{2400}";

/// Returns the text with U+0000 replaced by U+2400.
pub fn sql_text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', NUL_SYMBOL)) } else { Cow::Borrowed(text) }
}

/// Counts the U+0000 in texts.
#[derive(Debug, Default)]
pub(super) struct NulCounter {
    pub(super) nuls: i64,
}

impl NulCounter {
    /// The same as [`sql_text`], and counts.
    pub(super) fn pass<'t>(&mut self, text: impl Into<Cow<'t, str>>) -> Cow<'t, str> {
        let text = text.into();
        if !text.contains('\0') {
            return text;
        }
        self.nuls += text.matches('\0').count() as i64;
        Cow::Owned(text.replace('\0', NUL_SYMBOL))
    }
}
