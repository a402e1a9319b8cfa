//! The cmdlets that a rule refers to.

use crate::cmdlet::{CMDLETS, Cmdlet, is_name};
use crate::pattern::Part;
use crate::rule::{Expr, Op};

impl Expr {
    /// Returns the names and aliases of the known cmdlets that the literals of the expression contain.
    pub(crate) fn cmdlet_names(&self) -> Vec<&'static str> {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::cmdlet_names).collect(),
            Self::Not(_) => Vec::new(),
            Self::Test(test) => {
                let Op::Text { pattern, .. } = &test.op else { return Vec::new() };
                let unit = |part: &Part| if let Part::Unit(unit) = part { *unit } else { 0 };
                let units: Vec<u16> = pattern.parts().iter().map(unit).collect();
                let is_named = |cmdlet: &&Cmdlet| {
                    units.windows(cmdlet.name.len()).any(|part| is_name(part, cmdlet.name))
                };
                let names = |cmdlet: &'static Cmdlet| {
                    std::iter::once(cmdlet.name).chain(cmdlet.aliases.iter().copied())
                };
                CMDLETS.iter().filter(is_named).flat_map(names).collect()
            }
        }
    }
}
