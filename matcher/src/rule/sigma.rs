//! A Sigma document: a rule or a filter.
//!
//! Source: Sigma specification 2.1, "Sigma Rules" and "Sigma Filters". Keys that only describe a rule are left
//! alone, as the specification allows any; what changes a rule's meaning is understood or refused.

use crate::error::{Located, Problem};
use crate::field::{EventKind, EventKinds};
use crate::rule::selection::selection;
use crate::rule::{Calls, Expr, Origin, Rule, condition};
use crate::view::Names;
use crate::yaml::{Node, Value};

/// Longest title, id or name, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 1024;
/// The custom attribute of a rule that is about this program.
const EXTENSION: &str = "etwsieve";
/// Most techniques of a rule.
pub(crate) const ATTACK_MAX: usize = 64;

/// What a document holds.
pub(crate) enum Document {
    Rule(Rule),
    Filter(Filter),
}

/// A filter: it narrows the rules that it names.
pub(crate) struct Filter {
    pub(crate) title: String,
    pub(crate) origin: Origin,
    pub(crate) events: EventKinds,
    /// Ids or names of rules; `None`: every rule of the same log source.
    pub(crate) rules: Option<Vec<String>>,
    pub(crate) expr: Expr,
}

/// Understands one document of the file called `file`.
pub(crate) fn document(node: &Node, file: &str) -> Result<Document, Located> {
    if !matches!(node.value, Value::Map(_)) {
        return Err(node.form("document", "a map with title, logsource and detection"));
    }
    for (key, what) in [("correlation", "a correlation rule"), ("action", "a rule collection (`action`)")] {
        if let Some(found) = node.get(key) {
            return Err((found.line, Problem::Unsupported(what.into())));
        }
    }
    let origin = Origin { file: file.into(), line: node.line };
    let title = required(node, "title")?;
    let events = log_source(node.get("logsource").ok_or((node.line, Problem::Missing("logsource")))?)?;
    match (node.get("detection"), node.get("filter")) {
        (Some(detection), None) => {
            let (calls, base) = calls(node, events)?;
            let expr = detection_expr(detection, events, &[])?;
            if calls != Calls::No && Names::of_expr(&expr).is_empty() {
                return Err((
                    node.line,
                    Problem::Unsupported("`calls` without the name of a known cmdlet".into()),
                ));
            }
            Ok(Document::Rule(Rule {
                id: optional(node, "id")?,
                title,
                level: level(node)?,
                attack: attack(node)?,
                origin,
                events,
                expr,
                name: optional(node, "name")?,
                calls,
                base,
            }))
        }
        (None, Some(filter)) => Ok(Document::Filter(Filter {
            title,
            origin,
            events,
            rules: filtered_rules(filter)?,
            expr: detection_expr(filter, events, &["rules"])?,
        })),
        (Some(_), Some(filter)) => Err((filter.line, Problem::Unsupported("a filter inside a rule".into()))),
        (None, None) => Err((node.line, Problem::Missing("detection"))),
    }
}

/// What the rule asks of this program, in a map named after it: `calls` and `base`.
fn calls(node: &Node, events: EventKinds) -> Result<(Calls, String), Located> {
    let Some(own) = node.get(EXTENSION) else { return Ok((Calls::No, String::new())) };
    let Value::Map(entries) = &own.value else {
        return Err(own.form(EXTENSION, "a map with `calls`, and perhaps `base`"));
    };
    if let Some((key, value)) = entries.iter().find(|(key, _)| !matches!(key.as_str(), "calls" | "base")) {
        return Err((value.line, Problem::Unsupported(format!("{EXTENSION} key `{key}`"))));
    }
    let asked = own.get("calls").ok_or((own.line, Problem::Missing("calls")))?;
    let calls = match asked.text() {
        Some("also") => Calls::Also,
        Some("only") => Calls::Only,
        _ => return Err(asked.form("calls", "`also` or `only`")),
    };
    if !events.contains(EventKind::ScriptBlock) {
        return Err((
            asked.line,
            Problem::Unsupported("`calls` of a rule that is not about ps_script".into()),
        ));
    }
    let base = optional(own, "base")?;
    match own.get("base") {
        Some(base) if calls == Calls::Also => {
            Err((base.line, Problem::Unsupported("`base` of a rule that is searched in every view".into())))
        }
        _ => Ok((calls, base)),
    }
}

fn required(node: &Node, key: &'static str) -> Result<String, Located> {
    let text = optional(node, key)?;
    if text.is_empty() { Err((node.line, Problem::Missing(key))) } else { Ok(text) }
}

fn optional(node: &Node, key: &'static str) -> Result<String, Located> {
    match node.get(key) {
        None => Ok(String::new()),
        Some(value) if value.is_null() => Ok(String::new()),
        Some(value) => match value.text() {
            Some(text) if text.len() <= NAME_LEN_MAX => Ok(text.trim().to_owned()),
            Some(_) => Err((value.line, Problem::TooLarge { what: key, max: NAME_LEN_MAX })),
            None => Err(value.form(key, "a string")),
        },
    }
}

fn level(node: &Node) -> Result<String, Located> {
    let level = optional(node, "level")?;
    match level.as_str() {
        "" | "informational" | "low" | "medium" | "high" | "critical" => Ok(level),
        _ => Err(node
            .get("level")
            .unwrap_or(node)
            .form("level", "informational, low, medium, high or critical")),
    }
}

/// Technique ids among the tags: `attack.t1021.006` is T1021.006. Tactics, groups and software are not.
fn attack(node: &Node) -> Result<Vec<String>, Located> {
    let Some(tags) = node.get("tags").filter(|tags| !tags.is_null()) else {
        return Ok(Vec::new());
    };
    let mut techniques = Vec::new();
    for tag in tags.items() {
        let text = tag.text().ok_or_else(|| tag.form("tags", "a list of strings"))?.to_ascii_lowercase();
        let Some(id) = text.strip_prefix("attack.t") else { continue };
        let (technique, sub) = id.split_once('.').unwrap_or((id, "000"));
        let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        if digits(technique, 4) && digits(sub, 3) {
            techniques.push(format!("T{id}"));
        }
    }
    if techniques.len() > ATTACK_MAX {
        return Err((tags.line, Problem::TooLarge { what: "number of techniques", max: ATTACK_MAX }));
    }
    Ok(techniques)
}

fn log_source(node: &Node) -> Result<EventKinds, Located> {
    let Value::Map(entries) = &node.value else {
        return Err(node.form("logsource", "a map"));
    };
    let mut found = Vec::new();
    for (key, value) in entries {
        match key.as_str() {
            "definition" => {}
            "product" | "category" | "service" => {
                let text = value.text().ok_or_else(|| value.form(key, "a string"))?;
                found.push((key.as_str(), text.to_ascii_lowercase()));
            }
            _ => return Err((value.line, Problem::Unsupported(format!("logsource key `{key}`")))),
        }
    }
    let value = |key| found.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    let events = match (value("product"), value("category"), value("service")) {
        (None | Some("windows"), Some("ps_script"), None | Some("powershell")) => {
            EventKinds::only(EventKind::ScriptBlock)
        }
        (None | Some("windows"), Some("ps_module"), None | Some("powershell")) => {
            EventKinds::only(EventKind::Module)
        }
        (None | Some("windows"), None, Some("powershell")) => EventKinds::ALL,
        _ => {
            let shown: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Err((node.line, Problem::LogSource(shown.join(", "))));
        }
    };
    Ok(events)
}

fn filtered_rules(filter: &Node) -> Result<Option<Vec<String>>, Located> {
    let rules = filter.get("rules").ok_or((filter.line, Problem::Missing("rules")))?;
    let names: Option<Vec<_>> = rules.items().iter().map(|item| item.text().map(str::to_owned)).collect();
    match names {
        Some(names) if names.len() == 1 && names[0] == "any" => Ok(None),
        Some(names) if !names.is_empty() => Ok(Some(names)),
        _ => Err(rules.form("rules", "`any`, or a list of ids and names of rules")),
    }
}

/// The expression of a `detection` or `filter` map; `metadata` names keys that are no selections.
fn detection_expr(node: &Node, events: EventKinds, metadata: &[&str]) -> Result<Expr, Located> {
    let Value::Map(entries) = &node.value else {
        return Err(node.form("detection", "a map of selections with a condition"));
    };
    let mut selections = Vec::new();
    for (key, value) in entries {
        match key.as_str() {
            "condition" => {}
            "timeframe" => return Err((value.line, Problem::Unsupported("`timeframe`".into()))),
            name if metadata.contains(&name) => {}
            name => {
                selections.push((name.to_owned(), selection(value, events)?));
            }
        }
    }
    let conditions = node.get("condition").ok_or((node.line, Problem::Missing("condition")))?;
    let mut parts = Vec::new();
    for item in conditions.items() {
        let text = item.text().ok_or_else(|| item.form("condition", "a string, or a list of them"))?;
        parts.push(condition::parse(text, &selections).map_err(|problem| (item.line, problem))?);
    }
    match parts.len() {
        0 => Err((conditions.line, Problem::Missing("condition"))),
        1 => Ok(parts.remove(0)),
        _ => Ok(Expr::Or(parts)),
    }
}
