//! The semantics of Sigma according to its specification and pySigma: matches, rejected rules, and `rules check`.

use etwsieve_matcher::{EventKind, Loaded, Matcher, Payload, Scratch, load, naive};
use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, run};
use etwsieve_tests::writer::script_block;
use std::fs;

const PROGRAM: Program = Program::Etwsieve;
const BLOCK: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

/// Returns a rule about script blocks with this detection, which is one line of YAML.
fn rule(detection: &str) -> String {
    format!("title: T\nlogsource: {{product: windows, category: ps_script}}\ndetection: {detection}\n")
}

/// Loads files that must have no errors.
fn loaded(files: &[String]) -> Loaded {
    let loaded = load(files.iter().map(|text| ("rule.yml", text.as_str())));
    assert_eq!(loaded.errors, [], "{files:?}");
    loaded
}

/// Returns the titles of the rules that match a script block. Matcher and naive evaluator must agree.
fn matching(matcher: &Matcher, text: &str, path: Option<&str>) -> Vec<String> {
    let bytes = script_block(1, 1, text, BLOCK, path);
    let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
    let mut scratch = Scratch::default();
    let found = matcher.find(&payload, &mut scratch).to_vec();
    let plain: Vec<u32> = (0..)
        .zip(matcher.rules())
        .filter(|(_, rule)| naive::matches(rule, EventKind::ScriptBlock, &bytes))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(found, plain, "{text:?}");
    found.iter().map(|at| matcher.rules()[*at as usize].title.clone()).collect()
}

fn matches(detection: &str, text: &str, path: Option<&str>) -> bool {
    !matching(&Matcher::new(loaded(&[rule(detection)]).rules), text, path).is_empty()
}

/// The expected values are the output of `base64 -w0` for the unescaped texts.
#[test]
fn base64_modifiers_encode_the_value_that_is_meant() {
    // The value as written, a text with its meaning, and a text with the value as written.
    let rows = [
        ("base64|contains", r"'\host\share'", "XGhvc3Rcc2hhcmU=", None),
        ("base64|contains", r"'\\\\host\\share'", "XFxob3N0XHNoYXJl", Some("XFxcXGhvc3RcXHNoYXJl")),
        ("base64offset|contains", r"'del \*.log'", "eCBkZWwgKi5sb2cgL3E=", Some("eCBkZWwgXCoubG9nIC9x")),
        ("base64offset|contains", r"'sure\?'", "YXJlIHlvdSBzdXJlPyE=", Some("YXJlIHlvdSBzdXJlXD8h")),
        ("wide|base64offset|contains", r"'\\\\nas\\'", "IABcAFwAbgBhAHMAXABiAA==", None),
        ("utf16be|base64offset|contains", "'iex '", "ADsAaQBlAHgAIAAk", None),
        ("utf16|base64|contains", "'ie'", "//5pAGUA", None),
        ("base64|base64|contains", "'abc'", "WVdKag==", None),
        ("windash|base64|contains", "'-nop'", "4oCTbm9w", None),
        ("base64|contains", "'é'", "w6k=", None),
    ];
    for (modifiers, value, text, written) in rows {
        let detection = format!("{{s: {{ScriptBlockText|{modifiers}: {value}}}, condition: s}}");
        assert!(matches(&detection, text, None), "{detection} on {text}");
        if let Some(written) = written {
            assert!(!matches(&detection, written, None), "{detection} on {written}");
        }
    }
}

#[test]
fn values_are_unescaped_once() {
    let rows = [
        (r"ScriptBlockText|contains: 'a\\b'", r"a\b", true),
        (r"ScriptBlockText|contains: 'a\\\\b'", r"a\b", false),
        (r"ScriptBlockText|contains: 'a\\\\b'", r"a\\b", true),
        (r"ScriptBlockText|contains: 'a\*b'", "a*b", true),
        (r"ScriptBlockText|contains: 'a\*b'", "axb", false),
        (r"ScriptBlockText|contains: 'a\\*b'", r"a\xxb", true),
        (r"ScriptBlockText|endswith: 'x\'", r"x\", true),
        (r"ScriptBlockText|contains|windash: 'a\\ -b'", "a\\ \u{2013}b", true),
        (r"ScriptBlockText|contains|windash: 'x\* /b'", "x* -b", true),
        (r"ScriptBlockText|contains|cased: 'a\?B'", "a?B", true),
        (r"ScriptBlockText|contains|cased: 'a\?B'", "a?b", false),
        // Regular expressions are not unescaped.
        (r"ScriptBlockText|re: 'a\\b'", r"a\b", true),
        (r"ScriptBlockText|re: 'a\*b'", "a*b", true),
        ("ScriptBlockText|neq: a", "b", true),
        ("ScriptBlockText|contains|neq: [a, b]", "xbx", false),
    ];
    for (key, text, expected) in rows {
        assert_eq!(
            matches(&format!("{{s: {{{key}}}, condition: s}}"), text, None),
            expected,
            "{key} on {text}"
        );
    }
    // A null in a list matches an absent field. The layout without a path ends after the id.
    let matcher = Matcher::new(loaded(&[rule("{s: {Path: [null, 'C:\\x.ps1']}, condition: s}")]).rules);
    for (path, expected) in [(None, true), (Some("C:\\x.ps1"), true), (Some("C:\\y.ps1"), false)] {
        let mut bytes = script_block(1, 1, "any", BLOCK, path);
        if path.is_none() {
            bytes.truncate(8 + 2 * ("any".len() + 1 + BLOCK.len() + 1));
        }
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
        assert_eq!(!matcher.find(&payload, &mut Scratch::default()).is_empty(), expected, "{path:?}");
    }
}

#[test]
fn names_with_an_underscore_match_only_patterns_with_one() {
    let selections = "sel_a: {ScriptBlockText|contains: aa}, sel_b: {ScriptBlockText|contains: bb}, _tmp_a: {ScriptBlockText|contains: tt}";
    let rows = [
        ("1 of *", ["aa", "bb", "aa bb"], ["tt", "x", ""]),
        ("1 of *_a", ["aa", "aa tt", "aa bb"], ["tt", "bb", ""]),
        ("all of *_a", ["aa", "aa tt", "aa bb"], ["tt", "bb", ""]),
        ("1 of _*", ["tt", "aa tt", "bb tt"], ["aa", "bb", ""]),
        ("all of them", ["aa bb", "bb aa", "aa bb tt"], ["aa", "bb", "tt"]),
        ("1 of them and not 1 of _tmp*", ["aa", "bb", "aa bb"], ["tt", "aa tt", ""]),
        ("1 of sel_a", ["aa", "aa tt", "aa bb"], ["tt", "bb", ""]),
    ];
    for (condition, hits, misses) in rows {
        let matcher =
            Matcher::new(loaded(&[rule(&format!("{{{selections}, condition: {condition}}}"))]).rules);
        for (text, expected) in hits.into_iter().zip([true; 3]).chain(misses.into_iter().zip([false; 3])) {
            assert_eq!(!matching(&matcher, text, None).is_empty(), expected, "{condition} on {text}");
        }
    }
}

#[test]
fn a_filter_does_not_apply_to_rules_of_a_wider_log_source() {
    let own = |title: &str, source: &str| {
        format!(
            "title: {title}\nname: {title}\nlogsource: {{product: windows, {source}}}\ndetection: {{s: [hit], condition: s}}\n"
        )
    };
    for rules in ["any", "[narrow, wide]"] {
        let filter = format!(
            "title: F\nlogsource: {{product: windows, category: ps_script}}\nfilter: {{rules: {rules}, s: {{ScriptBlockText|contains: fine}}, condition: not s}}\n"
        );
        let files = [own("narrow", "category: ps_script"), own("wide", "service: powershell"), filter];
        let matcher = Matcher::new(loaded(&files).rules);
        assert_eq!(matching(&matcher, "hit", None), ["narrow", "wide"], "{rules}");
        assert_eq!(matching(&matcher, "hit, fine", None), ["wide"], "{rules}");
    }
}

/// The whole tree of SigmaHQ's rules can be loaded; rules of other log sources are counted.
#[test]
fn a_tree_with_rules_of_other_log_sources_loads_whole() {
    let Some(data) = corpus::data() else { return };
    let tree = data.join("rules/sigma");
    let (loaded, unreadable) = etwsieve::rules::from_paths(std::slice::from_ref(&tree));
    assert!(unreadable.is_empty());
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.rules.len(), loaded.other_log_sources, loaded.refused), (178 + 34, 15, 0));

    let tree = tree.to_str().unwrap();
    let check = run(PROGRAM, ["rules", "check", tree]);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert!(check.stdout.starts_with("rules: 212 loaded, 15 for other log sources"), "{}", check.stdout);
    let demo = corpus::repository().join(etwsieve_tests::demo::PATH);
    let replay = run(PROGRAM, ["replay", "--rules", tree, demo.to_str().unwrap()]);
    assert_eq!(replay.code, Some(0), "{}", replay.stderr);
    assert!(replay.stderr.contains("212 loaded, 15 for other log sources"), "{}", replay.stderr);
}

#[test]
fn a_set_of_only_other_log_sources_is_rejected_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    fs::write(&path, "title: W\nlogsource: {category: webserver}\ndetection: {s: [x], condition: s}\n")
        .unwrap();
    let demo = corpus::repository().join(etwsieve_tests::demo::PATH);
    let replay = run(PROGRAM, ["replay", "--rules", path.to_str().unwrap(), demo.to_str().unwrap()]);
    assert_eq!(replay.code, Some(2));
    assert!(
        replay.stderr.contains("no rule for PowerShell: 1 rules are for other log sources"),
        "{}",
        replay.stderr
    );
}

/// The format is described in `docs/rules.md`.
#[test]
fn rules_check_writes_json_of_a_stable_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    let text = "title: Good
id: 0fd3dcb2-27b1-537b-a5bb-a7b4bf5290a7
logsource: {product: windows, category: ps_script}
tags: [atack.t1059.001]
detection:
    selection:
        ScriptBlockText|contains: Invoke-Mimikatz
    condition: selection
---
title: Bad
logsource: {product: windows, category: ps_script}
detection:
    selection:
        ScriptBlockText|contain: x
    condition: selection
---
title: Web
logsource: {category: webserver}
detection: {s: [x], condition: s}
";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let check = run(PROGRAM, ["rules", "check", "--format", "json", path]);
    let expected = format!(
        r#"{{
  "version": 1,
  "loaded": 1,
  "other_log_sources": 1,
  "filters": 0,
  "refused": 1,
  "errors": [
    {{
      "file": {file},
      "line": 14,
      "column": 9,
      "code": "unknown-modifier",
      "construct": "contain",
      "message": "unknown modifier `contain` (did you mean `contains`?)",
      "suggestion": "contains"
    }}
  ],
  "warnings": [
    {{
      "file": {file},
      "line": 4,
      "column": 8,
      "code": "invalid-attribute",
      "construct": "atack.t1059.001",
      "message": "invalid tag `atack.t1059.001` (did you mean `attack.t1059.001`?); its namespace is unknown",
      "suggestion": "attack.t1059.001"
    }}
  ],
  "events": [
    {{
      "event_id": 4104,
      "rules": 1,
      "needles": 1,
      "ungated": 0
    }}
  ]
}}
"#,
        file = serde_json::to_string(path).unwrap()
    );
    assert_eq!(check.stdout, expected);
    assert_eq!((check.code, check.stderr.as_str()), (Some(2), ""));

    let text = text.replace("|contain:", "|contains:");
    fs::write(path, text).unwrap();
    assert_eq!(run(PROGRAM, ["rules", "check", path]).code, Some(0));
    assert_eq!(run(PROGRAM, ["rules", "check", "--deny-warnings", path]).code, Some(2));
    let gone = folder.path().join("gone.yml");
    let check = run(PROGRAM, ["rules", "check", "--format", "json", gone.to_str().unwrap()]);
    assert_eq!(check.code, Some(2));
    let value: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!((&value["errors"][0]["code"], &value["refused"]), (&"unreadable".into(), &1.into()));
}

/// Control characters of a rule are printed as text.
#[test]
fn escape_sequences_of_a_rule_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rule.yml");
    fs::write(&path, rule("{s: {\"\\u001b]0;x\\u0007\\u202e|y\": a}, condition: s}")).unwrap();
    let check = run(PROGRAM, ["rules", "check", path.to_str().unwrap()]);
    assert_eq!(check.code, Some(2));
    assert!(check.stderr.contains("\\u{1b}]0;x\\u{7}\\u{202e}"), "{}", check.stderr);
    assert!(!check.stderr.contains(['\u{7}', '\u{202e}']), "{}", check.stderr);
}
