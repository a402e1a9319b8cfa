//! A named part of `detection`: maps, lists of maps, and keywords.

use crate::error::Located;
use crate::field::EventKinds;
use crate::rule::Expr;
use crate::rule::modifier::Key;
use crate::yaml::{Node, Value};

/// The expression of a selection: a map's keys are ANDed, a list's items are ORed.
pub(crate) fn selection(node: &Node, events: EventKinds) -> Result<Expr, Located> {
    match &node.value {
        Value::List(items) if !items.is_empty() => {
            Ok(Expr::Or(items.iter().map(|part| item(part, events)).collect::<Result<_, _>>()?))
        }
        _ => item(node, events),
    }
}

fn item(node: &Node, events: EventKinds) -> Result<Expr, Located> {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            let parts = entries.iter().map(|(key, value)| Key::parse(key, value.line, events)?.expr(value));
            Ok(Expr::And(parts.collect::<Result<_, _>>()?))
        }
        Value::Scalar { .. } if !node.is_null() => Key::parse("", node.line, events)?.expr(node),
        _ => Err(node.form("selection", "a map of fields, a list of maps, or a list of keywords")),
    }
}
