//! Tags, and the ATT&CK techniques among them.
//!
//! Source: Sigma specification 2.1, appendix "Tags". A tag is a namespace, a dot and a name. Names in the namespace
//! `attack` are techniques, tactics, groups, software, data sources, mitigations, assets and so on.

use crate::error::Problem;
use crate::rule::report::Report;
use crate::yaml::{Node, Value};

/// Maximum number of techniques of a rule.
pub(crate) const ATTACK_MAX: usize = 64;

const NAMESPACES: [&str; 7] = ["attack", "car", "cve", "d3fend", "detection", "stp", "tlp"];
/// Tactics of ATT&CK: those of version 18, and those added in version 19.
const TACTICS: [&str; 21] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "defense-impairment",
    "stealth",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
    "evasion",
    "inhibit-response-function",
    "impair-process-control",
    "network-effects",
    "remote-service-effects",
];
/// Prefixes of other entries with four digits: groups, software, data sources, mitigations, assets, campaigns, tactics,
/// data components, detection strategies and analytics.
const ENTRIES: [&str; 10] = ["g", "s", "ds", "m", "a", "c", "ta", "dc", "det", "an"];

const EXPECTED_TAG: &str = "a tag is a namespace, a dot and a name, as in `attack.t1059.001`";
const EXPECTED_TECHNIQUE: &str =
    "a technique is `t` and four digits, with a dot and three digits for a sub-technique";

/// Returns the technique ids among the tags of a rule: `attack.t1021.006` is T1021.006.
pub(crate) fn techniques(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(tags) = node.get("tags").filter(|tags| !tags.is_null()) else { return found };
    let Value::List(items) = &tags.value else {
        let (at, problem) = tags.form("tags", "a list of strings");
        report.error(at, problem);
        return found;
    };
    for tag in items {
        let Some(text) = tag.text() else {
            let (at, problem) = tag.form("tags", "a list of strings");
            report.error(at, problem);
            continue;
        };
        match read(text, report) {
            Ok(Some(technique)) if !found.contains(&technique) => found.push(technique),
            Ok(_) => {}
            Err((is_error, problem)) if is_error => report.error(tag.at, problem),
            Err((_, problem)) => report.warn(tag.at, problem),
        }
        if found.len() > ATTACK_MAX {
            report.error(tags.at, Problem::TooLarge { what: "number of techniques", max: ATTACK_MAX });
            break;
        }
    }
    found
}

/// Reads one tag. Returns the technique that it names; or the problem, and true if the problem rejects the rule.
fn read(text: &str, report: &mut Report<'_>) -> Result<Option<String>, (bool, Problem)> {
    let shown: String = text.chars().take(60).collect();
    let wrong =
        |expected, suggestion| Problem::Attribute { what: "tag", value: shown.clone(), expected, suggestion };
    let folded = text.trim().to_ascii_lowercase();
    let Some((namespace, name)) = folded.split_once('.') else {
        let suggestion = is_technique(&folded).then(|| format!("attack.{folded}"));
        return Err((true, wrong(EXPECTED_TAG, suggestion)));
    };
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if namespace.is_empty() || name.is_empty() || !folded.chars().all(is_plain) {
        return Err((false, wrong(EXPECTED_TAG, None)));
    }
    if namespace != "attack" {
        return other_namespace(namespace, name, report)
            .map_or(Ok(None), |meant| Err((false, wrong("its namespace is unknown", Some(meant)))));
    }
    if is_technique(name) {
        return Ok(Some(name.to_ascii_uppercase()));
    }
    let begins = |letters: &str| name.strip_prefix(letters).is_some_and(|rest| is_digits(rest, 4));
    // Older rules write tactics with underscores.
    let dashed = name.replace('_', "-");
    if ENTRIES.iter().any(|letters| begins(letters)) || TACTICS.contains(&dashed.as_str()) {
        return Ok(None);
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.strip_prefix('t').is_some_and(starts_with_digit)
    {
        let digits = name.strip_prefix('t').unwrap_or(name);
        let suggestion = is_technique(&format!("t{digits}")).then(|| format!("attack.t{digits}"));
        return Err((false, wrong(EXPECTED_TECHNIQUE, suggestion)));
    }
    let suggestion = report.nearest(&dashed, TACTICS).map(|tactic| format!("attack.{tactic}"));
    Err((false, wrong("it is neither a technique nor a tactic of ATT&CK", suggestion)))
}

/// Returns the tag that was probably intended if the namespace is not one of the specification's; `None` if it may be a
/// custom one.
fn other_namespace(namespace: &str, name: &str, report: &mut Report<'_>) -> Option<String> {
    if NAMESPACES.contains(&namespace) {
        return None;
    }
    let whole = format!("{namespace}.{name}");
    if is_technique(&whole) {
        return Some(format!("attack.{whole}"));
    }
    if is_technique(name) {
        return Some(format!("attack.{name}"));
    }
    report.nearest(namespace, NAMESPACES).map(|near| format!("{near}.{name}"))
}

/// Returns true if the text is `t` and four digits, optionally followed by a dot and three digits.
fn is_technique(text: &str) -> bool {
    let Some(id) = text.strip_prefix('t') else { return false };
    let (technique, sub) = id.split_once('.').unwrap_or((id, "000"));
    is_digits(technique, 4) && is_digits(sub, 3)
}

fn is_digits(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit())
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::rule::report::Report;
    use etwsieve_budget::Budget;

    #[test]
    fn misspelled_tags_are_reported() {
        let rows = [
            ("attack.t1059.001", Ok(Some("T1059.001"))),
            ("attack.T1059", Ok(Some("T1059"))),
            ("attack.execution", Ok(None)),
            ("attack.initial_access", Ok(None)),
            ("attack.g0007", Ok(None)),
            ("attack.ds0017", Ok(None)),
            ("attack.ta0002", Ok(None)),
            ("cve.2021-44228", Ok(None)),
            ("mycompany.topic", Ok(None)),
            ("attack.t1059.01", Err((false, "technique"))),
            ("attack.t105", Err((false, "technique"))),
            ("attack.t10590", Err((false, "technique"))),
            ("attack.1059.001", Err((false, "did you mean `attack.t1059.001`"))),
            ("attack.execusion", Err((false, "did you mean `attack.execution`"))),
            ("attack.nonsense", Err((false, "neither"))),
            ("atack.t1059", Err((false, "did you mean `attack.t1059`"))),
            ("mitre.t1059.001", Err((false, "did you mean `attack.t1059.001`"))),
            ("t1059.001", Err((false, "did you mean `attack.t1059.001`"))),
            ("attck.execution", Err((false, "did you mean `attack.execution`"))),
            ("attack.t 1059", Err((false, "a tag is"))),
            ("t1059", Err((true, "did you mean `attack.t1059`"))),
            ("execution", Err((true, "a tag is"))),
        ];
        let mut report = Report::new(Budget::new(1 << 20, 1 << 20));
        for (tag, expected) in rows {
            match (read(tag, &mut report), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{tag}"),
                (Err((is_error, problem)), Err((refuses, word))) => {
                    assert_eq!(is_error, refuses, "{tag}: {problem}");
                    assert!(problem.to_string().contains(word), "{tag}: {problem}");
                }
                (found, _) => panic!("{tag}: {found:?}"),
            }
        }
    }
}
