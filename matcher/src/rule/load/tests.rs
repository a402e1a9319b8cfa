use super::load;
use crate::error::PROBLEMS_MAX;
use crate::rule::loaded::Loaded;
use crate::rule::report::{file_bytes_max, file_steps_max};
use std::fmt::Write;

const RULE: &str = "title: T
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
name: one
logsource:
  category: ps_script
  product: windows
tags:
  - attack.execution
  - attack.t1059.001
detection:
  s:
    ScriptBlockText|contains: x
  condition: s
";
const ID: &str = "6f3e2987-db24-4c78-a860-b4f4095a7095";

fn errors(loaded: &Loaded) -> Vec<String> {
    loaded.errors.iter().map(ToString::to_string).collect()
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// Returns a rule about script blocks with this detection.
fn rule(detection: &str) -> String {
    let mut text =
        String::from("title: T\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n");
    for line in detection.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Returns [`RULE`] with another line after its title.
fn with(line: &str) -> String {
    RULE.replace("title: T\n", &format!("title: T\n{line}\n"))
}

#[test]
fn a_rule_is_loaded_completely() {
    let loaded = load([("a.yml", RULE)]);
    assert_eq!((errors(&loaded), warnings(&loaded)), (vec![], vec![]));
    let rule = &loaded.rules[0];
    assert_eq!((rule.id.as_str(), rule.title.as_str(), rule.origin.line), (ID, "T", 1));
    assert_eq!(rule.attack, ["T1059.001"]);
}

#[test]
fn errors_name_file_line_and_construct() {
    let rows = [
        (RULE.replace("title: T\n", ""), "a.yml:1: `title` is missing"),
        (
            RULE.replace("ps_script", "ps_scrpt"),
            "a.yml:4: unknown log source product=windows, category=ps_scrpt",
        ),
        (
            RULE.replace("condition: s", "condition: t"),
            "a.yml:13: condition, column 1: no selection is named `t`",
        ),
        (RULE.replace("ScriptBlockText|contains", "Payload|contains"), "a.yml:12: unknown field `Payload`"),
        (RULE.replace("ScriptBlockText|contains", "ScriptBlockText|has"), "a.yml:12: unknown modifier `has`"),
        (RULE.replace("|contains: x", "|re: '('"), "a.yml:12: regular expression \"(\""),
        (RULE.replace("  condition", "  timeframe: 5m\n  condition"), "`timeframe` is not supported"),
        (
            RULE.replace("detection:", "correlation:\n  type: x\ndetection:"),
            "a correlation rule is not supported",
        ),
        (with("level: loud"), "a.yml:2: invalid level `loud`"),
        (
            RULE.replace("detection:", "detections:"),
            "`detection` is missing (is `detections` a misspelling?)",
        ),
        (RULE.replace("condition:", "conditon:"), "`condition` is missing (is `conditon` a misspelling?)"),
        (
            RULE.replace("logsource:", "log-source:"),
            "`logsource` is missing (is `log-source` a misspelling?)",
        ),
        (RULE.replace("  - attack.execution", "  - attack"), "a.yml:8: invalid tag `attack`"),
        (with("date: 2026-02-30"), "a.yml:2: invalid date `2026-02-30`"),
        (with("status: stabel"), "invalid status `stabel` (did you mean `stable`?)"),
        (RULE.replace("title: T", &format!("title: {}", "T".repeat(257))), "length of the title"),
        ("just text".into(), "`document` should be a map"),
        (String::new(), "the file is empty"),
    ];
    for (text, expected) in rows {
        let loaded = load([("a.yml", text.as_str())]);
        assert!(loaded.rules.is_empty(), "{text}");
        assert_eq!(loaded.refused, 1, "{text}");
        let shown = errors(&loaded);
        assert!(shown.len() == 1 && shown[0].contains(expected), "{expected}: {shown:?}");
    }
}

#[test]
fn all_errors_of_a_file_are_listed() {
    let text = "title: T
status: nope
logsource:
    product: windows
    category: ps_script
detection:
    a:
        ScriptBlockTxt|contain: x
        Path|re:
            - 'a++'
            - 'b(?=c)'
    b:
        MessageNumber: many
    condition: a and b and c or d
level: loud
---
title: fine
logsource: {category: ps_script}
detection: {s: {Path: x}, condition: s}
---
title: [
---
title: other
logsource: {category: webserver}
detection: {s: {Whatever|strange: x}, condition: nothing}
---
";
    let loaded = load([("a.yml", text)]);
    let lines: Vec<_> = loaded.errors.iter().map(|error| (error.line, error.problem.code())).collect();
    let expected = [
        (2, "invalid-attribute"),
        (8, "unknown-field"),
        (8, "unknown-modifier"),
        (10, "regex"),
        (11, "regex"),
        (13, "invalid-value"),
        (14, "condition"),
        (14, "condition"),
        (15, "invalid-attribute"),
        (22, "yaml"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(loaded.errors[3].column, 15);
    assert_eq!(loaded.errors[1].problem.suggestion(), Some("ScriptBlockText"));
    let counts = (loaded.rules.len(), loaded.refused, loaded.other_log_sources);
    assert_eq!(counts, (1, 2, 1));
}

#[test]
fn doubtful_rules_give_warnings() {
    let rows = [
        (RULE.replace(ID, "r1"), "a.yml:2: invalid id `r1`"),
        (RULE.replace("attack.t1059.001", "attack.t1059.01"), "a.yml:9: invalid tag `attack.t1059.01`"),
        (RULE.replace("attack.t1059.001", "atack.t1059"), "(did you mean `attack.t1059`?)"),
        (with("levle: high"), "unknown key `levle` (did you mean `level`?)"),
        (with("status: deprecated"), "the rule has the status `deprecated`"),
        (
            with("date: 2026-02-03\nmodified: 2025/02/03"),
            "a.yml:3: invalid modified `2025/02/03`; it is before the rule's date",
        ),
        (
            RULE.replace("  condition", "  unused:\n    Path: x\n  condition"),
            "a.yml:13: the condition does not use the selection `unused`",
        ),
        (
            RULE.replace("  condition: s", "  f:\n    EventID: 4103\n  condition: s and not f"),
            "EventID is never 4103 in events of ps_script",
        ),
        ("# title: T\n".into(), "the file is empty"),
    ];
    for (text, expected) in rows {
        let loaded = load([("a.yml", text.as_str())]);
        assert_eq!(errors(&loaded), Vec::<String>::new(), "{expected}");
        assert_eq!(loaded.rules.len(), usize::from(!text.starts_with('#')), "{expected}");
        let shown = warnings(&loaded);
        assert!(shown.len() == 1 && shown[0].contains(expected), "{expected}: {shown:?}");
    }
}

#[test]
fn values_are_read_as_pysigma_reads_them() {
    let rows = [
        ("s: {Path: [~, x]}\ncondition: s", true),
        ("s: {Path|contains: [null, x]}\ncondition: s", false),
        ("s: {EventID: [null, 4104]}\ncondition: s", true),
        ("s: {EventID: '4104'}\ncondition: s", true),
        ("s: [null, x]\ncondition: s", false),
        ("s: {ScriptBlockText|base64|base64offset|contains: x}\ncondition: s", true),
        ("s: {ScriptBlockText|windash|wide|base64offset|contains: ' -enc'}\ncondition: s", true),
        ("s: {ScriptBlockText|base64offset|contains: 'a*'}\ncondition: s", false),
        ("s: {Path|neq: x}\ncondition: s", true),
    ];
    for (detection, expected) in rows {
        let loaded = load([("a.yml", rule(detection).as_str())]);
        assert_eq!(loaded.rules.len(), usize::from(expected), "{detection}: {:?}", errors(&loaded));
    }
    for (level, expected) in [("High", "high"), ("CRITICAL", "critical"), ("~", "")] {
        let text = with(&format!("level: {level}\nstatus: Test")) + "---\n";
        let loaded = load([("a.yml", text.as_str())]);
        assert_eq!((errors(&loaded), loaded.rules[0].level.as_str()), (vec![], expected));
    }
}

#[test]
fn rules_that_can_never_match_are_rejected() {
    let never = [
        "s: {EventID: 4103, ScriptBlockText|contains: x}\ncondition: s",
        "s: {EventID: [4103, 800]}\ncondition: s",
        "s: {EventID|gt: 4104}\ncondition: s",
        "s: {EventID|lt: 1101}\ncondition: s",
        "s: {Path: x}\nt: {EventID: '4103'}\ncondition: s and t",
        "s: {MessageNumber|gt: 5}\nt: {MessageNumber|lte: 5}\ncondition: s and t",
        "s: {MessageNumber: 4294967296}\ncondition: s",
        "s: {Path: a}\nt: {Path: b}\ncondition: all of them",
        "s: {Path|all: [a, b]}\ncondition: s",
        "s: {Path|all: [null, b]}\ncondition: s",
        "s: {Path: null, Path|contains: b}\ncondition: s",
        "s: {Path|exists: false}\nt: {Path|re: b}\ncondition: s and t",
        "s: {Path: a}\ncondition: s and not s",
        "s: {EventID|exists: false}\ncondition: s",
        "s: {EventID|neq: 4104, MessageNumber: 1}\ncondition: s",
        "s: {EventID: 4103}\ncondition: not not s",
    ];
    for detection in never {
        let loaded = load([("a.yml", rule(detection).as_str())]);
        let shown = errors(&loaded);
        assert!(loaded.rules.is_empty() && shown[0].contains("can never match"), "{detection}: {shown:?}");
    }
    let possible = [
        "s: {EventID: [4103, 4104]}\ncondition: s",
        "s: {EventID: 1101}\ncondition: s",
        "s: {EventID: 4103}\nt: {Path: x}\ncondition: t and not s",
        "s: {EventID: 4103}\nt: {Path: x}\ncondition: t or s",
        "s: {Path: a}\nt: {Path: A}\ncondition: s and t",
        "s: {Path|contains: a}\nt: {Path|contains: b}\ncondition: s and t",
        "s: {Path: a*}\nt: {Path: ab}\ncondition: s and t",
        "s: {Path|cased: a}\nt: {Path: A}\ncondition: s and t",
        "s: {MessageNumber|gt: 5}\nt: {MessageNumber|lte: 6}\ncondition: s and t",
        "s: {Path: [a, b]}\ncondition: s",
        "s: {Path: null}\ncondition: not s",
        "s: [a, b]\ncondition: s",
    ];
    for detection in possible {
        let loaded = load([("a.yml", rule(detection).as_str())]);
        assert_eq!(errors(&loaded), Vec::<String>::new(), "{detection}");
    }
    let of_service = |detection: &str| {
        let text = rule(detection).replace("category: ps_script", "service: powershell");
        errors(&load([("a.yml", text.as_str())]))
    };
    let refused = of_service("s: {EventID: 800, Payload|contains: x}\ncondition: s");
    assert!(
        refused[0].contains("can never match: no event of its log source has EventID 800"),
        "{refused:?}"
    );
    let refused = of_service("s: {Path|contains: x}\nt: {Payload|contains: x}\ncondition: s and t");
    assert!(refused[0].contains("fields that no single event has"), "{refused:?}");
    assert_eq!(
        of_service("s: {Path|contains: x}\nt: {Payload|contains: x}\ncondition: s or t"),
        Vec::<String>::new()
    );
    assert_eq!(of_service("s: {EventID: 4103}\ncondition: s"), Vec::<String>::new());
}

#[test]
fn rules_of_other_log_sources_are_counted() {
    let other = "title: O
id: 0fd3dcb2-27b1-537b-a5bb-a7b4bf5290a7
logsource: {product: windows, category: ps_classic_start}
detection: {s: {Data|strange: &x a}, condition: s}
";
    let correlation =
        |rule: &str| format!("title: C\ncorrelation:\n  type: event_count\n  rules: [{rule}]\n");
    let filter =
        "title: F\nlogsource: {category: webserver}\nfilter: {rules: any, s: {uri: x}, condition: not s}\n";
    let about_other = correlation("0FD3DCB2-27b1-537b-a5bb-a7b4bf5290a7");
    let files = [("c.yml", about_other.as_str()), ("o.yml", other), ("f.yml", filter), ("a.yml", RULE)];
    let loaded = load(files);
    assert_eq!((errors(&loaded), warnings(&loaded)), (vec![], vec![]));
    assert_eq!((loaded.rules.len(), loaded.other_log_sources, loaded.filters), (1, 3, 0));
    // A correlation of a rule that this sensor reads would be lost.
    for name in ["one", ID, "gone"] {
        let text = correlation(name);
        let loaded = load([("a.yml", RULE), ("c.yml", text.as_str())]);
        assert_eq!(errors(&loaded), ["c.yml:1: a correlation rule is not supported"], "{name}");
    }
}

#[test]
fn duplicate_ids_are_rejected() {
    let upper = RULE.replace(ID, &ID.to_ascii_uppercase());
    for second in [RULE, upper.as_str()] {
        let loaded = load([("a.yml", RULE), ("b.yml", second)]);
        assert_eq!((loaded.rules.len(), loaded.refused), (1, 1));
        assert!(
            errors(&loaded)[0].ends_with("is already used by the rule at a.yml:1"),
            "{:?}",
            errors(&loaded)
        );
    }
}

#[test]
fn filters_narrow_the_rules_they_name() {
    let filter = |rules: &str, source: &str| {
        let field = if source.ends_with("ps_module") { "Payload" } else { "Path" };
        format!(
            "title: F\nlogsource:\n  {source}\n  product: windows\nfilter:\n  rules: {rules}\n  admin:\n    {field}: y\n  condition: not admin\n"
        )
    };
    let script = "category: ps_script";
    let wide = RULE
        .replace(ID, "5c0b8a52-0000-4000-8000-000000000001")
        .replace("name: one", "name: wide")
        .replace(script, "service: powershell");
    // Filters applied, errors, warnings, and the number of tests in both rules, which is 1 without filters.
    for (rules, source, applied, refused, doubtful, tests) in [
        (format!("[{ID}]").as_str(), script, 1, 0, 0, [2, 1]),
        (ID.to_ascii_uppercase().as_str(), script, 1, 0, 0, [2, 1]),
        ("one", script, 1, 0, 0, [2, 1]),
        ("any", script, 1, 0, 0, [2, 1]),
        ("ANY", script, 1, 0, 0, [2, 1]),
        ("any", "service: powershell", 1, 0, 0, [2, 2]),
        ("[other]", script, 0, 0, 1, [1, 1]),
        ("[one]", "category: ps_module", 0, 1, 0, [1, 1]),
        ("[wide]", script, 0, 1, 0, [1, 1]),
        ("[one, wide]", script, 1, 0, 1, [2, 1]),
        ("any", "category: ps_module", 0, 0, 1, [1, 1]),
        ("[]", script, 0, 1, 0, [1, 1]),
    ] {
        let text = filter(rules, source);
        let loaded = load([("f.yml", text.as_str()), ("a.yml", RULE), ("w.yml", wide.as_str())]);
        let shown = (errors(&loaded), warnings(&loaded));
        let counts = (loaded.filters, loaded.errors.len(), loaded.warnings.len(), loaded.refused);
        assert_eq!(counts, (applied, refused, doubtful, refused), "{rules} {source}: {shown:?}");
        let own: Vec<_> = loaded.rules.iter().map(|rule| rule.expr.count_tests()).collect();
        assert_eq!(own, tests, "{rules} {source}");
    }
}

/// Small files that expand to large rules.
#[test]
fn the_work_and_memory_of_a_file_are_bounded() {
    let long = "x".repeat(15_000);
    let list = |key: &str, value: &str, count: usize| {
        let mut values = String::new();
        for at in 0..count {
            let _ = writeln!(values, "    - '{value}{at}'");
        }
        rule(&format!("s:\n  ScriptBlockText{key}:\n{values}condition: s"))
    };
    let copies =
        format!("s:\n  ScriptBlockText|contains: {long}\ncondition: {}", vec!["s"; 1500].join(" or "));
    let rows = [
        ("windash", list("|windash|contains", &format!("{}{long}", "-a ".repeat(4)), 40)),
        ("copies", rule(&copies)),
        ("classes", list("|re|i", &r"[\pS\pP]".repeat(1500), 60)),
        ("regexes", list("|re", "[^x]{4000}", 2000)),
        ("folded ranges", list("|re|i", &r"[\x{0}-\x{10ffff}]".repeat(700), 60)),
    ];
    for (name, text) in rows {
        let loaded = load([("a.yml", text.as_str())]);
        assert!(loaded.rules.is_empty(), "{name}");
        assert!(loaded.steps <= file_steps_max(text.len()), "{name}");
        assert!(loaded.bytes <= file_bytes_max(text.len()), "{name}");
        assert!(loaded.errors.len() <= PROBLEMS_MAX + 1, "{name}");
    }
}

/// The id of a rule without one is derived from its contents, wherever and however they are written.
#[test]
fn rules_without_an_id_get_one() {
    let rule = RULE.replace(&format!("id: {ID}\n"), "");
    let ids = |files: &[(&str, &str)]| -> Vec<String> {
        let loaded = load(files.iter().copied());
        assert_eq!(errors(&loaded), [""; 0]);
        loaded.rules.into_iter().map(|rule| rule.id).collect()
    };
    let id = ids(&[("a.yml", &rule)]).remove(0);
    assert_eq!(id, "derived-81f0c588-f4f5-8d29-873b-b84b3ef29315");
    let same = [
        ("another file, further down", format!("# A comment.\n\n{rule}")),
        ("quotes", rule.replace("contains: x", "contains: 'x'").replace("title: T", "\"title\": T ")),
        ("order of keys", format!("{}title: T\n", rule.replace("title: T\n", ""))),
        ("description, level and tags", rule.replace("name: one\n", "level: high\ndescription: new\n")),
    ];
    for (name, text) in &same {
        assert_eq!(ids(&[("b.yml", text)]), [id.as_str()], "{name}");
    }
    let others = [
        ("title", rule.replace("title: T", "title: U")),
        ("value", rule.replace("contains: x", "contains: y")),
        ("field", rule.replace("ScriptBlockText|contains", "Path|contains")),
        ("condition", rule.replace("condition: s", "condition: not s")),
        (
            "calls",
            format!("{rule}etwsieve:\n  calls: also\n").replace("contains: x", "contains: Enter-PSSession"),
        ),
    ];
    for (name, text) in &others {
        assert_ne!(ids(&[("a.yml", text)]), [id.as_str()], "{name}");
    }
    let twice = ids(&[("a.yml", &rule), ("b.yml", &rule), ("c.yml", RULE), ("d.yml", &rule)]);
    assert_eq!(twice, [id.clone(), format!("{id}-2"), ID.into(), format!("{id}-3")]);
}
