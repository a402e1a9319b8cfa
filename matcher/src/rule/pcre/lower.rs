//! Lowers a parsed expression to the representation of the crate `regex`.
//!
//! Two assertions of PCRE have no equivalent there. `$` also holds before a line feed that ends the text; if nothing
//! after it requires a character, this is equivalent to an optional line feed and the end of the text. `^` in
//! multi-line mode does not hold after a line feed that ends the text; if something after it requires a character, that
//! makes no difference.

use super::class::is_word;
use super::{Look, Node, PcreError};
use regex_syntax::hir::{self, Capture, Class, Hir, HirKind, Repetition};

/// Facts about a part of an expression.
#[derive(Clone, Copy)]
struct Facts {
    /// True if it matches the empty string at the end of a text.
    may_be_empty: bool,
    /// True if every match contains a character.
    consumes: bool,
}

/// The facts about the end of the expression.
const END: Facts = Facts { may_be_empty: true, consumes: false };

pub(super) fn lower(node: Node) -> Result<Hir, PcreError> {
    part(node, END).map(|(hir, _)| hir)
}

/// Lowers a node that is followed by `rest`.
fn part(node: Node, rest: Facts) -> Result<(Hir, Facts), PcreError> {
    Ok(match node {
        Node::Empty => (Hir::empty(), END),
        Node::Set(set) => (Hir::class(Class::Unicode(set)), Facts { may_be_empty: false, consumes: true }),
        Node::Look(own, at) => look(own, at, rest)?,
        Node::Concat(mut nodes) => {
            half_borders(&mut nodes);
            let mut parts = Vec::with_capacity(nodes.len());
            let mut behind = rest;
            let mut all = END;
            for node in nodes.into_iter().rev() {
                let (hir, facts) = part(node, behind)?;
                behind = follows(facts, behind);
                all = follows(facts, all);
                parts.push(hir);
            }
            parts.reverse();
            (Hir::concat(parts), all)
        }
        Node::Either(nodes) => {
            let mut all = Facts { may_be_empty: false, consumes: true };
            let mut parts = Vec::with_capacity(nodes.len());
            for node in nodes {
                let (hir, facts) = part(node, rest)?;
                all.may_be_empty |= facts.may_be_empty;
                all.consumes &= facts.consumes;
                parts.push(hir);
            }
            (Hir::alternation(parts), all)
        }
        Node::Repeat { node, min, max, greedy } => {
            // Another iteration may follow; with a minimum of two it must.
            let own_rest = Facts { may_be_empty: rest.may_be_empty && min < 2, ..rest };
            let (hir, facts) = part(*node, own_rest)?;
            // The printer does not put groups around repetitions, and would turn `(?:a{2})?` into a lazy `a{2}?`.
            let is_repeated = matches!(hir.kind(), HirKind::Repetition(_));
            let sub = if is_repeated {
                Hir::capture(Capture { index: 1, name: None, sub: Box::new(hir) })
            } else {
                hir
            };
            let repetition = Repetition { min, max, greedy, sub: Box::new(sub) };
            let facts =
                Facts { may_be_empty: min == 0 || facts.may_be_empty, consumes: min > 0 && facts.consumes };
            (Hir::repetition(repetition), facts)
        }
    })
}

fn follows(first: Facts, second: Facts) -> Facts {
    Facts {
        may_be_empty: first.may_be_empty && second.may_be_empty,
        consumes: first.consumes || second.consumes,
    }
}

fn look(look: Look, at: usize, rest: Facts) -> Result<(Hir, Facts), PcreError> {
    let refuse = |reason: &str| Err(PcreError { column: at + 1, reason: reason.into() });
    let assertion = Facts { may_be_empty: false, consumes: false };
    let own = match look {
        Look::Start => hir::Look::Start,
        Look::End => hir::Look::End,
        Look::LineEnd => return Ok((Hir::look(hir::Look::EndLF), END)),
        Look::Word => hir::Look::WordAscii,
        Look::LineStart if rest.consumes => hir::Look::StartLF,
        Look::LineStart => {
            return refuse("`^` in multi-line mode is supported only where a character must follow");
        }
        Look::EndOrLineFeed if rest.may_be_empty => {
            let line_feed =
                Repetition { min: 0, max: Some(1), greedy: true, sub: Box::new(Hir::literal(*b"\n")) };
            return Ok((Hir::concat(vec![Hir::repetition(line_feed), Hir::look(hir::Look::End)]), END));
        }
        Look::EndOrLineFeed => {
            return refuse("`$` is supported only where nothing has to follow; write `\\n` for a line end");
        }
        Look::NotWord => {
            return refuse("`\\B` is supported only beside a character that is not part of a word");
        }
        Look::BeforeOther => hir::Look::WordEndHalfAscii,
        Look::BehindOther => hir::Look::WordStartHalfAscii,
    };
    Ok((Hir::look(own), assertion))
}

/// Turns each `\B` beside a character that is not a word character into an assertion about the other side.
fn half_borders(nodes: &mut [Node]) {
    for at in 0..nodes.len() {
        let Node::Look(Look::NotWord, column) = nodes[at] else { continue };
        if at > 0 && is_other(&nodes[at - 1]) {
            nodes[at] = Node::Look(Look::BeforeOther, column);
        } else if nodes.get(at + 1).is_some_and(is_other) {
            nodes[at] = Node::Look(Look::BehindOther, column);
        }
    }
}

/// Returns true if the node matches one or more characters, none of which is a word character.
fn is_other(node: &Node) -> bool {
    match node {
        Node::Set(set) => !is_word(set),
        Node::Repeat { node, min: 1.., .. } => matches!(&**node, Node::Set(set) if !is_word(set)),
        _ => false,
    }
}
