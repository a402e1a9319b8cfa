//! A named part of `detection`: maps, lists of maps, and keywords.

use crate::field::EventKinds;
use crate::rule::Expr;
use crate::rule::modifier::Key;
use crate::rule::report::Report;
use crate::yaml::{Node, Value};

/// The expression of a selection: a map's keys are ANDed, a list's items are ORed. `None`: it is wrong, which has been
/// reported.
pub(crate) fn selection(node: &Node, events: EventKinds, report: &mut Report<'_>) -> Option<Expr> {
    match &node.value {
        // Every item is looked at, so that the errors of all are reported.
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
