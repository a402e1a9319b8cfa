//! From the text of rule files to a set of rules, with everything refused named.

use crate::error::{Problem, RuleError};
use crate::rule::identity::DerivedIds;
use crate::rule::sigma::{Document, Filter, document};
use crate::rule::{Expr, Rule};
use crate::yaml;
use std::collections::HashMap;

/// Most rules in a set.
pub const RULES_MAX: usize = 20_000;

/// What a set of rule files gave.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rules, in the order of the files, with the filters applied.
    pub rules: Vec<Rule>,
    /// What was refused. A filter that is refused changes no rule.
    pub errors: Vec<RuleError>,
    /// What was accepted but had no effect: filters whose rules are not in the set.
    pub notes: Vec<String>,
    /// Number of filters applied.
    pub filters: usize,
}

/// Loads rules and filters from files given as name and text.
///
/// A document with an error is left out and the rest is loaded; it is for the caller to decide whether a set with
/// errors may be used.
pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Loaded {
    let mut loaded = Loaded::default();
    let mut filters = Vec::new();
    let mut seen = HashMap::new();
    let mut derived_ids = DerivedIds::default();
    for (file, text) in files {
        let documents = match yaml::parse(text) {
            Ok(documents) => documents,
            Err((line, problem)) => {
                loaded.errors.push(RuleError { file: file.into(), line, problem });
                continue;
            }
        };
        if documents.is_empty() {
            loaded.errors.push(RuleError {
                file: file.into(),
                line: 1,
                problem: Problem::Missing("detection"),
            });
        }
        for node in &documents {
            let result = document(node, file).and_then(|document| match document {
                Document::Filter(filter) => {
                    filters.push(filter);
                    Ok(())
                }
                Document::Rule(_) if loaded.rules.len() == RULES_MAX => {
                    Err((node.line, Problem::TooLarge { what: "number of rules", max: RULES_MAX }))
                }
                Document::Rule(mut rule) => {
                    let place = format!("{file}:{}", node.line);
                    if rule.id.is_empty() {
                        rule.id = derived_ids.next(node, |id| seen.contains_key(id));
                    }
                    if let Some(first) = seen.get(&rule.id) {
                        let first = String::clone(first);
                        return Err((node.line, Problem::DuplicateId { id: rule.id, first }));
                    }
                    seen.insert(rule.id.clone(), place);
                    loaded.rules.push(rule);
                    Ok(())
                }
            });
            if let Err((line, problem)) = result {
                loaded.errors.push(RuleError { file: file.into(), line, problem });
            }
        }
    }
    for filter in filters {
        apply(filter, &mut loaded);
    }
    loaded
}

/// Narrows the rules that the filter names: both conditions must hold.
fn apply(filter: Filter, loaded: &mut Loaded) {
    let named = |rule: &Rule| match &filter.rules {
        None => !filter.events.and(rule.events).is_empty(),
        Some(names) => {
            names.iter().any(|name| *name == rule.id || (!rule.name.is_empty() && *name == rule.name))
        }
    };
    let targets: Vec<usize> = (0..loaded.rules.len()).filter(|&at| named(&loaded.rules[at])).collect();
    let foreign = targets.iter().find(|&&at| filter.events.and(loaded.rules[at].events).is_empty());
    if let Some(&at) = foreign {
        let problem = Problem::FilterLogSource(loaded.rules[at].id.clone());
        loaded.errors.push(RuleError { file: filter.origin.file, line: filter.origin.line, problem });
        return;
    }
    if targets.is_empty() {
        let origin = filter.origin;
        loaded.notes.push(format!(
            "{}:{}: filter {:?} names no rule of this set",
            origin.file, origin.line, filter.title
        ));
        return;
    }
    loaded.filters += 1;
    for at in targets {
        let rule = &mut loaded.rules[at];
        let own = std::mem::replace(&mut rule.expr, Expr::And(Vec::new()));
        rule.expr = Expr::And(vec![own, filter.expr.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::load;

    const RULE: &str = "title: T\nid: r1\nname: one\nlogsource:\n  category: ps_script\n  product: windows\ntags:\n  - attack.execution\n  - attack.t1059.001\ndetection:\n  s:\n    ScriptBlockText|contains: x\n  condition: s\n";

    #[test]
    fn a_rule_loads_whole() {
        let loaded = load([("a.yml", RULE)]);
        assert_eq!(loaded.errors, []);
        let rule = &loaded.rules[0];
        assert_eq!((rule.id.as_str(), rule.title.as_str(), rule.origin.line), ("r1", "T", 1));
        assert_eq!(rule.attack, ["T1059.001"]);
    }

    #[test]
    fn errors_name_file_line_and_construct() {
        let rows = [
            (RULE.replace("title: T\n", ""), "a.yml:1: `title` is missing"),
            (
                RULE.replace("category: ps_script", "category: process_creation"),
                "a.yml:4: log source category=process_creation",
            ),
            (RULE.replace("ps_script", "ps_classic_start"), "ps_classic_start"),
            (RULE.replace("product: windows", "product: linux"), "product=linux"),
            (
                RULE.replace("condition: s", "condition: t"),
                "a.yml:13: condition at column 1: no selection is named `t`",
            ),
            (
                RULE.replace("ScriptBlockText|contains", "Payload|contains"),
                "a.yml:12: field `Payload` is unknown",
            ),
            (
                RULE.replace("ScriptBlockText|contains", "ScriptBlockText|has"),
                "a.yml:12: modifier `has`: is unknown",
            ),
            (RULE.replace("|contains: x", "|re: '('"), "a.yml:12: value \"(\""),
            (RULE.replace("  condition", "  timeframe: 5m\n  condition"), "`timeframe` is not supported"),
            (
                RULE.replace("detection:", "correlation:\n  type: x\ndetection:"),
                "correlation rule is not supported",
            ),
            (
                RULE.replace("title: T\n", "title: T\nlevel: loud\n"),
                "a.yml:2: `level` should be informational",
            ),
            ("just text".into(), "`document` should be a map"),
            (String::new(), "`detection` is missing"),
        ];
        for (text, expected) in rows {
            let loaded = load([("a.yml", text.as_str())]);
            assert!(loaded.rules.is_empty(), "{text}");
            let shown: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
            assert!(shown.len() == 1 && shown[0].contains(expected), "{expected}: {shown:?}");
        }
    }

    #[test]
    fn the_same_id_twice_is_refused() {
        let loaded = load([("a.yml", RULE), ("b.yml", RULE)]);
        assert_eq!(loaded.rules.len(), 1);
        assert_eq!(loaded.errors[0].to_string(), "b.yml:1: id r1 is already loaded from a.yml:1");
    }

    /// The id of a rule without one follows from its contents, wherever and however they are written.
    #[test]
    fn rules_without_an_id_get_one() {
        let rule = RULE.replace("id: r1\n", "");
        let ids = |files: &[(&str, &str)]| -> Vec<String> {
            let loaded = load(files.iter().copied());
            assert_eq!(loaded.errors, []);
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
                format!("{rule}etwsieve:\n  calls: also\n")
                    .replace("contains: x", "contains: Enter-PSSession"),
            ),
        ];
        for (name, text) in &others {
            assert_ne!(ids(&[("a.yml", text)]), [id.as_str()], "{name}");
        }
        let twice = ids(&[("a.yml", &rule), ("b.yml", &rule), ("c.yml", RULE), ("d.yml", &rule)]);
        assert_eq!(twice, [id.clone(), format!("{id}-2"), "r1".into(), format!("{id}-3")]);
    }

    #[test]
    fn filters_narrow_the_rules_they_name() {
        let filter = |rules: &str, category: &str| {
            format!(
                "title: F\nlogsource:\n  category: {category}\n  product: windows\nfilter:\n  rules: {rules}\n  admin:\n    {}: y\n  condition: not admin\n",
                if category == "ps_script" { "Path" } else { "Payload" }
            )
        };
        for (rules, category, applied, errors, notes) in [
            ("[r1]", "ps_script", 1, 0, 0),
            ("[one]", "ps_script", 1, 0, 0),
            ("any", "ps_script", 1, 0, 0),
            ("[other]", "ps_script", 0, 0, 1),
            ("[r1]", "ps_module", 0, 1, 0),
            ("any", "ps_module", 0, 0, 1),
            ("[]", "ps_script", 0, 1, 0),
        ] {
            let text = filter(rules, category);
            let loaded = load([("f.yml", text.as_str()), ("a.yml", RULE)]);
            assert_eq!(
                (loaded.filters, loaded.errors.len(), loaded.notes.len()),
                (applied, errors, notes),
                "{rules} {category}"
            );
            assert_eq!(loaded.rules[0].expr.count_tests(), 1 + applied, "{rules}");
        }
    }
}
