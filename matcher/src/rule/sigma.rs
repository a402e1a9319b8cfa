//! Sigma documents: rules and filters.
//!
//! Source: Sigma specification 2.1, "Sigma Rules" and "Sigma Filters". Keys that only describe a rule are ignored,
//! because the specification allows any; keys that change its meaning are supported or rejected.

use crate::error::{Located, Problem};
use crate::field::{EventKind, EventKinds};
use crate::rule::condition::{self, Selection};
use crate::rule::filter::Filter;
use crate::rule::logsource::{self, Source};
use crate::rule::report::Report;
use crate::rule::selection::selection;
use crate::rule::{Calls, Expr, Origin, Rule, metadata, never};
use crate::yaml::{Document, Node, Value};

/// The custom attribute of a rule for this program.
const EXTENSION: &str = "etwsieve";

/// The result of reading a document.
pub(crate) enum DocumentKind {
    Rule(Box<Rule>),
    Filter(Box<Filter>),
    /// A rule or filter for events that this sensor does not read.
    Other {
        id: String,
        name: String,
    },
    /// A correlation rule, with the ids and names of the rules that it refers to.
    Correlation {
        rules: Vec<String>,
    },
    /// Invalid; the error has been reported.
    Refused,
}

/// Reads one document of the file called `file` and reports all its errors.
pub(crate) fn document(document: &Document, file: &str, report: &mut Report<'_>) -> DocumentKind {
    let node = &document.root;
    let mark = report.mark();
    if !matches!(node.value, Value::Map(_)) {
        let (at, problem) = node.form("document", "a map with title, logsource and detection");
        report.error(at, problem);
        return DocumentKind::Refused;
    }
    if let Some(correlation) = node.get("correlation") {
        let rules = correlation.get("rules").map(Node::items).unwrap_or_default();
        let rules = rules.iter().filter_map(|rule| rule.text().map(str::to_owned)).collect();
        return DocumentKind::Correlation { rules };
    }
    if let Some(action) = node.get("action") {
        report.error(action.at, Problem::Unsupported("a rule collection (`action`)".into()));
    }
    let source = if let Some(logsource) = node.get("logsource") {
        logsource::read(logsource, report)
    } else {
        metadata::missing(node, "logsource", report);
        None
    };
    if source == Some(Source::Other) && !report.failed_since(mark) {
        let text = |key| node.get(key).and_then(Node::text).unwrap_or_default().trim().to_owned();
        return DocumentKind::Other { id: text("id"), name: text("name") };
    }
    for (at, problem) in &document.flaws {
        report.error(*at, problem.clone());
    }
    // Without a log source, the rest is read as if for all events, to find its other errors.
    let events = if let Some(Source::Ours(events)) = source { events } else { EventKinds::ALL };
    let metadata = metadata::read(node, report);
    let origin = Origin { file: file.into(), line: node.at.line };
    let found = match (node.get("detection"), node.get("filter")) {
        (Some(detection), None) => {
            let calls = calls(node, events, report);
            let (calls, base) = report.take(calls).unwrap_or_default();
            let Some(expr) = detection_expr(detection, events, &[], report) else {
                return DocumentKind::Refused;
            };
            if calls != Calls::No && expr.cmdlet_names().is_empty() {
                let problem = Problem::Unsupported("`calls` without the name of a known cmdlet".into());
                report.error(node.at, problem);
            }
            if let Some(reason) = never::reason(&expr, events) {
                report.error(detection.at, Problem::Never(reason));
            }
            DocumentKind::Rule(Box::new(Rule {
                id: metadata.id,
                title: metadata.title,
                level: metadata.level,
                attack: metadata.attack,
                origin,
                events,
                expr,
                name: metadata.name,
                calls,
                base,
            }))
        }
        (None, Some(filter)) => {
            let rules = filtered_rules(filter);
            let rules = report.take(rules);
            let expr = detection_expr(filter, events, &["rules"], report);
            let (Some(rules), Some(expr)) = (rules, expr) else { return DocumentKind::Refused };
            DocumentKind::Filter(Box::new(Filter { origin, at: node.at, events, rules, expr }))
        }
        (Some(_), Some(filter)) => {
            report.error(filter.at, Problem::Unsupported("a filter inside a rule".into()));
            DocumentKind::Refused
        }
        (None, None) => {
            metadata::missing(node, "detection", report);
            DocumentKind::Refused
        }
    };
    if report.failed_since(mark) { DocumentKind::Refused } else { found }
}

/// Reads the custom attribute: `calls` and `base`.
fn calls(node: &Node, events: EventKinds, report: &mut Report<'_>) -> Result<(Calls, String), Located> {
    let Some(own) = node.get(EXTENSION) else { return Ok((Calls::No, String::new())) };
    let Value::Map(entries) = &own.value else {
        return Err(own.form(EXTENSION, "a map with `calls`, and perhaps `base`"));
    };
    if let Some((key, value)) = entries.iter().find(|(key, _)| !matches!(key.as_str(), "calls" | "base")) {
        let problem = match report.nearest(key, ["calls", "base"]) {
            Some(meant) => Problem::Key { key: key.clone(), suggestion: Some(meant.into()) },
            None => Problem::Unsupported(format!("{EXTENSION} key `{key}`")),
        };
        return Err((value.at, problem));
    }
    let asked = own.get("calls").ok_or((own.at, Problem::Missing { key: "calls", found: None }))?;
    let calls = match asked.text() {
        Some("also") => Calls::Also,
        Some("only") => Calls::Only,
        _ => return Err(asked.form("calls", "`also` or `only`")),
    };
    if !events.contains(EventKind::ScriptBlock) {
        return Err((asked.at, Problem::Unsupported("`calls` of a rule that is not about ps_script".into())));
    }
    let base = metadata::text(own, "base", report);
    match own.get("base") {
        Some(base) if calls == Calls::Also => {
            Err((base.at, Problem::Unsupported("`base` of a rule that is searched in every view".into())))
        }
        _ => Ok((calls, base)),
    }
}

fn filtered_rules(filter: &Node) -> Result<Option<Vec<String>>, Located> {
    let missing = Problem::Missing { key: "rules", found: None };
    let rules = filter.get("rules").ok_or((filter.at, missing))?;
    let names: Option<Vec<_>> =
        rules.items().iter().map(|item| item.text().map(|name| name.trim().to_owned())).collect();
    match names {
        Some(names) if names.len() == 1 && names[0].eq_ignore_ascii_case("any") => Ok(None),
        Some(names) if !names.is_empty() => Ok(Some(names)),
        _ => Err(rules.form("rules", "`any`, or a list of ids and names of rules")),
    }
}

/// Returns the expression of a `detection` or `filter` map; `metadata` names keys that are not selections. Returns
/// `None` if it is invalid; the error has been reported.
fn detection_expr(
    node: &Node,
    events: EventKinds,
    metadata: &[&str],
    report: &mut Report<'_>,
) -> Option<Expr> {
    if !matches!(node.value, Value::Map(_)) {
        return report.take(Err(node.form("detection", "a map of selections with a condition")));
    }
    let mark = report.mark();
    let condition = node.get("condition");
    let mut selections = Vec::new();
    for (key, value) in node.entries() {
        match key.as_str() {
            "condition" => {}
            "timeframe" => report.error(value.at, Problem::Unsupported("`timeframe`".into())),
            name if metadata.contains(&name) => {}
            // As a selection, a misspelled condition would silently become a keyword.
            name if condition.is_none() && report.nearest(name, ["condition"]).is_some() => {
                let found = Some(name.chars().take(60).collect());
                report.error(value.at, Problem::Missing { key: "condition", found });
            }
            name => {
                let expr = selection(value, events, report);
                selections.push(Selection::new(name.to_owned(), value.at, expr));
            }
        }
    }
    let Some(condition) = condition else {
        if !report.failed_since(mark) {
            report.error(node.at, Problem::Missing { key: "condition", found: None });
        }
        return None;
    };
    let mut parts = Vec::new();
    for item in condition.items() {
        let text = item.text().ok_or_else(|| item.form("condition", "a string, or a list of them"));
        if let Some(text) = report.take(text) {
            parts.extend(condition::parse(text, item.at, &mut selections, report));
        }
    }
    if report.failed_since(mark) {
        return None;
    }
    for unused in selections.iter().filter(|selection| !selection.is_used && !selection.name.starts_with('_'))
    {
        report.warn(unused.at, Problem::Unused(unused.name.clone()));
    }
    match parts.len() {
        0 => report.take(Err((condition.at, Problem::Missing { key: "condition", found: None }))),
        1 => Some(parts.remove(0)),
        _ => Some(Expr::Or(parts)),
    }
}
