//! Rules that can never match, which nobody would notice.
//!
//! Detects event ids and ranges of numbers that no event of the log source has; combinations that no single event can
//! satisfy (fields of different events, different values of one field, presence and absence of a field); and selections
//! that are combined with their own negation. Other contradictions are not detected.

use crate::field::{EventKind, EventKinds, Field};
use crate::pattern::{Part, fold};
use crate::rule::modifier::shown;
use crate::rule::{Comparison, Expr, Op, Test};

/// Maximum number of parts of a conjunction that are compared with each other.
const COMPARED_MAX: usize = 256;
/// Maximum number of negations that are compared with the other parts.
const NEGATIONS_MAX: usize = 8;

/// The truth value of an expression for events of one kind.
#[derive(Clone, Debug, PartialEq)]
enum Truth {
    /// False for every event, with the reason.
    Never(String),
    /// True for every event.
    Always,
    Depends,
}

/// Returns the reason why the expression is false for all events; `None` if it may be true.
///
/// # Complexity
///
/// Linear in the expression, times [`NEGATIONS_MAX`].
pub(crate) fn reason(expr: &Expr, events: EventKinds) -> Option<String> {
    let mut reason = None;
    for kind in EventKind::ALL.into_iter().filter(|kind| events.contains(*kind)) {
        match truth(expr, kind, events, false) {
            // Reports the first reason. AMSI content comes last and has other reasons.
            Truth::Never(own) => reason = reason.or(Some(own)),
            Truth::Always | Truth::Depends => return None,
        }
    }
    reason
}

fn truth(expr: &Expr, kind: EventKind, events: EventKinds, is_in_and: bool) -> Truth {
    match expr {
        Expr::Or(parts) => {
            let mut never = None;
            let mut depends = false;
            for part in parts {
                match truth(part, kind, events, false) {
                    Truth::Never(reason) => never = never.or(Some(reason)),
                    Truth::Always => return Truth::Always,
                    Truth::Depends => depends = true,
                }
            }
            if depends {
                return Truth::Depends;
            }
            Truth::Never(never.unwrap_or_else(|| "there is nothing to match".into()))
        }
        Expr::And(parts) => {
            let mut all = Truth::Always;
            for part in parts {
                match truth(part, kind, events, true) {
                    never @ Truth::Never(_) => return never,
                    Truth::Depends => all = Truth::Depends,
                    Truth::Always => {}
                }
            }
            // Parts of a nested conjunction are compared with those of the outer one.
            let found = if is_in_and { None } else { contradiction(parts) };
            found.map_or(all, Truth::Never)
        }
        Expr::Not(part) => match truth(part, kind, events, false) {
            Truth::Never(_) => Truth::Always,
            Truth::Always => Truth::Never("it excludes every event".into()),
            Truth::Depends => Truth::Depends,
        },
        Expr::Test(test) => of_test(test, kind, events),
    }
}

fn of_test(test: &Test, kind: EventKind, events: EventKinds) -> Truth {
    let decided = |is_true| {
        if is_true {
            Truth::Always
        } else {
            Truth::Never(format!("none of the {} satisfies it", shown(events)))
        }
    };
    let Some(field) = test.field else { return Truth::Depends };
    let is_absent = !has(kind, field);
    match &test.op {
        Op::Exists(exists) if is_absent => decided(!exists),
        _ if is_absent => Truth::Never("it needs fields that no single event has".into()),
        Op::Number(comparison, number) if field == Field::EventId => {
            if comparison.holds(i64::from(kind.event_id()), *number) {
                Truth::Always
            } else {
                Truth::Never(format!("no event of its log source has EventID {}{number}", sign(*comparison)))
            }
        }
        Op::Exists(exists) if field == Field::EventId => decided(*exists),
        _ => Truth::Depends,
    }
}

/// Returns true if events of this kind may have the field.
fn has(kind: EventKind, field: Field) -> bool {
    let is_of_block = matches!(field, Field::ScriptBlockId | Field::MessageNumber | Field::MessageTotal);
    field.kinds().contains(kind) && !(kind == EventKind::Amsi && is_of_block)
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "",
        Comparison::Lt => "below ",
        Comparison::Lte => "up to ",
        Comparison::Gt => "above ",
        Comparison::Gte => "from ",
    }
}

/// The requirements of a conjunction on one field.
#[derive(Clone, Copy)]
struct Demands<'e> {
    low: i64,
    high: i64,
    absent: bool,
    present: bool,
    literal: Option<&'e [Part]>,
}

const NOTHING: Demands<'_> =
    Demands { low: i32::MIN as i64, high: i32::MAX as i64, absent: false, present: false, literal: None };

/// Returns the reason why the parts cannot hold together.
fn contradiction(parts: &[Expr]) -> Option<String> {
    let mut flat = Vec::new();
    flatten(parts, &mut flat);
    let mut demands = [NOTHING; Field::COUNT];
    for part in &flat {
        let Expr::Test(Test { field: Some(field), op }) = part else { continue };
        let own = &mut demands[*field as usize];
        match op {
            Op::Exists(exists) => {
                own.present |= exists;
                own.absent |= !exists;
            }
            Op::Number(comparison, number) => {
                own.present = true;
                let (low, high) = interval(*comparison, *number);
                own.low = own.low.max(low);
                own.high = own.high.min(high);
            }
            Op::Regex(_) => own.present = true,
            Op::Text { pattern, cased } => {
                own.present = true;
                if !cased && !pattern.has_wildcard() {
                    if own.literal.is_some_and(|other| !are_equal(other, pattern.parts())) {
                        return Some(format!("{field:?} would have to have two values at once"));
                    }
                    own.literal = Some(pattern.parts());
                }
            }
        }
        if own.low > own.high {
            return Some(format!("no number satisfies its conditions on {field:?}"));
        }
        if own.present && own.absent {
            return Some(format!("{field:?} would have to be absent and have a value"));
        }
    }
    let negated = flat.iter().filter_map(|part| if let Expr::Not(part) = part { Some(part) } else { None });
    let is_excluded = |part: &Expr| flat.contains(&part);
    let found = negated.take(NEGATIONS_MAX).any(|part| is_excluded(part));
    found.then(|| "it excludes what it selects".into())
}

/// Collects the parts of a conjunction, including nested ones.
fn flatten<'e>(parts: &'e [Expr], flat: &mut Vec<&'e Expr>) {
    for part in parts {
        if flat.len() == COMPARED_MAX {
            return;
        }
        flat.push(part);
        if let Expr::And(inner) = part {
            flatten(inner, flat);
        }
    }
}

fn interval(comparison: Comparison, number: i64) -> (i64, i64) {
    match comparison {
        Comparison::Eq => (number, number),
        Comparison::Lt => (i64::MIN, number.saturating_sub(1)),
        Comparison::Lte => (i64::MIN, number),
        Comparison::Gt => (number.saturating_add(1), i64::MAX),
        Comparison::Gte => (number, i64::MAX),
    }
}

/// Returns true if two patterns without wildcards match the same texts.
fn are_equal(one: &[Part], other: &[Part]) -> bool {
    let folded = |part: &Part| if let Part::Unit(unit) = part { Some(fold(*unit)) } else { None };
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| folded(a) == folded(b))
}
