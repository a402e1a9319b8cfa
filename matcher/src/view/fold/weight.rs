//! The cost of a regular expression, estimated from its syntax tree before it is built.

use regex_syntax::ast::{self, Ast};

/// Maximum number of characters in a match with repetitions written out; more do not fit the compiled form.
pub(super) const POSITIONS_MAX: usize = 1 << 12;
/// Steps to build any expression.
const BUILD_STEPS: usize = 12_000;
/// Steps to build a character, for each of its copies.
const CHARACTER_STEPS: usize = 700;
/// Steps to build a Unicode class with few ranges: `\d` and `\s`.
const SMALL_CLASS_STEPS: usize = 35_000;
/// Steps to build any other named Unicode class, such as `\w` and `\pL`.
const CLASS_STEPS: usize = 220_000;
/// Steps per character of a range in brackets, for which the other case has to be looked up.
const RANGE_CHARACTER_STEPS: usize = 14;
/// Steps for constructs that are rejected because they may look up the other case of nearly all of Unicode.
const REFUSED_STEPS: usize = 1 << 30;
/// Maximum number of copies of such classes that fit the compiled form.
const CLASS_COPIES_MAX: usize = 16;
/// Steps per copy.
const CLASS_COPY_STEPS: usize = 12_000;
/// Maximum length of a character, in bytes.
pub(super) const CHARACTER_LEN_MAX: usize = 4;

/// The cost of an expression, estimated from its syntax tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Number of characters and classes, including copies.
    pub(super) positions: usize,
    /// Steps to build the Unicode classes, each once.
    class_steps: usize,
    /// Number of Unicode classes, including copies.
    class_copies: usize,
    /// Maximum length of a match in bytes; `None` if it is unlimited.
    len_max: Option<usize>,
    /// If the length is unlimited: maximum length of a match before a repeated last character, in bytes. A search that
    /// has reached the end of that repetition is finished.
    len_before_tail: Option<usize>,
}

impl Weight {
    const NOTHING: Self =
        Self { positions: 0, class_steps: 0, class_copies: 0, len_max: Some(0), len_before_tail: None };

    fn character() -> Self {
        Self { positions: 1, len_max: Some(CHARACTER_LEN_MAX), ..Self::NOTHING }
    }

    /// Returns the weight of a Unicode class that takes this many steps.
    fn named(class_steps: usize) -> Self {
        Self { class_steps, class_copies: 1, ..Self::character() }
    }

    fn of_perl(class: &ast::ClassPerl) -> usize {
        if class.kind == ast::ClassPerlKind::Word { CLASS_STEPS } else { SMALL_CLASS_STEPS }
    }

    /// Returns the steps for general categories such as `L` and `Lu`. Any other name may stand for nearly all of
    /// Unicode.
    fn of_unicode(class: &ast::ClassUnicode) -> usize {
        match &class.kind {
            ast::ClassUnicodeKind::OneLetter(_) => CLASS_STEPS,
            ast::ClassUnicodeKind::Named(name) if name.len() <= 2 => CLASS_STEPS,
            _ => REFUSED_STEPS,
        }
    }

    pub(super) fn of(ast: &Ast) -> Self {
        match ast {
            Ast::Empty(_) | Ast::Assertion(_) => Self::NOTHING,
            // Flags may change the meaning of the rest of the expression.
            Ast::Flags(_) => Self { len_max: None, ..Self::NOTHING },
            Ast::Literal(_) => Self::character(),
            Ast::ClassUnicode(class) => Self::named(Self::of_unicode(class)),
            Ast::ClassPerl(class) => Self::named(Self::of_perl(class)),
            // Most of Unicode, except line ends or a negated class, in few ranges.
            Ast::Dot(_) => Self { positions: 8, ..Self::character() },
            Ast::ClassBracketed(class) => Self::class(class),
            Ast::Repetition(repetition) => Self::of(&repetition.ast).repeated(repetition),
            Ast::Group(group) => {
                let flags =
                    matches!(&group.kind, ast::GroupKind::NonCapturing(flags) if !flags.items.is_empty());
                let mut inside = Self::of(&group.ast);
                inside.positions = inside.positions.saturating_add(1);
                if flags { Self { len_max: None, len_before_tail: None, ..inside } } else { inside }
            }
            Ast::Alternation(parts) => {
                let parts = parts.asts.iter().map(Self::of);
                let either = |a: Self, b: Self| Self {
                    len_max: a.len_max.zip(b.len_max).map(|(a, b)| a.max(b)),
                    ..a.beside(b)
                };
                Self { len_before_tail: None, ..parts.fold(Self::NOTHING, either) }
            }
            Ast::Concat(parts) => parts.asts.iter().map(Self::of).fold(Self::NOTHING, Self::then),
        }
    }

    /// Returns the weight of a bracket class: that of its items.
    fn class(class: &ast::ClassBracketed) -> Self {
        let mut own = Self { positions: 8, ..Self::character() };
        let ast::ClassSet::Item(item) = &class.kind else { return Self::named(REFUSED_STEPS) };
        let mut items = vec![item];
        while let Some(item) = items.pop() {
            let steps = match item {
                ast::ClassSetItem::Union(union) => {
                    items.extend(&union.items);
                    continue;
                }
                // Everything outside the inner class may have to be searched for the other case.
                ast::ClassSetItem::Bracketed(_) => REFUSED_STEPS,
                ast::ClassSetItem::Unicode(class) => Self::of_unicode(class),
                ast::ClassSetItem::Perl(class) => Self::of_perl(class),
                ast::ClassSetItem::Range(range) => {
                    let characters = u32::from(range.end.c).saturating_sub(u32::from(range.start.c));
                    own.positions += 1;
                    RANGE_CHARACTER_STEPS.saturating_mul(characters as usize)
                }
                _ => {
                    own.positions += 1;
                    continue;
                }
            };
            own.class_steps = own.class_steps.saturating_add(steps);
            own.class_copies += usize::from(steps >= SMALL_CLASS_STEPS);
        }
        own
    }

    /// Adds the sizes of both.
    fn beside(self, other: Self) -> Self {
        Self {
            positions: self.positions.saturating_add(other.positions),
            class_steps: self.class_steps.saturating_add(other.class_steps),
            class_copies: self.class_copies.saturating_add(other.class_copies),
            ..self
        }
    }

    /// Returns the weight of this followed by the other.
    fn then(self, other: Self) -> Self {
        let sum = |a: Option<usize>, b: Option<usize>| Some(a?.saturating_add(b?));
        Self {
            len_max: sum(self.len_max, other.len_max),
            // Only the last part can be a tail.
            len_before_tail: sum(self.len_max, other.len_before_tail),
            ..self.beside(other)
        }
    }

    fn repeated(self, repetition: &ast::Repetition) -> Self {
        use ast::RepetitionKind::{OneOrMore, Range, ZeroOrMore, ZeroOrOne};
        use ast::RepetitionRange::{AtLeast, Bounded, Exactly};
        let (min, max) = match &repetition.op.kind {
            ZeroOrOne => (0, Some(1)),
            ZeroOrMore => (0, None),
            OneOrMore => (1, None),
            Range(Exactly(count)) => (*count, Some(*count)),
            Range(AtLeast(min)) => (*min, None),
            Range(Bounded(min, max)) => (*min, Some(*max)),
        };
        let copies = max.unwrap_or(min.saturating_add(1)).max(1) as usize;
        let is_character = !matches!(
            *repetition.ast,
            Ast::Group(_) | Ast::Repetition(_) | Ast::Assertion(_) | Ast::Empty(_)
        );
        let before_tail = self.len_max.map(|len| len.saturating_mul(min as usize));
        Self {
            positions: self.positions.saturating_mul(copies).saturating_add(1),
            class_steps: self.class_steps,
            class_copies: self.class_copies.saturating_mul(copies),
            len_max: self.len_max.zip(max).map(|(len, max)| len.saturating_mul(max as usize)),
            len_before_tail: before_tail.filter(|_| max.is_none() && is_character && repetition.greedy),
        }
    }

    pub(super) fn lookahead(&self) -> Option<usize> {
        self.len_max.or(self.len_before_tail.map(|len| len.saturating_add(CHARACTER_LEN_MAX)))
    }

    /// Returns the steps to build the expression. Building stops when the compiled form becomes too large.
    pub(super) fn build_steps(&self) -> usize {
        let positions = self.positions.min(POSITIONS_MAX).saturating_mul(CHARACTER_STEPS);
        let copies = self.class_copies.min(CLASS_COPIES_MAX).saturating_mul(CLASS_COPY_STEPS);
        BUILD_STEPS.saturating_add(positions).saturating_add(self.class_steps).saturating_add(copies)
    }
}

#[cfg(test)]
mod tests {
    use super::Weight;
    use regex_syntax::ast::parse::Parser;

    fn weight(source: &str) -> Weight {
        Weight::of(&Parser::new().parse(source).unwrap())
    }

    #[test]
    fn lookahead_of_searches() {
        let rows: [(&str, Option<usize>); 10] = [
            ("ab", Some(8)),
            ("a|bcd", Some(12)),
            (r"\d{3}", Some(12)),
            (r"\d+", Some(8)),
            (r"x\d*", Some(8)),
            (".*[^A-Z]|[A-Z]", None),
            (r"\d+x", None),
            ("(ab)+", None),
            ("a*?", None),
            ("(?s)a+", None),
        ];
        for (source, expected) in rows {
            assert_eq!(weight(source).lookahead(), expected, "{source}");
        }
    }

    #[test]
    fn copies_add_to_the_weight() {
        assert!(weight("(a{50}){50}").positions >= 2_500);
        assert!(weight(r"(\w{50}){50}").class_copies >= 2_500);
        assert!(weight("((((a{100}){100}){100}){100}){100}").positions > 1 << 30);
        let heavy = weight(&r"\pL".repeat(80)).build_steps();
        assert!(heavy > 2_000_000, "{heavy}: more than an event may cost");
    }
}
