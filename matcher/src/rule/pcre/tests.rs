//! Compares verdicts with those of PCRE2 10.42 (`PCRE2_UTF`), and tests what is rejected. An end-to-end test compares
//! random expressions with PCRE2 itself.

use super::{Options, REGEX_DEPTH_MAX, translate};
use crate::rule::regex::build_regex;
use etwsieve_budget::Budget;
use regex_syntax::hir::{Class, HirKind};

fn translated(source: &str) -> Result<String, String> {
    let mut budget = Budget::new(1 << 24, 1 << 24);
    translate(source, Options::default(), &mut budget).map_err(|error| error.to_string())
}

/// An expression, and whether PCRE2 finds a match in each text.
type Verdicts = (&'static str, &'static [(&'static str, bool)]);

const VERDICTS: &[Verdicts] = &[
    ("\\<script\\>", &[("x <script> y", true), ("x script y", false)]),
    ("cmd[&&|]dir", &[("cmd&dir", true), ("cmd|dir", true), ("cmd dir", false)]),
    ("[!--m]", &[("-", true), ("m", true), ("a", false), ("\"", true)]),
    ("[a~~z]", &[("~", true), ("a", true), ("z", true), ("b", false)]),
    ("[[]x", &[("[x", true), ("x", false)]),
    ("[a[b]c]", &[("ac]", true), ("[c]", true), ("bc]", true), ("ac", false)]),
    ("[]a]", &[("]", true), ("a", true), ("b", false)]),
    ("[^]a]", &[("]", false), ("b", true)]),
    ("[a\\]b]", &[("]", true), ("\\", false)]),
    ("[a-]", &[("-", true), ("b", false)]),
    ("[-a]", &[("-", true), ("b", false)]),
    ("[a-c-e]", &[("-", true), ("d", false), ("e", true), ("b", true)]),
    ("[+--]", &[(",", true), ("*", false)]),
    ("[\\w.-]x", &[("-x", true), (".x", true), (" x", false)]),
    ("end$", &[("end", true), ("end\n", true), ("end\n\n", false), ("end\r\n", false), ("ends", false)]),
    ("^end$", &[("a\nend\nb", false), ("end\n", true)]),
    ("^$", &[("", true), ("\n", true), ("\n\n", false)]),
    ("(?m)^b$", &[("a\nb\nc", true), ("ab", false)]),
    ("(?m)^b", &[("a\nb", true), ("a\n", false)]),
    ("(a$|b)", &[("a\n", true), ("ac", false)]),
    ("(\\s|$)", &[("a", true), ("", true)]),
    ("foo($|\\s)", &[("foo", true), ("foo\n", true), ("foo bar", true), ("foob", false)]),
    ("a$\\s*", &[("a", true), ("a\n", true), ("ab", false)]),
    ("end\\Z", &[("end", true), ("end\n", true), ("end\n\n", false)]),
    ("end\\z", &[("end", true), ("end\n", false)]),
    ("\\Aab", &[("ab", true), ("b\nab", false)]),
    ("a.b", &[("a\nb", false), ("a\rb", true), ("axb", true)]),
    ("(?s)a.b", &[("a\nb", true)]),
    ("(?s-s:a.b)", &[("a\nb", false)]),
    ("a\\Nb", &[("a\nb", false), ("axb", true)]),
    ("(?s)a\\Nb", &[("a\nb", false), ("axb", true)]),
    ("\\d", &[("5", true), ("\u{665}", false)]),
    ("\\D", &[("5", false), ("\u{665}", true)]),
    ("^\\w$", &[("a", true), ("\u{e9}", false), ("_", true)]),
    ("^\\W$", &[("a", false), ("\u{e9}", true), ("-", true)]),
    ("^\\s$", &[("\u{a0}", false), ("\u{85}", false), ("\u{b}", true), (" ", true)]),
    ("^\\S$", &[("\u{a0}", true), (" ", false)]),
    ("^\\h$", &[("\u{a0}", true), ("\t", true), ("\n", false), ("h", false)]),
    ("^\\v$", &[("\u{b}", true), ("\n", true), ("\u{2028}", true), ("v", false)]),
    ("^\\H$", &[("h", true), ("\t", false)]),
    ("^\\V$", &[("v", true), ("\n", false)]),
    ("\\bab\\b", &[("ab", true), ("\u{e9}ab\u{e9}", true), ("xab", false)]),
    ("a\\b", &[("a\u{e9}", true), ("ab", false)]),
    ("\\B-x", &[("a-x", false), (" -x", true), ("-x", true)]),
    ("-\\B", &[("-x", false), ("- ", true), ("-", true)]),
    ("(?i)k", &[("K", true), ("\u{212a}", true), ("x", false)]),
    ("(?i)[a-z]", &[("\u{212a}", true), ("\u{17f}", true), ("5", false)]),
    ("(?i)\\w", &[("\u{212a}", false), ("K", true)]),
    ("(?i)[\\w]", &[("\u{212a}", false), ("K", true)]),
    ("(?i)[^k]", &[("\u{212a}", false), ("K", false), ("x", true)]),
    ("(?i)[[:alpha:]]", &[("\u{17f}", false), ("S", true)]),
    ("(?i)[[:upper:]]", &[("a", true), ("5", false)]),
    ("(?i)\u{e9}", &[("\u{c9}", true), ("e", false)]),
    ("(?i)\u{131}", &[("I", false), ("\u{131}", true)]),
    ("(?i)\u{df}", &[("SS", false), ("\u{df}", true)]),
    ("[[:alpha:]]+", &[("abc", true), ("123", false), ("\u{e9}", false)]),
    ("[[:^alpha:]]", &[("abc", false), ("\u{e9}", true)]),
    ("[[:punct:]]", &[("-", true), ("a", false)]),
    ("[[:alpha]x", &[("[x", true), (":x", true), ("x", false)]),
    ("[[:word:][:space:]]", &[("_", true), ("-", false)]),
    ("a{2}", &[("aa", true), ("a", false)]),
    ("a{2,}b", &[("aab", true), ("ab", false)]),
    ("^a{1,2}$", &[("aa", true), ("aaa", false)]),
    ("a{x", &[("a{x", true), ("aa", false)]),
    ("a{}", &[("a{}", true), ("a", false)]),
    ("{", &[("{", true), ("a", false)]),
    ("a{1", &[("a{1", true), ("aa", false)]),
    ("\\$\\{?in", &[("${in", true), ("$in", true), ("$x", false)]),
    ("x]y}", &[("x]y}", true), ("xy", false)]),
    ("\\/\\-\\\"\\#\\ \\&\\~", &[("/-\"# &~", true), ("x", false)]),
    ("\\_\\\u{e9}", &[("_\u{e9}", true), ("x", false)]),
    ("\\x41\\x{42}", &[("AB", true), ("x41", false)]),
    ("\\0\\012", &[("\u{0}\n", true), ("0", false)]),
    ("\\o{101}", &[("A", true), ("o", false)]),
    ("\\e\\a\\f\\n\\r\\t", &[("\u{1b}\u{7}\u{c}\n\r\t", true), ("x", false)]),
    ("\\cA\\c[", &[("\u{1}\u{1b}", true), ("cA", false)]),
    ("[\\b]", &[("\u{8}", true), ("b", false)]),
    ("[\\x41-\\x43]", &[("B", true), ("x", false)]),
    ("\\Qa*b\\E+", &[("a*bb", true), ("aab", false)]),
    ("\\Qa.b", &[("a.b", true), ("axb", false)]),
    ("a\\E*b", &[("aab", true), ("b", true), ("a*b", true)]),
    ("a(?#x)b", &[("ab", true), ("a(?#x)b", false)]),
    ("(?x)a b # c\n c", &[("abc", true), ("a b c", false)]),
    ("(?x)a\\ b[ c]", &[("a b ", true), ("a bc", true), ("abc", false)]),
    ("(?x)a +b", &[("aab", true), ("a +b", false)]),
    ("(?i)a(?-i)b", &[("Ab", true), ("AB", false)]),
    ("(a(?i)b|c)d", &[("Cd", true), ("aBd", true), ("AbD", false), ("ad", false)]),
    ("(?i:a)b", &[("Ab", true), ("AB", false)]),
    ("(?im-s)^a", &[("x\nA", true), ("xA", false)]),
    ("(?^)a", &[("a", true), ("A", false)]),
    ("(?U)a+b", &[("aab", true), ("b", false)]),
    ("(?<n>a)(?P<m>b)", &[("ab", true), ("b", false)]),
    ("(?'n'a)", &[("a", true), ("b", false)]),
    ("(?:a|)b", &[("b", true), ("ab", true)]),
    ("()a|", &[("a", true), ("b", true)]),
    ("(|a)+b", &[("aab", true), ("b", true)]),
    ("\\pL\\p{Nd}\\P{L}", &[("a1-", true), ("aaa", false)]),
    ("\\p{^L}", &[("1", true), ("a", false)]),
    ("\\p{L&}", &[("a", true), ("\u{5d0}", false)]),
    ("[\\p{Lu}x]", &[("A", true), ("x", true), ("a", false)]),
    ("^(a{2})?b", &[("b", true), ("aab", true), ("ab", false)]),
    ("^(?:a+)?b", &[("b", true), ("aab", true)]),
    ("^(?:a?){2}b", &[("b", true), ("aab", true), ("aaab", false)]),
    ("^((a*)+)*b", &[("b", true), ("c", false)]),
    ("\\b{start}", &[("a{start}", true), ("start", false)]),
    ("a\\<b&&c--d~~", &[("a<b&&c--d~~", true), ("x", false)]),
];

#[test]
fn verdicts_are_those_of_pcre() {
    for (source, texts) in VERDICTS {
        let translated = translated(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let regex =
            build_regex(&translated).unwrap_or_else(|error| panic!("{source}: {translated}: {error}"));
        for (text, expected) in *texts {
            assert_eq!(regex.is_match(text), *expected, "{source} is {translated}, on {text:?}");
        }
    }
}

#[test]
fn unsupported_constructs_are_rejected_by_name() {
    let rows = [
        ("a++", "possessive quantifier `++`"),
        ("a*+", "possessive quantifier `*+`"),
        ("a?+", "possessive quantifier `?+`"),
        ("a{2,3}+", "possessive quantifier `{2,3}+`"),
        ("(?>a)", "atomic group"),
        ("a(?=b)", "look-ahead"),
        ("a(?!b)", "look-ahead"),
        ("(?<=a)b", "look-behind"),
        ("(?<!a)b", "look-behind"),
        (r"(a)\1", "back-reference"),
        (r"\10", "back-reference"),
        (r"\g{1}", "back-reference"),
        (r"\k<n>", "back-reference"),
        ("(?P=n)", "back-reference"),
        ("(?R)", "recursion"),
        ("(?1)", "`(?1` is not supported"),
        ("(?&n)", "recursion"),
        ("(?|a|b)", "branch reset"),
        ("(?(1)a)", "conditional"),
        ("(?C)", "callout"),
        ("(*UCP)a", "verbs"),
        (r"a\Kb", r"`\K`"),
        (r"\R", r"`\R`"),
        (r"\X", r"`\X`"),
        (r"\G", r"`\G`"),
        (r"\C", r"`\C`"),
        (r"a\Bb", r"`\B`"),
        ("a$b", "`$` is supported only where"),
        ("(a$){2}", "`$` is supported only where"),
        (r"a$\z", "`$` is supported only where"),
        ("(?m)^", "`^` in multi-line mode"),
        (r"(?m)^\s*$", "`^` in multi-line mode"),
        ("a{,3}", "different things in versions"),
        ("a{1, 2}", "different things in versions"),
        ("a{65536}", "more than 65535"),
        ("a{3,2}", "out of order"),
        ("a**", "after a quantifier"),
        ("a{2}{3}", "after a quantifier"),
        ("^*a", "after an assertion"),
        ("*a", "nothing to repeat"),
        ("a|+", "nothing to repeat"),
        ("(?i)*a", "after an option"),
        ("(?x)a+ +", "after a quantifier"),
        ("(?xx)a", "`(?x` is not supported"),
        ("(?u)a", "`(?u` is not supported"),
        ("(?i--s)a", "`(?-` is not supported"),
        ("[z-a]", "out of order"),
        (r"[\d-z]", "must be the last"),
        (r"[a-\d]", "cannot end with a kind"),
        ("[a", "`[` is not closed"),
        ("[[.a.]]", "collating"),
        ("[[:foo:]]", "unknown POSIX class"),
        ("[[:<:]]x", "unknown POSIX class"),
        ("[:alpha:]", "outside brackets"),
        (r"[\1]", r"`\1` in a class"),
        (r"[\R]", "no meaning in a class"),
        (r"[\Qa\E]", "not supported in a class"),
        (r"\u0041", r"unknown escape `\u`"),
        (r"\y", r"unknown escape `\y`"),
        (r"\x", "two hexadecimal digits"),
        (r"\x{}", "not the number of a character"),
        (r"\x{d800}", "not the number of a character"),
        (r"\p{Greek}", "only general categories"),
        (r"(?i)\p{Lu}", "caseless"),
        ("(?<1>a)", "name of a group"),
        ("(?<a>b)(?<a>c)", "same name"),
        ("a)", "without a `(`"),
        ("(a", "`(` is not closed"),
        ("(?#a", "`(?#` is not closed"),
        (r"a\", "trailing backslash"),
    ];
    for (source, word) in rows {
        let error = translated(source).map(|translated| panic!("{source}: {translated}")).unwrap_err();
        assert!(error.contains(word), "{source}: {error}");
    }
    assert_eq!(translated("ab(?=c)").unwrap_err(), "column 3: look-ahead, `(?=`, is not supported");
}

/// The deepest expression that is translated stays within the nesting limit of the crates that parse it again.
#[test]
fn nesting_is_bounded() {
    let nested =
        |depth: usize| format!("{}a{}", "(b|c(?:d|e".repeat(depth / 2), "){2,3}x)+y".repeat(depth / 2));
    let deepest = translated(&nested(REGEX_DEPTH_MAX)).unwrap();
    assert!(regex_syntax::parse(&deepest).is_ok(), "{deepest}");
    assert!(translated(&nested(REGEX_DEPTH_MAX + 2)).unwrap_err().contains("nested deeper"));
}

/// Folding and properties cost more than the length of the expression suggests, and are charged accordingly.
#[test]
fn large_sets_are_charged() {
    let mut budget = Budget::new(100_000, 1 << 24);
    let source = r"\pL".repeat(5000);
    let error = translate(&source, Options::default(), &mut budget).unwrap_err();
    assert!(error.reason.contains("budget"), "{error}");
}

/// Sets are unchanged when they are printed and parsed again.
#[test]
fn sets_survive_printing() {
    // Lengths of ranges include surrogates.
    let rows = [
        (r"[\x{0}-\x{10ffff}]", 0x11_0000),
        (r"[\[\]\\^&~#-]", 8),
        (r"[^\n]", 0x11_0000 - 1),
        (r"(?i)[k]", 3),
    ];
    for (source, expected) in rows {
        let hir = regex_syntax::parse(&translated(source).unwrap()).unwrap();
        let HirKind::Class(Class::Unicode(set)) = hir.into_kind() else { panic!("{source} is not a set") };
        let len: usize = set.iter().map(regex_syntax::hir::ClassUnicodeRange::len).sum();
        assert_eq!(len, expected, "{source}");
    }
    let nothing = build_regex(&translated(r"[^\x{0}-\x{10ffff}]").unwrap()).unwrap();
    assert!(!nothing.is_match("") && !nothing.is_match("a"));
}
