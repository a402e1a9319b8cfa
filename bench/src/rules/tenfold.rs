//! Makes copies of rules with other words, to measure the cost of more rules.
//!
//! In every value of a rule's detection the longest word is replaced by another one of the same length with vowels in the
//! same positions: `Invoke-Mimikatz` becomes `Invoke-Lonepuzb`. The rest does not change, so that the copies share what
//! real rules share. Copies are deterministic.

use crate::answer::mix;

/// Minimum length of a replaced word. Rules share shorter words, such as `-e` and `$_`.
const WORD_LEN_MIN: usize = 4;
const VOWELS: &[u8] = b"aeiou";
const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxyz";

/// Returns the text of a copy of a rule; copy 0 is the rule itself.
pub(super) fn varied(text: &str, copy: u32) -> String {
    if copy == 0 {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut in_detection = false;
    for line in text.split_inclusive('\n') {
        if !line.starts_with([' ', '\t', '#', '\r', '\n']) {
            in_detection = line.starts_with("detection:");
        }
        if let Some(id) = line.strip_prefix("id:") {
            out.push_str("id: ");
            out.push_str(&id_of(id.trim(), copy));
            out.push('\n');
        } else if in_detection {
            let value = value_of(line);
            let (before, value) = line.split_at(line.len() - value.len());
            out.push_str(before);
            out.push_str(&vary(value, copy));
        } else {
            out.push_str(line);
        }
    }
    out
}

/// Returns the id of a copy.
fn id_of(id: &str, copy: u32) -> String {
    let (_, rest) = id.split_once('-').unwrap_or(("", id));
    let first = id.bytes().fold(u64::from(copy), |hash, byte| mix(hash ^ u64::from(byte)));
    format!("{:08x}-{rest}", first as u32)
}

/// Returns the value in a line of a detection; empty if it has none, as for names of selections and for conditions.
fn value_of(line: &str) -> &str {
    let item = line.trim_start();
    let item = item.strip_prefix("- ").map_or(item, str::trim_start);
    let key = item
        .find(':')
        .filter(|end| item[..*end].bytes().all(|b| b.is_ascii_alphanumeric() || b"|_".contains(&b)));
    match key {
        // A colon within a value is not followed by a space, or is in quotes.
        Some(end) if item[end + 1..].starts_with([' ', '\r', '\n']) => {
            let is_text = item[..end].contains('|') || item.starts_with("ScriptBlockText");
            if is_text && !item[..end].contains("|re") { &item[end + 1..] } else { "" }
        }
        _ if item.starts_with(['#', '|']) || is_expression(item) => "",
        _ => item,
    }
}

/// Returns whether a value may be a regular expression, in which letters have a meaning.
fn is_expression(value: &str) -> bool {
    value.contains("(?") || value.contains("\\s") || value.contains("\\d") || value.contains("{1,")
}

fn vary(value: &str, copy: u32) -> String {
    // A comment may follow the value.
    let end = value.find(" #").unwrap_or(value.len());
    let mut longest = 0..0;
    let mut start = 0;
    for (at, byte) in value.bytes().chain([b' ']).enumerate() {
        if !byte.is_ascii_alphabetic() || at >= end {
            if at.min(end) - start.min(end) > longest.len() {
                longest = start..at.min(end);
            }
            start = at + 1;
        }
    }
    if longest.len() < WORD_LEN_MIN {
        return value.to_owned();
    }
    let seed =
        value[longest.clone()].bytes().fold(u64::from(copy), |hash, byte| mix(hash ^ u64::from(byte | 0x20)));
    let word: String =
        (0..).zip(value[longest.clone()].chars()).map(|(at, letter)| other(letter, mix(seed ^ at))).collect();
    format!("{}{word}{}", &value[..longest.start], &value[longest.end..])
}

/// Returns another letter of the same kind and case.
fn other(letter: char, random: u64) -> char {
    let small = letter.to_ascii_lowercase();
    let kind = if VOWELS.contains(&(small as u8)) { VOWELS } else { CONSONANTS };
    let other = char::from(kind[(random % kind.len() as u64) as usize]);
    if letter.is_ascii_uppercase() { other.to_ascii_uppercase() } else { other }
}

#[cfg(test)]
mod tests {
    use super::{value_of, varied};

    const RULE: &str = "title: A Title\nid: 0f0e0d0c-1111-2222-3333-444455556666\nlogsource:\n    category: ps_script\n\
        detection:\n    selection_one:\n        ScriptBlockText|contains|all:\n            - 'Invoke-Mimikatz' # Also others\n\
        \x20           - '-e '\n        EventID: 4104\n    condition: selection_one\nlevel: high\n";

    #[test]
    fn only_the_longest_word_of_a_value_varies() {
        assert_eq!(varied(RULE, 0), RULE);
        let copies: Vec<String> = (1..10).map(|copy| varied(RULE, copy)).collect();
        for copy in &copies {
            assert_eq!(copy.lines().count(), RULE.lines().count());
            let differing: Vec<(&str, &str)> =
                RULE.lines().zip(copy.lines()).filter(|(a, b)| a != b).collect();
            assert_eq!(differing.len(), 2, "id and one value: {copy}");
            let (_, value) = differing[1];
            assert!(
                value.starts_with("            - 'Invoke-") && value.ends_with("' # Also others"),
                "{value}"
            );
            assert_eq!(value.len(), differing[1].0.len());
        }
        for (at, copy) in copies.iter().enumerate() {
            assert_eq!(*copy, varied(RULE, at as u32 + 1), "the same every time");
            assert!(copies[..at].iter().all(|other| other != copy));
        }
    }

    #[test]
    fn values_of_lines() {
        let rows = [
            ("    selection:\n", ""),
            ("        - 'abc: d'\n", "'abc: d'\n"),
            ("        ScriptBlockText|contains: 'x'\n", " 'x'\n"),
            ("        - ScriptBlockText|contains: x\n", " x\n"),
            ("        ScriptBlockText|re: 'x'\n", ""),
            ("    condition: all of them\n", ""),
            ("        - '(?i)abc\\s'\n", ""),
            ("        # comment\n", ""),
        ];
        for (line, expected) in rows {
            assert_eq!(value_of(line).trim_end(), expected.trim_end(), "{line:?}");
        }
    }
}
