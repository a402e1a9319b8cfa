//! Light normalisation: unifies characters that PowerShell's tokenizer treats alike.
//!
//! It ignores the context of strings and comments, so that a fragment that begins in the middle of one is read alike:
//!
//! - Dashes and quotation marks of other kinds become the plain ones.
//! - Backticks are removed everywhere. Before most letters they have no meaning. In single quotes they are literal, but
//!   that text is code as soon as `Invoke-Expression` runs it. Before `n`, `t` and some others they form control
//!   characters; here the letter remains, which loses no needle. Folding ([`fold`](super::fold)), which recognises
//!   strings, evaluates escapes. `` `u{45} `` becomes its character.
//! - Runs of whitespace within a line become one blank, as do tabs, other kinds of blanks, and a backtick at the end of
//!   a line together with the line end. Whitespace at the beginning and end of a line stays, because no needle contains
//!   a line end.

use super::chars::{
    BACKTICK, BLANK, DASH, DOUBLE, SINGLE, is_dash, is_double_quote, is_newline, is_single_quote,
    is_whitespace, unicode_escape,
};
use super::mapped::{Builder, Mapped, PIECE_LEN};
use super::transformation::{Transformation, Transformations};
use super::work::Work;

/// Units that are tested at once.
const CHUNK: usize = 16;
/// Steps per chunk.
const CHUNK_STEPS: usize = 3;
/// Steps per chunk whose units are then examined one by one.
const SLOW_CHUNK_STEPS: usize = 20;
/// Steps per change, for which the text gets two more pieces.
const CHANGE_STEPS: usize = 20;

/// Returns the text in light normalisation; `None` if that changes nothing. Linear in the text. Once the work is
/// exhausted, the rest of the text stays as it is.
pub(super) fn normalize(text: &Mapped, work: &mut Work<'_, '_>) -> Option<Mapped> {
    let units = text.units();
    work.charge(units.len() / CHUNK * CHUNK_STEPS)?;
    work.copy(text)?;
    let mut builder = Builder::new(text);
    let mut at = 0;
    // End of the chunk that has been tested.
    let mut known = 0;
    while at < units.len() {
        if at >= known {
            let chunks = |at: usize| units.get(at..).and_then(<[u16]>::first_chunk);
            while chunks(at).is_some_and(stays) {
                at += CHUNK;
            }
            known = at + CHUNK;
            if work.charge(SLOW_CHUNK_STEPS).is_none() {
                break;
            }
        }
        let Some(&unit) = units.get(at) else { break };
        let behind = match unit {
            // ASCII except blanks and the backtick.
            0x21..BACKTICK | 0x61..0x80 => Some(at + 1),
            // A single blank between words.
            BLANK
                if units.get(at + 1).is_some_and(|next| (0x21..0x80).contains(next) && *next != BACKTICK) =>
            {
                Some(at + 2)
            }
            // Whitespace at the beginning of a line stays, as does that of an empty line.
            0x0A | 0x0D => {
                let end = work.find(units, at + 1, |unit| unit != BLANK);
                let stays =
                    |unit: &u16| is_newline(*unit) || ((0x21..0x80).contains(unit) && *unit != BACKTICK);
                if end.is_some_and(|end| units.get(end).is_some_and(stays)) {
                    known = end.unwrap_or(known);
                    end
                } else {
                    end.map(|_| at + 1)
                }
            }
            _ if unit == BACKTICK || is_whitespace(unit) => blanks(units, at, &mut builder, work),
            0..0x80 => Some(at + 1),
            _ if is_dash(unit) => one(at, DASH, Transformation::Dash, &mut builder, work),
            _ if is_single_quote(unit) => one(at, SINGLE, Transformation::Quote, &mut builder, work),
            _ if is_double_quote(unit) => one(at, DOUBLE, Transformation::Quote, &mut builder, work),
            _ => Some(at + 1),
        };
        let Some(behind) = behind else { break };
        at = behind;
    }
    builder.finish()
}

/// Returns true if these units are unchanged: ASCII without backticks, and blanks only one at a time before something
/// else. The last unit only serves as the successor of the one before.
#[expect(clippy::needless_bitwise_bool, reason = "short-circuiting would prevent vectorisation")]
fn stays(units: &[u16; CHUNK + 1]) -> bool {
    let is_plain = |unit: u16| unit < 0x80 && unit != BACKTICK;
    let is_blank = |unit: u16| unit == BLANK || unit == 0x09 || unit == 0x0B || unit == 0x0C;
    // No short-circuiting, so that the compiler can vectorise this.
    let changes = |at: usize| {
        let (unit, next) = (units[at], units[at + 1]);
        !is_plain(unit)
            | (is_blank(unit) & (unit != BLANK))
            | ((unit == BLANK) & (is_blank(next) | !is_plain(next) | (next < BLANK)))
    };
    !(0..CHUNK).fold(false, |any, at| any | changes(at))
}

fn one(
    at: usize,
    unit: u16,
    done: Transformation,
    builder: &mut Builder<'_>,
    work: &mut Work<'_, '_>,
) -> Option<usize> {
    work.charge(CHANGE_STEPS)?;
    work.allocate(2 * PIECE_LEN)?;
    builder.copy_to(at);
    builder.put(at + 1, [unit], Transformations::only(done));
    Some(at + 1)
}

/// Replaces backticks and the unit after them with that unit.
fn backticks(units: &[u16], at: usize, behind: usize, builder: &mut Builder<'_>) -> usize {
    builder.copy_to(at);
    let done = Transformations::only(Transformation::Backtick);
    if let Some((c, len)) = unicode_escape(&units[behind..]) {
        builder.put(behind + len, c.encode_utf16(&mut [0; 2]).iter().copied(), done);
        return behind + len;
    }
    let Some(&next) = units.get(behind) else {
        builder.put(behind, [], done);
        return behind;
    };
    let (unit, own) = plain(next);
    builder.put(behind + 1, [unit], done.and(own));
    behind + 1
}

/// Returns the plain form of a unit.
fn plain(unit: u16) -> (u16, Transformations) {
    match unit {
        0..0x80 => (unit, Transformations::NONE),
        _ if is_dash(unit) => (DASH, Transformations::only(Transformation::Dash)),
        _ if is_single_quote(unit) => (SINGLE, Transformations::only(Transformation::Quote)),
        _ if is_double_quote(unit) => (DOUBLE, Transformations::only(Transformation::Quote)),
        _ => (unit, Transformations::NONE),
    }
}

/// Normalises a run of whitespace, backticks, and line ends after backticks.
fn blanks(units: &[u16], at: usize, builder: &mut Builder<'_>, work: &mut Work<'_, '_>) -> Option<usize> {
    work.charge(CHANGE_STEPS)?;
    work.allocate(2 * PIECE_LEN)?;
    // The run ends after its last blank; backticks after it belong to what follows.
    let (mut next, mut end, mut ticks, mut continued) = (at, at, 0, false);
    let mut ticks_inside = 0;
    while let Some(&unit) = units.get(next) {
        work.charge(1)?;
        if is_whitespace(unit) {
            next += 1;
        } else if unit != BACKTICK {
            break;
        } else if is_newline(*units.get(next + 1).unwrap_or(&0)) {
            next += 2 + usize::from(units[next + 1..].starts_with(&[0x0D, 0x0A]));
            continued = true;
        } else {
            next += 1;
            ticks += 1;
            continue;
        }
        (end, ticks_inside) = (next, ticks);
    }
    if end == at {
        return Some(backticks(units, at, next, builder));
    }
    let at_border = |unit: Option<&u16>| unit.is_none_or(|unit| is_newline(*unit));
    let begins = at_border(at.checked_sub(1).map(|before| &units[before]));
    let done = Transformations::only(Transformation::Whitespace);
    let done = if continued || ticks_inside > 0 { done.with(Transformation::Backtick) } else { done };
    if continued || !(begins || at_border(units.get(next))) {
        if units[at..end] != [BLANK] {
            builder.copy_to(at);
            builder.put(end, [BLANK], done);
        }
    } else if ticks_inside > 0 {
        builder.copy_to(at);
        builder.put(end, units[at..end].iter().copied().filter(|unit| *unit != BACKTICK), done);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::normalize;
    use crate::view::fold::tests::with_work;
    use crate::view::mapped::Mapped;
    use crate::view::transformation::Transformation::{self, Backtick, Dash, Whitespace};
    use proptest::prelude::*;

    fn mapped(text: &str) -> Mapped {
        let units: Vec<[u8; 2]> = text.encode_utf16().map(u16::to_le_bytes).collect();
        Mapped::original(&units)
    }

    fn normalized(text: &str) -> String {
        let source = mapped(text);
        let made = with_work(1 << 20, |work| normalize(&source, work)).unwrap_or(source);
        String::from_utf16(made.units()).unwrap()
    }

    #[test]
    fn equivalent_notations_are_unified() {
        let rows: [(&str, &str, &str); 17] = [
            ("nothing", "Enter-PSSession  ", "Enter-PSSession  "),
            ("dashes", "a\u{2013}b\u{2014}c\u{2015}d\u{2012}", "a-b-c-d\u{2012}"),
            ("quotes", "\u{2018}a\u{201B} \u{201C}b\u{201E} \u{201F}", "'a' \"b\" \u{201F}"),
            ("backtick", "Enter-P`SSess`ion", "Enter-PSSession"),
            ("backtick before a letter of an escape", "Enter-PSSessio`n", "Enter-PSSession"),
            ("backtick and dash", "Enter`\u{2013}PSSession", "Enter-PSSession"),
            ("backtick at the end", "ab`", "ab"),
            ("backticks in a row", "a``b", "ab"),
            ("backtick before a blank", "a` b", "a b"),
            ("unicode escape", "`u{45}nter", "Enter"),
            ("a row of blanks", "net   user", "net user"),
            ("tab", "net\tuser", "net user"),
            ("other blanks", "net\u{A0}\u{3000}user", "net user"),
            ("beginning and end of a line", "  a\t\r\n\tb  ", "  a\t\r\n\tb  "),
            ("line continues", "a `\r\n   -b", "a -b"),
            ("line continues, line feed alone", "a`\nb", "a b"),
            ("full-width letters stay", "\u{FF25}nter", "\u{FF25}nter"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(normalized(text), expected, "{name}");
        }
    }

    #[test]
    fn origins_and_transformations() {
        let text = mapped("x Enter\u{2013}P`SSession   -C `\n z");
        let made = with_work(1 << 20, |work| normalize(&text, work)).unwrap();
        let text = String::from_utf16(made.units()).unwrap();
        assert_eq!(text, "x Enter-PSSession -C z");
        let rows: [(&str, std::ops::Range<usize>, &[Transformation]); 5] = [
            ("x Enter", 0..7, &[]),
            ("Enter-P", 2..9, &[Dash]),
            ("Enter-PSSession", 2..18, &[Dash, Backtick]),
            ("n -", 17..22, &[Whitespace]),
            ("C z", 22..28, &[Backtick, Whitespace]),
        ];
        for (part, from, done) in rows {
            let at = text.find(part).unwrap();
            let (origin, found) = made.origin(&(at..at + part.len()));
            assert_eq!((origin, found.list()), (from, done.to_vec()), "{part}");
        }
    }

    /// Slow reference implementation: character by character, with string replacement.
    fn slow(text: &str) -> String {
        let mut chars: Vec<char> =
            text.replace("`\r\n", "\u{1}").replace("`\n", "\u{1}").replace("`\r", "\u{1}").chars().collect();
        chars.retain(|c| *c != '`');
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            let is_blank = |c: char| c == '\u{1}' || (c.is_whitespace() && c != '\n' && c != '\r');
            if !is_blank(chars[at]) {
                out.push(match chars[at] {
                    '\u{2013}' | '\u{2014}' | '\u{2015}' => '-',
                    '\u{2018}' => '\'',
                    '\u{201C}' => '"',
                    c => c,
                });
                at += 1;
                continue;
            }
            let len = chars[at..].iter().take_while(|c| is_blank(**c)).count();
            let run = &chars[at..at + len];
            let border = |c: Option<&char>| c.is_none_or(|c| *c == '\n' || *c == '\r');
            let at_border = border(at.checked_sub(1).map(|at| &chars[at])) || border(chars.get(at + len));
            if run.contains(&'\u{1}') || !at_border {
                out.push(' ');
            } else {
                out.extend(run);
            }
            at += len;
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn equals_the_reference(text in "[ab \t\u{A0}'\u{2013}\u{2018}\u{201C}\r\n-]{0,24}(`?[ab\r\n ]){0,24}") {
            prop_assert_eq!(normalized(&text), slow(&text));
        }

        #[test]
        fn origins_are_within_the_source(text in "[ab \t\u{2013}\r\n`]{0,40}") {
            let source = mapped(&text);
            if let Some(made) = with_work(1 << 20, |work| normalize(&source, work)) {
                for at in 0..made.units().len() {
                    let (from, done) = made.origin(&(at..at + 1));
                    prop_assert!(!from.is_empty() && from.end <= source.units().len());
                    if done.is_none() {
                        prop_assert_eq!(&source.units()[from], &made.units()[at..=at]);
                    }
                }
            }
        }
    }
}
