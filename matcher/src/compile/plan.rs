//! Compiles the rules of one kind of event.

use crate::compile::clause;
use crate::compile::literals::LiteralTable;
use crate::compile::program::Checks;
use crate::engine::gate::Gate;
use crate::engine::plan::{Plan, Program};
use crate::field::{EventKind, Field};
use crate::rule::Rule;
use crate::scan::kernel::Isa;

/// Compiles those of the `wanted` rules that apply to events of `kind`.
pub(crate) fn compile(kind: EventKind, rules: &[Rule], isa: Isa, wanted: fn(&Rule) -> bool) -> Plan {
    let mut literals = LiteralTable::default();
    let (mut ungated, mut by_needle) = (Vec::new(), Vec::new());
    let own = || (0u32..).zip(rules).filter(|(_, rule)| rule.events.contains(kind) && wanted(rule));
    for (program, (_, rule)) in (0u32..).zip(own()) {
        match clause::necessary(&rule.expr, kind).filter(clause::Clause::is_selective) {
            None => ungated.push(program),
            // A rule whose clause has no needle never runs.
            Some(clause) => {
                for needle in clause.needles {
                    let needle = literals.number(needle) as usize;
                    if by_needle.len() == needle {
                        by_needle.push(Vec::new());
                    }
                    by_needle[needle].push(program);
                }
            }
        }
    }
    literals.close_gate();
    let mut checks = Checks::new(kind, literals);
    let programs =
        own().map(|(number, rule)| Program { rule: number, steps: checks.program(&rule.expr) }).collect();
    let Checks { literals, list: checks, .. } = checks;
    let (needles, finders) = literals.finish();
    let mut reads: Vec<Field> = checks.iter().flat_map(|check| check.fields.iter().copied()).collect();
    reads.sort_unstable();
    reads.dedup();
    let gate = Gate::new(needles, isa);
    Plan { gate, finders, checks, programs, ungated, by_needle, reads, isa }
}
