//! Regular expressions of rules give the same verdict as PCRE2, or are rejected.

use etwsieve_budget::Budget;
use etwsieve_matcher::rule::pcre::{Options, translate};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, load};
use etwsieve_tests::writer::script_block;
use proptest::prelude::*;

const BLOCK: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

/// Returns the verdict of PCRE2; `None` if the expression is invalid there or exceeds its limits.
fn verdict(pattern: &str, text: &str) -> Option<bool> {
    let regex = pcre2::bytes::RegexBuilder::new().utf(true).ucp(false).build(pattern).ok()?;
    regex.is_match(text.as_bytes()).ok()
}

/// Returns the verdict of a rule with this expression; `None` if the rule is rejected.
fn ours(pattern: &str, text: &str) -> Option<bool> {
    // Strings in JSON are valid YAML.
    let value = serde_json::to_string(pattern).expect("strings are JSON");
    let rule = format!(
        "title: T\nlogsource: {{category: ps_script}}\ndetection: {{s: {{ScriptBlockText|re: {value}}}, condition: s}}\n"
    );
    let loaded = load([("rule.yml", rule.as_str())]);
    if loaded.rules.is_empty() {
        return None;
    }
    let matcher = Matcher::new(loaded.rules);
    let bytes = script_block(1, 1, text, BLOCK, None);
    let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
    Some(!matcher.find(&payload, &mut Scratch::default()).is_empty())
}

/// Pieces of expressions, many of which have another meaning in other syntaxes.
const PIECES: &[&str] = &[
    "a",
    "b",
    "k",
    "S",
    "-",
    "_",
    " ",
    "\n",
    "é",
    "K",
    "ſ",
    ".",
    ".",
    "^",
    "$",
    r"\A",
    r"\z",
    r"\Z",
    r"\b",
    r"\B",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\h",
    r"\H",
    r"\v",
    r"\V",
    r"\N",
    r"\R",
    r"\K",
    r"\G",
    r"\X",
    r"\<",
    r"\>",
    r"\-",
    r"\_",
    r"\/",
    r"\&",
    r"\0",
    r"\01",
    r"\1",
    r"\x41",
    r"\x{212a}",
    r"\x",
    r"\o{101}",
    r"\e",
    r"\t",
    r"\cA",
    r"\Q",
    r"\E",
    r"\Qa*\E",
    r"\pL",
    r"\p{Lu}",
    r"\P{Nd}",
    r"\p{^L}",
    r"\p{L&}",
    "*",
    "+",
    "?",
    "*?",
    "+?",
    "??",
    "++",
    "*+",
    "{2}",
    "{1,2}",
    "{,2}",
    "{0}",
    "{2,1}",
    "{",
    "}",
    "{1",
    "{x}",
    "]",
    "[",
    "(",
    ")",
    "(?:",
    "(?i)",
    "(?i:",
    "(?-i)",
    "(?s)",
    "(?m)",
    "(?m:",
    "(?x)",
    "(?U)",
    "(?^)",
    "(?n)",
    "(?<n>",
    "(?P<m>",
    "(?#x)",
    "(?=",
    "(?!",
    "(?<=a)",
    "(?>",
    "(?|",
    "(?R)",
    "|",
    "|",
    "[a]",
    "[^a]",
    "[a-c]",
    "[^a-c]",
    "[&&|]",
    "[a--b]",
    "[a~~b]",
    "[[]",
    "[]a]",
    "[^]a]",
    "[a-]",
    "[-a]",
    "[a-c-e]",
    r"[\w-]",
    r"[\d-z]",
    r"[^\W_]",
    r"[\s\S]",
    "[[:alpha:]]",
    "[[:^alpha:]]",
    "[[:upper:]k]",
    "[[:alpha]",
    "[:alpha:]",
    r"[\b]",
    r"[\]]",
    r"[\x41-\x43]",
    "[k-s]",
    "[^k]",
    "#",
    "# a\n",
];

/// Pieces of classes, used after a bracket.
const CLASS_PIECES: &[&str] = &[
    "a",
    "b",
    "c",
    "z",
    "k",
    "-",
    "-",
    "^",
    "[",
    "[:alpha:]",
    "[:^digit:]",
    "[:x:]",
    "[:",
    ":]",
    "[.",
    "&",
    "&&",
    "~~",
    "--",
    r"\d",
    r"\W",
    r"\h",
    r"\]",
    r"\\",
    r"\-",
    r"\b",
    r"\n",
    r"\x41",
    r"\0",
    r"\1",
    r"\pL",
    r"\E",
    r"\Q",
    "é",
    "ſ",
    " ",
    "#",
];

const TEXTS: &[&str] = &[
    "a",
    "b",
    "c",
    "k",
    "K",
    "\u{212a}",
    "s",
    "S",
    "\u{17f}",
    "é",
    "É",
    "ß",
    "\u{1e9e}",
    "-",
    "_",
    " ",
    "\t",
    "\n",
    "\n",
    "\r\n",
    "\u{b}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "1",
    "\u{665}",
    "&",
    "|",
    "~",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "*",
    "A",
    "B",
    "\\",
    ":",
    "(",
    ")",
    "#",
    "i",
    "\u{131}",
    "\u{130}",
    "\u{1f600}",
    "\u{1}",
    "\u{1b}",
    "^",
    "$",
    ",",
    "2",
    "x",
];

fn pieces(from: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(from), 0..most).prop_map(|parts| parts.concat())
}

/// Generates expressions that are mostly valid: atoms with quantifiers, groups and alternatives.
fn valid() -> impl Strategy<Value = String> {
    const ATOMS: &[&str] = &[
        "a",
        "b",
        "k",
        "é",
        "-",
        r"\n",
        ".",
        r"\d",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        r"\h",
        r"\v",
        "[^a]",
        "[a-k]",
        r"[\w-]",
        "[[:upper:]]",
        r"[^\s_]",
        r"\x{17f}",
        "a",
        "k",
        r"\n",
        "-",
    ];
    const POSITIONS: &[&str] =
        &[r"\b", r"-\B", "^", "$", r"\Z", r"\z", r"\A", "(?i)", "(?m)", "(?s)", "(?-i)"];
    const TIMES: &[&str] = &["", "", "", "", "*", "+", "?", "{2}", "{1,2}", "*?", "{0,3}?"];
    let atom = prop_oneof![
        5 => (proptest::sample::select(ATOMS), proptest::sample::select(TIMES))
            .prop_map(|(atom, times)| format!("{atom}{times}")),
        1 => proptest::sample::select(POSITIONS).prop_map(str::to_owned),
    ];
    let row = proptest::collection::vec(atom, 1..5).prop_map(|parts| parts.concat());
    row.prop_recursive(3, 24, 4, |inner| {
        (
            proptest::collection::vec(inner, 1..4),
            proptest::sample::select(&["(", "(?:", "(?i:", "(?m:", "(?s:"][..]),
            proptest::sample::select(TIMES),
            any::<bool>(),
        )
            .prop_map(|(parts, open, times, is_choice)| {
                if is_choice {
                    format!("{open}{}){times}", parts.join("|"))
                } else {
                    parts.iter().map(|part| format!("{open}{part}){times}")).collect::<Vec<_>>().concat()
                }
            })
    })
}

fn compare(pattern: &str, text: &str) -> Result<(), TestCaseError> {
    if let Some(ours) = ours(pattern, text) {
        let theirs = verdict(pattern, text);
        let translated = translate(pattern, Options::default(), &mut Budget::new(1 << 24, 1 << 24));
        // PCRE2 may reject an expression because of its limits.
        prop_assert_eq!(Some(ours), theirs, "{:?} is {:?}, on {:?}", pattern, translated, text);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces(pattern in pieces(PIECES, 7), texts in proptest::collection::vec(pieces(TEXTS, 5), 1..4)) {
        for text in texts {
            compare(&pattern, &text)?;
        }
    }

    #[test]
    fn any_class(
        class in pieces(CLASS_PIECES, 6),
        flags in proptest::sample::select(&["", "(?i)", "(?x)"][..]),
        texts in proptest::collection::vec(proptest::sample::select(TEXTS), 8),
    ) {
        for text in texts {
            compare(&format!("{flags}[{class}]"), text)?;
        }
    }

    #[test]
    fn valid_expressions(pattern in valid(), texts in proptest::collection::vec(pieces(TEXTS, 5), 1..4)) {
        for text in texts {
            compare(&pattern, &text)?;
        }
    }
}

/// The grammar above gives enough expressions that are not rejected.
#[test]
fn most_valid_expressions_are_translated() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut translated = 0;
    for _ in 0..200 {
        let pattern = valid().new_tree(&mut runner).unwrap().current();
        translated += usize::from(ours(&pattern, "").is_some());
    }
    assert!(translated > 60, "{translated} of 200");
}

/// Compares every character that has another case with every character that it may equal.
#[test]
fn letters_fold_as_in_pcre() {
    let mut differences = Vec::new();
    for c in ('\u{80}'..='\u{24ff}').chain('\u{2c00}'..='\u{2dff}').chain('\u{a640}'..='\u{abff}') {
        let others: Vec<char> =
            c.to_lowercase().chain(c.to_uppercase()).filter(|other| *other != c).collect();
        for other in others {
            let (pattern, text) = (format!("(?i)^{c}$"), other.to_string());
            if ours(&pattern, &text) != verdict(&pattern, &text) {
                differences.push(format!("{c:?} {other:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:?}");
}
