//! Parses expressions as PCRE2 does.

use super::class::of_escape;
use super::{GROUP_NAME_LEN_MAX, Look, Node, Options, PcreError, REGEX_DEPTH_MAX, REGEX_REPEAT_MAX};
use etwsieve_budget::Budget;
use std::collections::HashSet;

/// Parses a whole expression.
pub(super) fn parse(source: &str, options: Options, budget: &mut Budget<'_>) -> Result<Node, PcreError> {
    let chars: Vec<char> = source.chars().collect();
    let mut parser =
        Parser { chars: &chars, at: 0, depth: 0, options, is_quoted: false, names: HashSet::new(), budget };
    let node = parser.alternation()?;
    match parser.peek() {
        Some(_) => Err(parser.fail("`)` without a `(` before it")),
        None => Ok(node),
    }
}

pub(super) struct Parser<'a, 'b> {
    pub(super) chars: &'a [char],
    pub(super) at: usize,
    depth: usize,
    pub(super) options: Options,
    /// True between `\Q` and `\E`.
    is_quoted: bool,
    names: HashSet<String>,
    budget: &'a mut Budget<'b>,
}

/// Creates an error at this position of the expression.
pub(super) fn fail_at(at: usize, reason: impl Into<String>) -> PcreError {
    PcreError { column: at + 1, reason: reason.into() }
}

/// An atom, or something between atoms.
enum Piece {
    /// A node that may be repeated.
    Atom(Node),
    /// A node that may not be repeated.
    Position(Node),
    /// An option or `\E`, which match nothing.
    Nothing,
}

impl Parser<'_, '_> {
    pub(super) fn fail(&self, reason: impl Into<String>) -> PcreError {
        fail_at(self.at, reason)
    }

    pub(super) fn charge(&mut self, steps: usize) -> Result<(), PcreError> {
        self.budget.charge(steps).map_err(|error| self.fail(error.to_string()))
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn peek_second(&self) -> Option<char> {
        self.chars.get(self.at + 1).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut own = self.chars[self.at..].iter().copied();
        text.chars().all(|c| own.next() == Some(c))
    }

    fn eat_text(&mut self, text: &str) -> bool {
        let found = self.starts_with(text);
        self.at += if found { text.chars().count() } else { 0 };
        found
    }

    /// Parses up to the `)` of the group, or to the end.
    fn alternation(&mut self) -> Result<Node, PcreError> {
        let mut branches = vec![self.branch()?];
        while !self.is_quoted && self.eat('|') {
            branches.push(self.branch()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Either(branches) })
    }

    fn branch(&mut self) -> Result<Node, PcreError> {
        let mut parts = Vec::new();
        loop {
            self.skip_ignored()?;
            match self.peek() {
                None => break,
                Some('|' | ')') if !self.is_quoted => break,
                Some(_) => {}
            }
            self.charge(16)?;
            let start = self.at;
            match self.piece()? {
                Piece::Atom(node) => parts.push(self.repeated(node)?),
                Piece::Position(node) => {
                    self.refuse_quantifier("a quantifier after an assertion, which cannot be repeated")?;
                    parts.push(node);
                }
                // `\E` is transparent: a quantifier after it applies to the atom before it.
                Piece::Nothing if self.chars[start] == '\\' => {}
                Piece::Nothing => {
                    self.refuse_quantifier("a quantifier after an option, which cannot be repeated")?;
                }
            }
        }
        Ok(match parts.len() {
            0 => Node::Empty,
            1 => parts.remove(0),
            _ => Node::Concat(parts),
        })
    }

    /// Skips comments and, in extended mode, white space.
    fn skip_ignored(&mut self) -> Result<(), PcreError> {
        while !self.is_quoted {
            let start = self.at;
            if self.eat_text("(?#") {
                while self.next().ok_or_else(|| fail_at(start, "`(?#` is not closed"))? != ')' {}
            } else if self.options.extended {
                match self.peek() {
                    Some('#') => while !matches!(self.next(), None | Some('\n')) {},
                    Some(
                        '\t'..='\r' | ' ' | '\u{85}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}',
                    ) => {
                        self.at += 1;
                    }
                    _ => return Ok(()),
                }
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn piece(&mut self) -> Result<Piece, PcreError> {
        let at = self.at;
        let Some(c) = self.next() else { return Ok(Piece::Nothing) };
        if self.is_quoted {
            if c == '\\' && self.eat('E') {
                self.is_quoted = false;
                return Ok(Piece::Nothing);
            }
            return Ok(Piece::Atom(Node::Set(self.literal(c)?)));
        }
        let look = |look| Ok(Piece::Position(Node::Look(look, at)));
        match c {
            '\\' => self.escape(at),
            '[' => Ok(Piece::Atom(Node::Set(self.class()?))),
            '(' => self.group(at),
            '.' => Ok(Piece::Atom(Node::Set(self.options.dot(false)))),
            '^' => look(if self.options.multiline { Look::LineStart } else { Look::Start }),
            '$' => look(if self.options.multiline { Look::LineEnd } else { Look::EndOrLineFeed }),
            '*' | '+' | '?' => Err(fail_at(at, format!("`{c}` has nothing to repeat"))),
            '{' if self.bounds(at)?.is_some() => Err(fail_at(at, "`{…}` has nothing to repeat")),
            _ => Ok(Piece::Atom(Node::Set(self.literal(c)?))),
        }
    }

    /// Applies the quantifier that follows a node, if there is one.
    fn repeated(&mut self, node: Node) -> Result<Node, PcreError> {
        self.skip_to_quantifier()?;
        let at = self.at;
        let Some((min, max)) = self.quantifier()? else { return Ok(node) };
        let mut greedy = !self.options.ungreedy;
        if self.eat('?') {
            greedy = !greedy;
        } else if self.peek() == Some('+') {
            let quantifier: String = self.chars[at..=self.at].iter().collect();
            let reason = format!(
                "the possessive quantifier `{quantifier}` is not supported; without its last `+` it matches more"
            );
            return Err(fail_at(at, reason));
        }
        self.refuse_quantifier("a quantifier after a quantifier, which cannot be repeated")?;
        Ok(Node::Repeat { node: Box::new(node), min, max, greedy })
    }

    /// Skips everything that is allowed between an atom and its quantifier.
    fn skip_to_quantifier(&mut self) -> Result<(), PcreError> {
        loop {
            let before = self.at;
            if self.is_quoted {
                // A quantifier may apply to the last quoted character.
                if !self.eat_text("\\E") {
                    return Ok(());
                }
                self.is_quoted = false;
            } else if !self.eat_text("\\E") {
                self.skip_ignored()?;
            }
            if self.at == before {
                return Ok(());
            }
        }
    }

    fn refuse_quantifier(&mut self, reason: &str) -> Result<(), PcreError> {
        self.skip_to_quantifier()?;
        let at = self.at;
        if self.quantifier()?.is_some() {
            return Err(fail_at(at, reason));
        }
        Ok(())
    }

    /// Reads a quantifier, without its greediness.
    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>, PcreError> {
        if self.is_quoted {
            return Ok(None);
        }
        let found = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                let at = self.at;
                let Some((bounds, end)) = self.bounds(at)? else { return Ok(None) };
                self.at = end;
                return Ok(Some(bounds));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(found))
    }

    /// Parses the bounds of `{n}`, `{n,}` or `{n,m}` whose brace is at `at`, and returns their end; `None` if the brace
    /// is literal.
    #[expect(clippy::type_complexity, reason = "minimum, maximum and end")]
    fn bounds(&self, at: usize) -> Result<Option<((u32, Option<u32>), usize)>, PcreError> {
        let rest = &self.chars[at + 1..];
        let len = rest.iter().position(|c| !matches!(c, '0'..='9' | ',' | ' ' | '\t')).unwrap_or(rest.len());
        let body = &rest[..len];
        if rest.get(len) != Some(&'}') || !body.iter().any(char::is_ascii_digit) {
            return Ok(None);
        }
        let text: String = body.iter().collect();
        let mut numbers = text.splitn(2, ',');
        let (low, high) = (numbers.next().unwrap_or_default(), numbers.next());
        if text.contains([' ', '\t']) || low.is_empty() {
            // PCRE2 takes this as literal text before version 10.43, and as a quantifier from then on.
            let reason = format!(
                "`{{{text}}}` means different things in versions of PCRE2; write `{{0,n}}` or `\\{{`"
            );
            return Err(fail_at(at, reason));
        }
        if high.is_some_and(|high| high.contains(',')) {
            return Ok(None);
        }
        let number = |digits: &str| {
            digits.parse().ok().filter(|number| *number <= REGEX_REPEAT_MAX).ok_or_else(|| {
                fail_at(at, format!("`{{{text}}}` repeats more than {REGEX_REPEAT_MAX} times"))
            })
        };
        let min = number(low)?;
        let max = match high {
            None => Some(min),
            Some("") => None,
            Some(high) => Some(number(high)?),
        };
        if max.is_some_and(|max| max < min) {
            return Err(fail_at(at, format!("the numbers of `{{{text}}}` are out of order")));
        }
        Ok(Some(((min, max), at + 1 + len + 1)))
    }

    /// Parses an escape outside brackets, after its backslash.
    fn escape(&mut self, at: usize) -> Result<Piece, PcreError> {
        let Some(c) = self.next() else {
            return Err(fail_at(at, "trailing backslash"));
        };
        if let Some(kind) = of_escape(c) {
            return Ok(Piece::Atom(Node::Set(kind)));
        }
        let look = |look| Ok(Piece::Position(Node::Look(look, at)));
        match c {
            'A' => look(Look::Start),
            'Z' => look(Look::EndOrLineFeed),
            'z' => look(Look::End),
            'b' => look(Look::Word),
            'B' => look(Look::NotWord),
            'N' if self.peek() != Some('{') => Ok(Piece::Atom(Node::Set(self.options.dot(true)))),
            'p' | 'P' => Ok(Piece::Atom(Node::Set(self.property(c == 'P', at)?))),
            'Q' => {
                self.is_quoted = true;
                Ok(Piece::Nothing)
            }
            'E' => Ok(Piece::Nothing),
            '1'..='9' | 'g' | 'k' => Err(fail_at(at, format!("the back-reference `\\{c}` is not supported"))),
            'G' | 'K' | 'R' | 'X' | 'C' => Err(fail_at(at, format!("`\\{c}` is not supported"))),
            _ => Ok(Piece::Atom({
                let c = self.escaped_char(c, at)?;
                Node::Set(self.literal(c)?)
            })),
        }
    }

    /// Returns the character that a backslash and `c` stand for, inside or outside brackets.
    pub(super) fn escaped_char(&mut self, c: char, at: usize) -> Result<char, PcreError> {
        Ok(match c {
            'a' => '\u{7}',
            'e' => '\u{1b}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    self.at += 1;
                }
                char::from(value as u8)
            }
            'c' => match self.next() {
                Some(control @ ' '..='~') => char::from(control.to_ascii_uppercase() as u8 ^ 0x40),
                _ => return Err(fail_at(at, "`\\c` must be followed by an ASCII character")),
            },
            'x' | 'o' => self.number(c, at)?,
            c if c.is_ascii_alphanumeric() => {
                return Err(fail_at(at, format!("unknown escape `\\{c}`; PCRE does not define it")));
            }
            c => c,
        })
    }

    /// Parses `\xhh`, `\x{…}` or `\o{…}`, after the letter.
    fn number(&mut self, letter: char, at: usize) -> Result<char, PcreError> {
        let radix = if letter == 'x' { 16 } else { 8 };
        let mut digits = String::new();
        if self.eat('{') {
            while let Some(c) = self.peek().filter(|c| c.is_digit(radix)) {
                digits.push(c);
                self.at += 1;
            }
            if !self.eat('}') {
                return Err(fail_at(
                    at,
                    format!("`\\{letter}{{` is not closed, or contains other characters than digits"),
                ));
            }
        } else if letter == 'x' {
            while let Some(c) = self.peek().filter(|c| c.is_ascii_hexdigit() && digits.len() < 2) {
                digits.push(c);
                self.at += 1;
            }
            if digits.len() < 2 {
                return Err(fail_at(at, "`\\x` needs two hexadecimal digits or `{…}`"));
            }
        }
        let value = u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32);
        value.ok_or_else(|| fail_at(at, format!("`\\{letter}` is not the number of a character")))
    }

    /// Parses a group, an option or another construct that begins with `(`, after it.
    fn group(&mut self, at: usize) -> Result<Piece, PcreError> {
        if self.peek() == Some('*') {
            return Err(fail_at(at, "verbs and named assertions, `(*`, are not supported"));
        }
        let before = self.options;
        if self.eat('?') {
            let unsupported = [
                ("<=", "look-behind"),
                ("<!", "look-behind"),
                ("=", "look-ahead"),
                ("!", "look-ahead"),
                ("*", "look-ahead"),
                (">", "an atomic group"),
                ("|", "a group with a branch reset"),
                ("(", "a conditional group"),
                ("R", "recursion"),
                ("&", "recursion"),
                ("P>", "recursion"),
                ("P=", "a back-reference"),
                ("+", "recursion"),
                ("C", "a callout"),
            ];
            let found = unsupported.iter().find(|(text, _)| self.starts_with(text));
            if let Some((text, name)) = found {
                return Err(fail_at(at, format!("{name}, `(?{text}`, is not supported")));
            }
            if self.eat_text("P<") || self.eat('<') {
                self.name('>', at)?;
            } else if self.eat('\'') {
                self.name('\'', at)?;
            } else if !self.flags(at)? {
                return Ok(Piece::Nothing);
            }
        }
        self.depth += 1;
        if self.depth > REGEX_DEPTH_MAX {
            return Err(fail_at(at, format!("groups are nested deeper than {REGEX_DEPTH_MAX}")));
        }
        let node = self.alternation()?;
        if !self.eat(')') {
            return Err(fail_at(at, "`(` is not closed"));
        }
        self.depth -= 1;
        self.options = before;
        Ok(Piece::Atom(node))
    }

    fn name(&mut self, end: char, at: usize) -> Result<(), PcreError> {
        let mut name = String::new();
        loop {
            match self.next() {
                Some(c) if c == end => break,
                Some(c) if (c.is_ascii_alphanumeric() || c == '_') && name.len() < GROUP_NAME_LEN_MAX => {
                    name.push(c);
                }
                _ => return Err(fail_at(at, "the name of a group is not valid")),
            }
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(fail_at(at, "the name of a group is not valid"));
        }
        if !self.names.insert(name) {
            return Err(fail_at(at, "two groups have the same name"));
        }
        Ok(())
    }

    /// Parses options after `(?`. Returns true if a group follows, to whose end they apply.
    fn flags(&mut self, at: usize) -> Result<bool, PcreError> {
        let mut on = true;
        let mut may_clear = true;
        if self.eat('^') {
            let ungreedy = self.options.ungreedy;
            self.options = Options { ungreedy, ..Options::default() };
            may_clear = false;
        }
        loop {
            let Some(c) = self.next() else {
                return Err(fail_at(at, "`(?` is not closed"));
            };
            match c {
                ')' => return Ok(false),
                ':' => return Ok(true),
                '-' if may_clear => {
                    on = false;
                    may_clear = false;
                }
                'i' => self.options.caseless = on,
                'm' => self.options.multiline = on,
                's' => self.options.dotall = on,
                'U' => self.options.ungreedy = on,
                'x' if self.peek() != Some('x') => self.options.extended = on,
                // Capturing does not affect whether there is a match.
                'n' | 'J' => {}
                _ => return Err(fail_at(at, format!("`(?{c}` is not supported"))),
            }
        }
    }
}
