//! Sigma's wildcard patterns, in UTF-16 code units as the events have them.

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// This code unit.
    Unit(u16),
    /// `?`: one character (a surrogate pair is one).
    One,
    /// `*`: any number of characters, line ends included.
    Any,
}

/// A pattern for a whole value. Two `*` never follow one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Parses a Sigma string: `*` and `?` are wildcards; a backslash before `*`, `?` or a backslash takes its
    /// meaning away, any other backslash is itself.
    ///
    /// Source: Sigma specification 2.1, "Escaping".
    pub fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => {
                    let escaped = chars.next_if(|next| matches!(next, '*' | '?' | '\\'));
                    pattern.push_char(escaped.unwrap_or('\\'));
                }
                '*' => pattern.push(Part::Any),
                '?' => pattern.push(Part::One),
                _ => pattern.push_char(c),
            }
        }
        pattern
    }

    /// Takes text without wildcards.
    pub fn literal(text: &str) -> Self {
        Self { parts: text.encode_utf16().map(Part::Unit).collect() }
    }

    /// Takes parts, of which no two `*` follow one another.
    pub(crate) fn of_parts(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// The code units; `None` if there is a wildcard.
    pub(crate) fn units(&self) -> Option<Vec<u16>> {
        let unit = |part: &Part| match part {
            Part::Unit(unit) => Some(*unit),
            Part::One | Part::Any => None,
        };
        self.parts.iter().map(unit).collect()
    }

    /// `*` before it.
    #[must_use]
    pub fn any_before(mut self) -> Self {
        if self.parts.first() != Some(&Part::Any) {
            self.parts.insert(0, Part::Any);
        }
        self
    }

    /// `*` behind it.
    #[must_use]
    pub fn any_after(mut self) -> Self {
        self.push(Part::Any);
        self
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it has a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Unit(_)))
    }

    fn push(&mut self, part: Part) {
        if part != Part::Any || self.parts.last() != Some(&Part::Any) {
            self.parts.push(part);
        }
    }

    fn push_char(&mut self, c: char) {
        self.parts.extend(c.encode_utf16(&mut [0; 2]).iter().map(|&unit| Part::Unit(unit)));
    }
}

/// Folds an ASCII capital letter to its small one, and leaves every other unit alone.
pub fn fold(unit: u16) -> u16 {
    if (u16::from(b'A')..=u16::from(b'Z')).contains(&unit) { unit | 0x20 } else { unit }
}

#[cfg(test)]
mod tests {
    use super::{Part, Pattern};

    #[test]
    fn escapes_as_the_specification_says() {
        let rows: [(&str, &str); 9] = [
            ("abc", "abc"),
            (r"a\b", r"a\b"),
            (r"a\\b", r"a\b"),
            (r"a\*b", "a*b"),
            (r"a\?", "a?"),
            (r"\\*", "\\\u{1}"),
            (r"a**?", "a\u{1}\u{2}"),
            (r"C:\Windows\*", r"C:\Windows*"),
            ("\\", "\\"),
        ];
        for (text, expected) in rows {
            let shown: String = Pattern::parse(text)
                .parts()
                .iter()
                .map(|part| match part {
                    Part::Unit(unit) => char::from_u32(u32::from(*unit)).unwrap(),
                    Part::Any => '\u{1}',
                    Part::One => '\u{2}',
                })
                .collect();
            assert_eq!(shown, expected, "{text:?}");
        }
    }

    #[test]
    fn stars_do_not_double() {
        assert_eq!(Pattern::parse("*a*").any_before().any_after(), Pattern::parse("*a*"));
        assert_eq!(Pattern::parse("a").any_before().any_after(), Pattern::parse("*a*"));
        assert_eq!(Pattern::default().any_before().any_after().parts().len(), 1);
    }
}
