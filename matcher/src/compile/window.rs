//! Windows: the part of a text around a required literal that a regular expression has to see.
//!
//! The bytes that an expression may repeat without a small limit (`\w+`, `.*`) are collected; all other positions of a
//! match are counted. A match therefore contains only a limited number of bytes that cannot be repeated, the
//! separators. It lies between the separators that follow that number on either side of the literal. For most
//! expressions with `.` that is the line. The expression matches in the whole text exactly if it matches in a window,
//! provided that it does not depend on the surroundings of a match as `^` and `\b` do.

use crate::compile::clause;
use crate::engine::window::{LITERALS_MAX, Windows};
use crate::scan::narrow::narrow_unit;
use memchr::memmem;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Repetitions with more copies count as unlimited.
const COPIES_MAX: u32 = 8;
/// Maximum number of separators in a match. Beyond it, windows would hardly be smaller than the text.
const SEPARATORS_MAX: u32 = 64;

/// Returns the windows of an expression; `None` if a match may exceed any window, or needs no literal.
pub(crate) fn windows(source: &str) -> Option<Windows> {
    let hir = regex_syntax::parse(source).ok()?;
    let clauses = clause::singles_of_regex(&hir);
    let clause = clauses.into_iter().find(|clause| (1..=LITERALS_MAX).contains(&clause.needles.len()))?;
    if !hir.properties().look_set().is_empty() {
        return None;
    }
    let mut is_separator = Box::new([false; 256]);
    for byte in 0..0x80 {
        is_separator[usize::from(narrow_unit(byte))] = true;
    }
    repeated(&hir, false, &mut is_separator);
    let separators = most_separators(&hir, &is_separator);
    if separators > SEPARATORS_MAX || !is_separator.contains(&true) {
        return None;
    }
    let least = match &clause.needles[..] {
        [needle] => needle.iter().map(|&byte| (byte, least(&hir, byte))).max_by_key(|(_, least)| *least),
        _ => None,
    };
    // A single occurrence is implied by the literal.
    let least = least.filter(|(_, least)| *least > 1);
    let finder = |needle: Box<[u8]>| memmem::Finder::new(&needle).into_owned();
    let literals = clause.needles.into_iter().map(finder).collect();
    Some(Windows { literals, is_separator, separators, least })
}

/// Removes the bytes that may be repeated without a small limit from the separators.
fn repeated(hir: &Hir, is_repeated: bool, is_separator: &mut [bool; 256]) {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) if is_repeated => {
            bytes(hir, |byte| is_separator[usize::from(byte)] = false);
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => {}
        HirKind::Repetition(repetition) => {
            let has_end = repetition.max.is_some_and(|max| max <= COPIES_MAX);
            repeated(&repetition.sub, is_repeated || !has_end, is_separator);
        }
        HirKind::Capture(capture) => repeated(&capture.sub, is_repeated, is_separator),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            for part in parts {
                repeated(part, is_repeated, is_separator);
            }
        }
    }
}

/// Returns the maximum number of separators of a match.
fn most_separators(hir: &Hir, is_separator: &[bool; 256]) -> u32 {
    let most = |part| most_separators(part, is_separator);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(_) => {
            let mut count = 0;
            bytes(hir, |byte| count += u32::from(is_separator[usize::from(byte)]));
            count
        }
        HirKind::Class(_) => {
            let mut any = false;
            bytes(hir, |byte| any |= is_separator[usize::from(byte)]);
            u32::from(any)
        }
        // An unlimited repetition contains no separators.
        HirKind::Repetition(repetition) => most(&repetition.sub).saturating_mul(repetition.max.unwrap_or(1)),
        HirKind::Capture(capture) => most(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(most).fold(0, u32::saturating_add),
        HirKind::Alternation(parts) => parts.iter().map(most).max().unwrap_or(0),
    }
}

/// Returns how often the byte, in narrowed form, occurs at least in every match.
fn least(hir: &Hir, byte: u8) -> u32 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(_) => {
            let mut count = 0;
            bytes(hir, |own| count += u32::from(own == byte));
            count
        }
        HirKind::Class(class) => {
            let mut is_only = class.maximum_len() == Some(1);
            bytes(hir, |own| is_only &= own == byte);
            u32::from(is_only)
        }
        HirKind::Repetition(repetition) => least(&repetition.sub, byte).saturating_mul(repetition.min),
        HirKind::Capture(capture) => least(&capture.sub, byte),
        HirKind::Concat(parts) => parts.iter().map(|part| least(part, byte)).fold(0, u32::saturating_add),
        HirKind::Alternation(parts) => parts.iter().map(|part| least(part, byte)).min().unwrap_or(0),
    }
}

/// Calls `each` with the ASCII characters of a literal or class, in narrowed form.
fn bytes(hir: &Hir, mut each: impl FnMut(u8)) {
    let mut range = |start: u32, end: u32| {
        for c in start..=end.min(0x7F) {
            each(narrow_unit(c as u16));
        }
    };
    match hir.kind() {
        HirKind::Literal(literal) => {
            for &byte in &literal.0 {
                range(u32::from(byte), u32::from(byte));
            }
        }
        HirKind::Class(Class::Unicode(class)) => {
            for own in class.ranges() {
                range(u32::from(own.start()), u32::from(own.end()));
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            for own in class.ranges() {
                range(u32::from(own.start()), u32::from(own.end()));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::windows;
    use crate::rule::regex::build_regex;
    use crate::scan::narrow::narrow_unit;
    use proptest::prelude::*;

    fn narrowed(units: &[u16]) -> Vec<u8> {
        units.iter().map(|&unit| narrow_unit(unit)).collect()
    }

    #[test]
    fn windows_are_minimal() {
        let far = "-".repeat(100);
        let rows: [(&str, &str, String, Option<Vec<String>>); 8] = [
            ("line", "a.*foo", format!("b\nc foo d\n{far}"), Some(vec!["c foo d".into()])),
            ("words", r"\w+`", format!("{far} ab cd`ef-g {far}"), Some(vec!["ab cd`ef".into()])),
            ("twice", r"\w+`\w+`", format!("{far}ab`c{far}d`ef`g{far}"), Some(vec!["--d`ef`g--".into()])),
            ("joined", "foo.*b", format!("foo\nx\nFOO\n{far}"), Some(vec!["foo\nx\nfoo".into()])),
            ("apart", "foo.*b", format!("foo\n{far}\nfoo"), Some(vec!["foo".into(), "foo".into()])),
            ("no literal", "foo.*b", far.clone(), Some(vec![])),
            ("anything", "(?s)foo.*b", far.clone(), None),
            ("neighbours", r"foo\b", far.clone(), None),
        ];
        for (name, source, text, expected) in rows {
            let text = narrowed(&text.encode_utf16().collect::<Vec<_>>());
            let shown = windows(source).map(|windows| {
                let mut shown = Vec::new();
                windows.any(&text, |range| {
                    shown.push(String::from_utf8(text[range].to_vec()).unwrap());
                    false
                });
                shown
            });
            assert_eq!(shown, expected, "{name}");
        }
    }

    /// Generates expressions from the constructs that Sigma rules use.
    fn sources() -> impl Strategy<Value = String> {
        const ATOMS: [&str; 15] = [
            "`",
            "`",
            "`",
            "ab",
            "ab",
            ".",
            r"\w",
            r"\s",
            r"[\w|-]",
            r"\W",
            "k",
            "\u{e9}",
            "\u{1F600}",
            "(?i:k`)",
            r"\n",
        ];
        let atom = proptest::sample::select(&ATOMS[..]);
        let times = proptest::sample::select(&["", "", "", "+", "*", "?", "{2}", "{1,3}", "{2,40}"][..]);
        let row = |part: BoxedStrategy<String>| {
            proptest::collection::vec((part, times.clone()), 1..5).prop_map(|parts| {
                parts.iter().map(|(part, times)| format!("(?:{part}){times}")).collect::<Vec<_>>().concat()
            })
        };
        let plain = row(atom.prop_map(String::from).boxed());
        let either = (plain.clone(), plain.clone()).prop_map(|(a, b)| format!("{a}|{b}"));
        row(prop_oneof![3 => plain, 1 => either].boxed())
    }

    const PIECES: [&str; 12] = [
        "`",
        "`",
        "ab",
        "aB",
        "k",
        "\u{212A}",
        "-",
        " ",
        "\n",
        "\u{e9}",
        "\u{1F600}",
        "......................................................................",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn windows_match_where_the_text_matches(
            source in sources(),
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40),
        ) {
            let Some(windows) = windows(&source) else { return Ok(()) };
            let Ok(regex) = build_regex(&source) else { return Ok(()) };
            let units: Vec<u16> = pieces.concat().encode_utf16().collect();
            let mut last = 0;
            let found = windows.any(&narrowed(&units), |range| {
                assert!(last <= range.start && range.start < range.end);
                last = range.end;
                // No window splits a surrogate pair.
                regex.is_match(&String::from_utf16(&units[range]).unwrap())
            });
            prop_assert_eq!(found, regex.is_match(&pieces.concat()), "{}", source);
        }
    }
}
