//! Writes a parsed expression in terms of the crate `regex`.
//!
//! Two assertions of PCRE have no equal there. `$` also holds before a line feed that ends the text; if nothing behind
//! it needs a character, it is the same as an optional line feed and the end. `^` in multi-line mode does not hold behind
//! a line feed that ends the text; if something behind it needs a character, that makes no difference.

use super::class::is_word;
use super::{Look, Node, PcreError};
use regex_syntax::hir::{self, Capture, Class, Hir, HirKind, Repetition};

/// Facts about a part of an expression.
#[derive(Clone, Copy)]
struct Facts {
    /// Matches the empty text at the end of a text.
    may_be_empty: bool,
    /// Every match has a character.
    consumes: bool,
}

/// The end of the expression.
const END: Facts = Facts { may_be_empty: true, consumes: false };

pub(super) fn lower(node: Node) -> Result<Hir, PcreError> {
    part(node, END).map(|(hir, _)| hir)
}

/// Lowers a node that `rest` follows.
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
            // Another round may follow; from the second on it has to.
            let own_rest = Facts { may_be_empty: rest.may_be_empty && min < 2, ..rest };
            let (hir, facts) = part(*node, own_rest)?;
            // The printer writes no group around a repetition, and would make `(?:a{2})?` a lazy `a{2}?`.
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

/// Turns each `\B` beside a character that is not part of a word into an assertion about its other side.
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

/// Returns true if the node is one or more characters that are not part of a word.
fn is_other(node: &Node) -> bool {
    match node {
        Node::Set(set) => !is_word(set),
        Node::Repeat { node, min: 1.., .. } => matches!(&**node, Node::Set(set) if !is_word(set)),
        _ => false,
    }
}
