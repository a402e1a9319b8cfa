//! Selections, the named parts of `detection`: maps, lists of maps, and keywords.

use crate::field::EventKinds;
use crate::rule::Expr;
use crate::rule::modifier::Key;
use crate::rule::report::Report;
use crate::yaml::{Node, Value};

/// Returns the expression of a selection: the keys of a map are ANDed, the items of a list are ORed. Returns `None` if
/// it is invalid; the error has been reported.
pub(crate) fn selection(node: &Node, events: EventKinds, report: &mut Report<'_>) -> Option<Expr> {
    match &node.value {
        // Reads every item, to report the errors of all.
        Value::List(items) if !items.is_empty() => {
            let parts: Vec<_> = items.iter().map(|part| item(part, events, report)).collect();
            Some(Expr::Or(parts.into_iter().collect::<Option<_>>()?))
        }
        _ => item(node, events, report),
    }
}

fn item(node: &Node, events: EventKinds, report: &mut Report<'_>) -> Option<Expr> {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            let mut parts = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                parts.push(Key::parse(key, value.at, events, report).and_then(|key| key.expr(value, report)));
            }
            Some(Expr::And(parts.into_iter().collect::<Option<_>>()?))
        }
        Value::Scalar { .. } if !node.is_null() => {
            Key::parse("", node.at, events, report).and_then(|key| key.expr(node, report))
        }
        _ => {
            let (at, problem) =
                node.form("selection", "a map of fields, a list of maps, or a list of keywords");
            report.error(at, problem);
            None
        }
    }
}
