//! `regex` on raw bytes: one expression with `(?i)` for each literal, or a set of them.

use super::{Contestant, Field, Question};
use crate::answer::Pair;
use crate::literals::Literal;
use crate::workload::{Part, Workload, text_of};
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// Maximum number of literals for which single expressions are faster than a set.
const SINGLE_LITERALS_MAX: usize = 16;
/// Maximum number of literals in a set; building a larger one takes minutes.
const LITERALS_MAX: usize = 2_000;
/// Maximum number of payload bytes in one pass.
const BYTES_MAX: u64 = 64 << 20;
/// Maximum work of one pass of a set, in payload bytes times literals.
const SET_WORK_MAX: u64 = 8 << 20;
/// Maximum size of a compiled expression in bytes.
const SIZE_MAX: usize = 1 << 30;

pub(super) struct Regexes<'a> {
    workload: &'a Workload,
    part: Part,
    engine: Engine,
}

enum Engine {
    Single(Vec<Regex>),
    Set(RegexSet),
}

impl<'a> Regexes<'a> {
    /// Fails with the reason why it does not take part.
    pub(super) fn new(field: &Field<'a>) -> Result<Self, String> {
        let literals = &field.literals.list;
        if literals.len() > LITERALS_MAX {
            return Err(format!("{} literals are too many for a set of expressions", literals.len()));
        }
        let expressions: Vec<String> = literals.iter().map(expression).collect();
        let refused = |error: regex::Error| error.to_string();
        let (engine, bytes_max) = if expressions.len() <= SINGLE_LITERALS_MAX {
            let build = |text: &String| RegexBuilder::new(text).unicode(false).build();
            let list = expressions.iter().map(build).collect::<Result<_, _>>().map_err(refused)?;
            (Engine::Single(list), BYTES_MAX / expressions.len().max(1) as u64 * 2)
        } else {
            let set = RegexSetBuilder::new(&expressions).unicode(false).size_limit(SIZE_MAX).build();
            (Engine::Set(set.map_err(refused)?), SET_WORK_MAX / expressions.len() as u64)
        };
        Ok(Self { workload: field.workload, part: Part::of(field.workload, bytes_max), engine })
    }
}

/// Returns `(?i)` and the literal's bytes, of which all but printable ones are escaped.
fn expression(literal: &Literal) -> String {
    let unit = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("(?i){}", literal.spelled.iter().map(unit).collect::<String>())
}

impl Contestant for Regexes<'_> {
    fn name(&self) -> String {
        "regex".into()
    }

    fn question(&self) -> Question {
        Question::Literals
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.part(self.part) {
            let text = text_of(payload);
            match &self.engine {
                Engine::Single(list) => {
                    for (literal, regex) in (0..).zip(list) {
                        if regex.is_match(text) {
                            found((event, literal));
                        }
                    }
                }
                Engine::Set(set) => {
                    set.matches(text).iter().for_each(|literal| found((event, literal as u32)));
                }
            }
        }
    }
}
