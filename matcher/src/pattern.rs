//! Sigma's wildcard patterns, in UTF-16 code units.

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// This code unit.
    Unit(u16),
    /// `?`: one character; a surrogate pair is one character.
    One,
    /// `*`: any number of characters, including line ends.
    Any,
}

/// A pattern for a whole value. It never contains two adjacent `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Parses a Sigma string: `*` and `?` are wildcards. A backslash escapes `*`, `?` and a backslash; any other
    /// backslash is literal.
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

    /// Creates a pattern without wildcards.
    pub fn literal(text: &str) -> Self {
        Self { parts: text.encode_utf16().map(Part::Unit).collect() }
    }

    /// Creates a pattern of parts, which must not contain two adjacent `*`.
    pub(crate) fn of_parts(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// Returns the code units; `None` if there is a wildcard.
    pub(crate) fn units(&self) -> Option<Vec<u16>> {
        let unit = |part: &Part| match part {
            Part::Unit(unit) => Some(*unit),
            Part::One | Part::Any => None,
        };
        self.parts.iter().map(unit).collect()
    }

    /// Prepends `*`.
    #[must_use]
    pub fn any_before(mut self) -> Self {
        if self.parts.first() != Some(&Part::Any) {
            self.parts.insert(0, Part::Any);
        }
        self
    }

    /// Appends `*`.
    #[must_use]
    pub fn any_after(mut self) -> Self {
        self.push(Part::Any);
        self
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns true if the pattern has a wildcard.
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

/// Folds ASCII letters to lower case and returns every other unit unchanged.
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
    fn adjacent_stars_are_merged() {
        assert_eq!(Pattern::parse("*a*").any_before().any_after(), Pattern::parse("*a*"));
        assert_eq!(Pattern::parse("a").any_before().any_after(), Pattern::parse("*a*"));
        assert_eq!(Pattern::default().any_before().any_after().parts().len(), 1);
    }
}
