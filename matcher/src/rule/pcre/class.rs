//! Character sets: escapes such as `\d`, bracket classes, Unicode properties, and case folding.

use super::parse::{Parser, fail_at};
use super::{Options, PcreError};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// General categories of Unicode that `\p{…}` may name. `\p{L&}` is translated to its long name `LC`.
const CATEGORIES: [&str; 37] = [
    "C", "Cc", "Cf", "Cn", "Co", "L", "LC", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd",
    "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp",
    "Zs",
];
/// Maximum length of the name of a Unicode property.
const PROPERTY_LEN_MAX: usize = 32;
/// Steps charged for a property.
const LARGE_SET_STEPS: usize = 4096;

pub(super) fn set(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|&(start, end)| ClassUnicodeRange::new(start, end)))
}

/// Returns the set of an escape for a kind of character, inside or outside brackets. Upper-case letters negate it.
pub(super) fn of_escape(letter: char) -> Option<ClassUnicode> {
    let mut found = match letter.to_ascii_lowercase() {
        'd' => set(&[('0', '9')]),
        'w' => set(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        's' => set(&[('\t', '\r'), (' ', ' ')]),
        'h' => set(&[
            ('\t', '\t'),
            (' ', ' '),
            ('\u{a0}', '\u{a0}'),
            ('\u{1680}', '\u{1680}'),
            ('\u{180e}', '\u{180e}'),
            ('\u{2000}', '\u{200a}'),
            ('\u{202f}', '\u{202f}'),
            ('\u{205f}', '\u{205f}'),
            ('\u{3000}', '\u{3000}'),
        ]),
        'v' => set(&[('\n', '\r'), ('\u{85}', '\u{85}'), ('\u{2028}', '\u{2029}')]),
        _ => return None,
    };
    if letter.is_ascii_uppercase() {
        found.negate();
    }
    Some(found)
}

/// Returns true if the set contains a word character in the sense of `\b`.
pub(super) fn is_word(set: &ClassUnicode) -> bool {
    let words = of_escape('w').unwrap_or_else(ClassUnicode::empty);
    let mut both = set.clone();
    both.intersect(&words);
    !both.ranges().is_empty()
}

/// Returns a POSIX class by name. In caseless mode, `upper` and `lower` mean `alpha`.
fn of_posix(name: &str, caseless: bool) -> Option<ClassUnicode> {
    Some(match name {
        "alpha" => set(&[('A', 'Z'), ('a', 'z')]),
        "upper" | "lower" if caseless => set(&[('A', 'Z'), ('a', 'z')]),
        "upper" => set(&[('A', 'Z')]),
        "lower" => set(&[('a', 'z')]),
        "alnum" => set(&[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        "ascii" => set(&[('\0', '\x7f')]),
        "blank" => set(&[('\t', '\t'), (' ', ' ')]),
        "cntrl" => set(&[('\0', '\x1f'), ('\x7f', '\x7f')]),
        "digit" => set(&[('0', '9')]),
        "graph" => set(&[('!', '~')]),
        "print" => set(&[(' ', '~')]),
        "punct" => set(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
        "space" => set(&[('\t', '\r'), (' ', ' ')]),
        "word" => set(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        "xdigit" => set(&[('0', '9'), ('A', 'F'), ('a', 'f')]),
        _ => return None,
    })
}

/// An item of a bracket class.
enum Item {
    Char(char),
    /// An item that cannot end a range: an escape for a kind of character, a property or a POSIX class.
    Kind(ClassUnicode),
}

impl Parser<'_, '_> {
    /// Adds the characters that are equal to those of `found` in the current mode.
    pub(super) fn fold(&mut self, mut found: ClassUnicode) -> Result<ClassUnicode, PcreError> {
        if !self.options.caseless {
            return Ok(found);
        }
        // Folding visits every character of every range.
        let chars: usize = found.iter().map(ClassUnicodeRange::len).sum();
        self.charge(64 * found.ranges().len() + chars)?;
        found.try_case_fold_simple().map_err(|_| self.fail("case folding is not available"))?;
        Ok(found)
    }

    /// Returns the set of one literal character.
    pub(super) fn literal(&mut self, c: char) -> Result<ClassUnicode, PcreError> {
        self.fold(set(&[(c, c)]))
    }

    /// Parses a class, after its `[`.
    pub(super) fn class(&mut self) -> Result<ClassUnicode, PcreError> {
        let start = self.at - 1;
        if matches!(self.peek(), Some(':' | '.' | '=')) && self.posix_name(start).is_some() {
            return Err(fail_at(start, "a POSIX class outside brackets; write `[[:alpha:]]`"));
        }
        let is_negated = self.eat('^');
        // Characters are folded, kinds are not. Both are united once, because a union takes time in proportion to its
        // operands.
        let mut chars = Vec::new();
        let mut kinds = Vec::new();
        // A `]` in first position is literal.
        let mut is_first = true;
        loop {
            let at = self.at;
            let Some(c) = self.next() else {
                return Err(fail_at(start, "`[` is not closed"));
            };
            self.charge(8)?;
            if c == ']' && !is_first {
                break;
            }
            is_first = false;
            match self.item(c, at)? {
                Item::Kind(kind) => {
                    self.charge(kind.ranges().len())?;
                    kinds.extend_from_slice(kind.ranges());
                    if self.peek() == Some('-') && self.peek_second() != Some(']') {
                        return Err(self.fail("`-` after a kind of character must be the last in a class"));
                    }
                }
                Item::Char(low) => chars.push(ClassUnicodeRange::new(low, self.end_of_range(low)?)),
            }
        }
        let mut found = self.fold(ClassUnicode::new(chars))?;
        found.union(&ClassUnicode::new(kinds));
        if is_negated {
            found.negate();
        }
        Ok(found)
    }

    /// Returns the upper end of a range that begins with `low`, which has been read; `low` itself if there is no range.
    fn end_of_range(&mut self, low: char) -> Result<char, PcreError> {
        if self.peek() != Some('-') || matches!(self.peek_second(), None | Some(']')) {
            return Ok(low);
        }
        let at = self.at;
        self.at += 1;
        let Some(c) = self.next() else {
            return Err(fail_at(at, "`[` is not closed"));
        };
        match self.item(c, self.at - 1)? {
            Item::Char(high) if low <= high => Ok(high),
            Item::Char(high) => Err(fail_at(at, format!("the range `{low}-{high}` is out of order"))),
            Item::Kind(_) => Err(fail_at(at, "a range cannot end with a kind of character")),
        }
    }

    /// Parses an item of a class that begins with `c`, which was read at `at`.
    fn item(&mut self, c: char, at: usize) -> Result<Item, PcreError> {
        match c {
            '[' => self.posix(at),
            '\\' => self.class_escape(at),
            _ => Ok(Item::Char(c)),
        }
    }

    /// Parses `[:name:]` after its `[`, which may also be literal.
    fn posix(&mut self, at: usize) -> Result<Item, PcreError> {
        let Some((kind, name, end)) = self.posix_name(at) else { return Ok(Item::Char('[')) };
        if kind != ':' {
            return Err(fail_at(at, "collating elements (`[.` and `[=`) are not supported"));
        }
        let (is_negated, plain) = match name.strip_prefix('^') {
            Some(plain) => (true, plain),
            None => (false, name.as_str()),
        };
        let Some(mut found) = of_posix(plain, self.options.caseless) else {
            return Err(fail_at(at, format!("unknown POSIX class `[:{name}:]`")));
        };
        self.at = end;
        if is_negated {
            found.negate();
        }
        Ok(Item::Kind(found))
    }

    /// Returns the punctuation, the name and the end of a POSIX class whose `[` is at `at`, if there is one.
    fn posix_name(&self, at: usize) -> Option<(char, String, usize)> {
        let kind = *self.chars.get(at + 1).filter(|c| matches!(c, ':' | '.' | '='))?;
        let mut end = at + 2;
        loop {
            match (*self.chars.get(end)?, *self.chars.get(end + 1)?) {
                ('\\', ']' | '\\') => end += 1,
                (']', _) => return None,
                ('[', next) if next == kind => return None,
                (own, ']') if own == kind => break,
                _ => {}
            }
            end += 1;
        }
        Some((kind, self.chars[at + 2..end].iter().collect(), end + 2))
    }

    /// Parses an escape in a class, after its backslash.
    fn class_escape(&mut self, at: usize) -> Result<Item, PcreError> {
        let Some(c) = self.next() else {
            return Err(fail_at(at, "trailing backslash"));
        };
        if let Some(kind) = of_escape(c) {
            return Ok(Item::Kind(kind));
        }
        match c {
            'Q' | 'E' => Err(fail_at(at, "`\\Q` and `\\E` are not supported in a class")),
            'b' => Ok(Item::Char('\u{8}')),
            'p' | 'P' => Ok(Item::Kind(self.property(c == 'P', at)?)),
            '1'..='9' => Err(fail_at(at, format!("`\\{c}` in a class is not supported; write `\\x{{…}}`"))),
            'B' | 'R' | 'X' | 'N' => Err(fail_at(at, format!("`\\{c}` has no meaning in a class"))),
            _ => Ok(Item::Char(self.escaped_char(c, at)?)),
        }
    }

    /// Parses `\p{…}`, `\P{…}` or `\pL`, after the letter.
    pub(super) fn property(&mut self, is_negated: bool, at: usize) -> Result<ClassUnicode, PcreError> {
        let mut name = String::new();
        if self.eat('{') {
            loop {
                match self.next() {
                    Some('}') => break,
                    Some(c) if name.len() < PROPERTY_LEN_MAX => name.push(c),
                    _ => return Err(fail_at(at, "`\\p{` is not closed")),
                }
            }
        } else {
            name.extend(self.next());
        }
        let (is_inverse, plain) = match name.strip_prefix('^') {
            Some(plain) => (true, plain),
            None => (false, name.as_str()),
        };
        let category = if plain == "L&" { "LC" } else { plain };
        if category != "Any" && !CATEGORIES.contains(&category) {
            let reason =
                format!("`\\p{{{name}}}` is not supported; only general categories such as `\\p{{Lu}}` are");
            return Err(fail_at(at, reason));
        }
        // Versions of PCRE2 differ on whether caseless mode affects these.
        if self.options.caseless && matches!(category, "LC" | "Lu" | "Ll" | "Lt") {
            return Err(fail_at(at, format!("`\\p{{{name}}}` is not supported in caseless mode")));
        }
        self.charge(LARGE_SET_STEPS)?;
        let found = if category == "Any" { r"(?s:.)".to_owned() } else { format!(r"\p{{gc={category}}}") };
        let hir = regex_syntax::parse(&found).map_err(|_| fail_at(at, "an unknown category"))?;
        let HirKind::Class(Class::Unicode(mut found)) = hir.into_kind() else {
            return Err(fail_at(at, "an unknown category"));
        };
        if is_negated != is_inverse {
            found.negate();
        }
        Ok(found)
    }
}

impl Options {
    /// Returns the set of `.`, or of `\N` if `is_line`.
    pub(super) fn dot(self, is_line: bool) -> ClassUnicode {
        let mut found = if self.dotall && !is_line { ClassUnicode::empty() } else { set(&[('\n', '\n')]) };
        found.negate();
        found
    }
}
