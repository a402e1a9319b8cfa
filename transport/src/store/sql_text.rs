//! Text as SQL can handle it: without U+0000.
//!
//! SQLite stores such text, but `length`, `LIKE`, `=` on a literal and the command-line shell stop at the first U+0000
//! (<https://sqlite.org/nulinstr.html>), so whatever an attacker puts behind one would be hidden from queries.
//! PowerShell itself logs U+2400 in the place of U+0000, and columns of text do the same here. One UTF-16 unit replaces
//! one, so spans stay right.

use std::borrow::Cow;

/// What is shown for U+0000: U+2400, SYMBOL FOR NULL.
const NUL_SYMBOL: &str = "\u{2400}";

/// Returns the text with U+2400 for each U+0000.
pub fn sql_text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', NUL_SYMBOL)) } else { Cow::Borrowed(text) }
}

/// Counts the U+0000 of the texts that pass.
#[derive(Debug, Default)]
pub(super) struct NulCounter {
    pub(super) nuls: i64,
}

impl NulCounter {
    /// As [`sql_text`].
    pub(super) fn pass<'t>(&mut self, text: impl Into<Cow<'t, str>>) -> Cow<'t, str> {
        let text = text.into();
        if !text.contains('\0') {
            return text;
        }
        self.nuls += text.matches('\0').count() as i64;
        Cow::Owned(text.replace('\0', NUL_SYMBOL))
    }
}
