//! Folding after a dash: operators that begin an expression, and encoded commands.

use super::Folder;
use super::decode::{self, BASE64_UNITS_MIN, is_base64};
use crate::view::chars::{
    BACKTICK, is, is_dash, is_double_quote, is_single_quote, is_whitespace, is_word, lower,
};
use crate::view::transformation::{Transformation, Transformations};

/// Maximum number of units after a dash that are read.
const LETTERS_MAX: usize = 24;
/// Steps to read them.
const LETTERS_STEPS: usize = 24;

/// Letters in lower case.
#[derive(Default)]
struct Letters {
    units: [u16; LETTERS_MAX],
    len: usize,
}

impl Letters {
    fn get(&self) -> &[u16] {
        &self.units[..self.len]
    }
}

impl Folder<'_, '_, '_> {
    /// Folds encoded commands in a string that is not folded itself, such as the command line of another shell.
    pub(super) fn commands_in(&mut self, part: std::ops::Range<usize>) {
        let mut at = part.start;
        while at + BASE64_UNITS_MIN < part.end && self.work.charge(2).is_some() {
            let behind_blank = at > 0 && is_whitespace(self.text[at - 1]);
            self.at = at;
            if behind_blank && is_dash(self.text[at]) && self.parameter().is_none() {
                break;
            }
            at = self.at.max(at + 1);
        }
        self.at = part.end.max(at.min(self.text.len()));
    }

    pub(super) fn dash(&mut self) -> Option<()> {
        let start = self.at;
        self.work.charge(LETTERS_STEPS)?;
        let letters = self.letters();
        if is(letters.get(), "join") || is(letters.get(), "split") {
            self.expression()?;
            if self.at == start + 1 {
                self.word()?;
            }
            return Some(());
        }
        self.parameter()
    }

    /// Returns the letters after the dash at this position.
    fn letters(&self) -> Letters {
        let mut letters = Letters::default();
        let units = self.text[self.at + 1..].iter().take(LETTERS_MAX).filter(|unit| **unit != BACKTICK);
        for unit in units.take_while(|unit| is_word(**unit)) {
            letters.units[letters.len] = lower(*unit);
            letters.len += 1;
        }
        letters
    }

    fn parameter(&mut self) -> Option<()> {
        self.work.charge(LETTERS_STEPS)?;
        let letters = self.letters();
        let letters = letters.get();
        self.at += 1;
        if self.text.get(self.at).is_some_and(|unit| is_word(*unit) || *unit == BACKTICK) {
            self.word()?;
        }
        let is_begin = |name: &str| name.len() >= letters.len() && is(letters, &name[..letters.len()]);
        if !letters.is_empty() && (is_begin("encodedcommand") || is(letters, "ec")) {
            self.encoded_command()?;
        }
        Some(())
    }

    /// Folds base64 after the parameter `-EncodedCommand` of powershell.exe, or a prefix of it. Source:
    /// PowerShell/PowerShell, `Microsoft.PowerShell.ConsoleHost/host/msh/CommandLineParameterParser.cs`.
    fn encoded_command(&mut self) -> Option<()> {
        let text = self.text;
        let start = self.work.find(text, self.at, |unit| !is_whitespace(unit) && unit != u16::from(b':'))?;
        let quoted =
            self.text.get(start).is_some_and(|unit| is_single_quote(*unit) || is_double_quote(*unit));
        let inside = start + usize::from(quoted);
        let end = self.work.find(text, inside, |unit| !is_base64(unit))?;
        if end - inside < BASE64_UNITS_MIN {
            return Some(());
        }
        let decoded = decode::base64(&text[inside..end], self.work)
            .and_then(|bytes| decode::plain_text(&bytes, self.work));
        let Some(units) = decoded else { return Some(()) };
        let closed =
            quoted && self.text.get(end).is_some_and(|unit| is_single_quote(*unit) || is_double_quote(*unit));
        self.put_decoded(
            start..end + usize::from(closed),
            units,
            Transformations::only(Transformation::Base64),
        )
    }
}
