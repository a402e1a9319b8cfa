//! Makes text from rules, sensors and files safe to print on a terminal.
//!
//! The author of a rule, a file name or a script chooses characters that this program prints later. Control characters
//! control the terminal, direction marks change the visible order of text, and invisible characters make different
//! names look equal. [`Printable`], [`Lines`] and [`clip`] print text without such characters, and everything printed
//! on a terminal goes through one of the three.

use std::fmt::{self, Display, Write};
use std::io;
use std::path::Path;

/// Returns true for control characters, direction marks and invisible characters.
///
/// Spaces and combining marks are not hidden.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
            | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E007F}')
}

/// Displays a value on one line. Hidden characters, including line breaks, are shown as escapes such as `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

/// Displays a value that may have several lines, such as an error with an excerpt.
///
/// Hidden characters are shown as escapes. All lines but the first are indented, so that no text can imitate a line of
/// the program.
#[derive(Clone, Copy, Debug)]
pub struct Lines<T>(pub T);

/// Displays a path like [`Printable`]. Bytes that are not valid text are shown as U+FFFD.
pub fn path(path: &Path) -> Printable<std::path::Display<'_>> {
    Printable(path.display())
}

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_none() && f.precision().is_none() {
            return write!(Cleaner { out: f, newline: "\\n" }, "{}", self.0);
        }
        let mut text = String::new();
        write!(Cleaner { out: &mut text, newline: "\\n" }, "{}", self.0)?;
        f.pad(&text)
    }
}

impl<T: Display> Display for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Cleaner { out: f, newline: "\n    " }, "{}", self.0)
    }
}

/// Writes text to `out` without hidden characters.
struct Cleaner<'a, W> {
    out: &'a mut W,
    /// The replacement of a line break.
    newline: &'static str,
}

impl<W: Write> Write for Cleaner<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut clean = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| is_hidden(*c)) {
            self.out.write_str(&text[clean..at])?;
            clean = at + c.len_utf8();
            match c {
                '\n' => self.out.write_str(self.newline)?,
                '\t' => self.out.write_char(' ')?,
                '\r' => self.out.write_str("\\r")?,
                _ => write!(self.out, "{}", c.escape_unicode())?,
            }
        }
        self.out.write_str(&text[clean..])
    }
}

/// Returns at most `width` characters of `text` on one line, for a table cell.
///
/// Hidden characters become spaces, and a run of spaces becomes one.
pub fn clip(text: &str, width: usize) -> String {
    let mut line = String::new();
    let mut blank = false;
    let mut len = 0;
    for c in text.chars() {
        if is_hidden(c) || c.is_whitespace() {
            blank = len > 0;
            continue;
        }
        if len + usize::from(blank) + 1 > width {
            line.pop();
            line.push('…');
            return line;
        }
        if blank {
            line.push(' ');
            len += 1;
            blank = false;
        }
        line.push(c);
        len += 1;
    }
    line
}

/// Writes JSON to a terminal. Hidden characters, which JSON allows in strings from U+007F on, become `\u` escapes.
///
/// The result is equivalent JSON, because only strings can contain such characters. Bytes that are not valid UTF-8 are
/// written unchanged.
#[derive(Debug)]
pub struct TerminalJson<W> {
    out: W,
    /// The first bytes of a character that is not complete yet.
    cut: Vec<u8>,
}

impl<W: io::Write> TerminalJson<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, cut: Vec::new() }
    }

    fn write_text(&mut self, text: &str) -> io::Result<()> {
        let mut clean = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| *c >= '\u{7F}' && is_hidden(*c)) {
            self.out.write_all(&text.as_bytes()[clean..at])?;
            clean = at + c.len_utf8();
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(self.out, "\\u{unit:04x}")?;
            }
        }
        self.out.write_all(&text.as_bytes()[clean..])
    }
}

impl<W: io::Write> io::Write for TerminalJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole;
        let mut rest = if self.cut.is_empty() {
            bytes
        } else {
            whole = [self.cut.as_slice(), bytes].concat();
            self.cut.clear();
            &whole
        };
        loop {
            match str::from_utf8(rest) {
                Ok(text) => {
                    self.write_text(text)?;
                    return Ok(bytes.len());
                }
                Err(error) => {
                    let (text, other) = rest.split_at(error.valid_up_to());
                    self.write_text(str::from_utf8(text).unwrap_or_default())?;
                    let Some(len) = error.error_len() else {
                        self.cut = other.to_vec();
                        return Ok(bytes.len());
                    };
                    self.out.write_all(&other[..len])?;
                    rest = &other[len..];
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Printable, TerminalJson, clip, is_hidden};
    use std::io::Write;

    #[test]
    fn printable_text_is_one_line_without_control_characters() {
        let rows = [
            ("Rule of the day", "Rule of the day"),
            ("naïve – 日本語 👍", "naïve – 日本語 👍"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{9b}31mb\x7f", "a\\u{9b}31mb\\u{7f}"),
            ("a\nb\r\tc", "a\\nb\\r c"),
            ("x\u{202e}gpj.exe\u{2069}", "x\\u{202e}gpj.exe\\u{2069}"),
            ("tag\u{e0041}\u{200b}s", "tag\\u{e0041}\\u{200b}s"),
        ];
        for (text, expected) in rows {
            assert_eq!(Printable(text).to_string(), expected, "{text:?}");
        }
        assert_eq!(format!("{:<6}|", Printable("a\x07")), "a\\u{7}|");
        assert_eq!(format!("{:<4}|", Printable("a")), "a   |");
    }

    #[test]
    fn further_lines_are_indented() {
        let text = "rules/a.yml: broken\nerror: \x1b]0;owned\x07";
        assert_eq!(Lines(text).to_string(), "rules/a.yml: broken\n    error: \\u{1b}]0;owned\\u{7}");
    }

    #[test]
    fn clipped_text_is_short_and_printable() {
        let rows = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("  a\r\n\tb  ", 9, "a b"),
            ("a\x1b[31mb\u{202e}c", 20, "a [31mb c"),
            ("", 3, ""),
        ];
        for (text, width, expected) in rows {
            assert_eq!(clip(text, width), expected, "{text:?}");
        }
    }

    #[test]
    fn terminal_json_is_equivalent() {
        let value = "plain \u{9b}31m \u{202e} \u{e0041} \x1b[0m 日本 \u{7f}";
        let line = serde_json::to_vec(value).expect("a string is JSON");
        for step in 1..9 {
            let mut out = Vec::new();
            let mut writer = TerminalJson::new(&mut out);
            line.chunks(step).for_each(|part| writer.write_all(part).expect("a vector takes everything"));
            let text = String::from_utf8(out).expect("the writer keeps UTF-8");
            assert!(!text.contains(is_hidden), "{text:?}");
            assert_eq!(serde_json::from_str::<String>(&text).expect("it is still JSON"), value);
        }
        let mut out = Vec::new();
        TerminalJson::new(&mut out).write_all(b"a\xff\xc3b\n").expect("a vector takes everything");
        assert_eq!(out, b"a\xff\xc3b\n");
    }
}
