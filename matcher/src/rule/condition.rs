//! The condition: names of selections with `and`, `or`, `not`, parentheses, and `1 of` / `all of` groups.
//!
//! Precedence, from tight to loose: `not`, `and`, `or` (Sigma specification 2.1, "Condition").

use crate::error::Problem;
use crate::rule::Expr;

/// Longest condition, in bytes.
pub(crate) const CONDITION_LEN_MAX: usize = 8 * 1024;
/// Deepest nesting of parentheses and `not`.
pub(crate) const CONDITION_DEPTH_MAX: usize = 64;
/// Largest expression of a rule, in tests, after groups are written out.
pub(crate) const EXPR_TESTS_MAX: usize = 50_000;

/// Parses `text` over the named selections.
pub(crate) fn parse(text: &str, selections: &[(String, Expr)]) -> Result<Expr, Problem> {
    if text.len() > CONDITION_LEN_MAX {
        return Err(Problem::TooLarge { what: "length of the condition", max: CONDITION_LEN_MAX });
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, tests: 0, selections };
    let expr = parser.or()?;
    match parser.peek() {
        Some(token) => Err(fail(token.column, format!("unexpected `{}`", token.text))),
        None => Ok(expr),
    }
}

struct Token<'a> {
    text: &'a str,
    column: usize,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    tests: usize,
    selections: &'a [(String, Expr)],
}

fn fail(column: usize, reason: impl Into<String>) -> Problem {
    Problem::Condition { column, reason: reason.into() }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '.')
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, Problem> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            c if c.is_whitespace() => c.len_utf8(),
            '(' | ')' => 1,
            c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            '|' => return Err(fail(column, "aggregations (`|`) are not supported")),
            c => return Err(fail(column, format!("unexpected `{c}`"))),
        };
        let (token, behind) = rest.split_at(len);
        if !first.is_whitespace() {
            tokens.push(Token { text: token, column });
        }
        column += token.chars().count();
        rest = behind;
    }
    Ok(tokens)
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Expr, Problem> {
        let mut parts = vec![self.and()?];
        while self.eat("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Result<Expr, Problem> {
        let mut parts = vec![self.not()?];
        while self.eat("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Result<Expr, Problem> {
        self.depth += 1;
        if self.depth > CONDITION_DEPTH_MAX {
            return Err(Problem::TooLarge { what: "depth of the condition", max: CONDITION_DEPTH_MAX });
        }
        let expr = if self.eat("not") { Expr::Not(Box::new(self.not()?)) } else { self.primary()? };
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let end = self.tokens.last().map_or(1, |token| token.column + token.text.chars().count());
        let Some(&Token { text, column }) = self.peek() else {
            return Err(fail(end, "a selection is expected here"));
        };
        self.at += 1;
        if text == "(" {
            let expr = self.or()?;
            if !self.eat(")") {
                return Err(fail(self.peek().map_or(end, |token| token.column), "`)` is expected here"));
            }
            return Ok(expr);
        }
        let quantifier = text.to_ascii_lowercase();
        if self.peek().is_some_and(|token| token.text.eq_ignore_ascii_case("of")) {
            self.at += 1;
            return self.group(&quantifier, column);
        }
        if matches!(quantifier.as_str(), ")" | "and" | "or" | "of" | "not") {
            return Err(fail(column, format!("a selection is expected here, found `{text}`")));
        }
        let found = self.selections.iter().find(|(name, _)| name == text);
        let (_, expr) = found.ok_or_else(|| fail(column, format!("no selection is named `{text}`")))?;
        self.take(expr)
    }

    fn group(&mut self, quantifier: &str, column: usize) -> Result<Expr, Problem> {
        if !matches!(quantifier, "1" | "any" | "all") {
            return Err(fail(column, format!("`{quantifier} of` is not supported; 1, any and all are")));
        }
        let Some(&Token { text, column }) = self.peek() else {
            return Err(fail(column, "`them` or a name with `*` is expected behind `of`"));
        };
        self.at += 1;
        let selections = self.selections;
        // `them` leaves out the selections that start with an underscore.
        let members = selections.iter().filter(|(name, _)| match text {
            "them" => !name.starts_with('_'),
            _ => glob(text, name),
        });
        let parts = members.map(|(_, expr)| self.take(expr)).collect::<Result<Vec<_>, _>>()?;
        match (parts.is_empty(), quantifier) {
            (true, _) => Err(fail(column, format!("no selection is named like `{text}`"))),
            (false, "all") => Ok(Expr::And(parts)),
            (false, _) => Ok(Expr::Or(parts)),
        }
    }

    fn take(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        self.tests += expr.count_tests();
        if self.tests > EXPR_TESTS_MAX {
            return Err(Problem::TooLarge { what: "number of tests in a rule", max: EXPR_TESTS_MAX });
        }
        Ok(expr.clone())
    }
}

impl Expr {
    /// Number of tests in the expression.
    pub fn count_tests(&self) -> usize {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::count_tests).sum(),
            Self::Not(part) => part.count_tests(),
            Self::Test(_) => 1,
        }
    }
}

/// Whether `name` is like `pattern`, in which `*` stands for anything.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = tail.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{glob, parse};
    use crate::field::Field;
    use crate::rule::{Expr, Op, Test};

    fn shown(expr: &Expr) -> String {
        let list =
            |parts: &[Expr], op: &str| format!("({})", parts.iter().map(shown).collect::<Vec<_>>().join(op));
        match expr {
            Expr::And(parts) => list(parts, "&"),
            Expr::Or(parts) => list(parts, "|"),
            Expr::Not(part) => format!("!{}", shown(part)),
            Expr::Test(Test { op: Op::Regex(name), .. }) => name.clone(),
            Expr::Test(_) => unreachable!("tests here are regexes"),
        }
    }

    fn check(condition: &str) -> Result<String, String> {
        let selections: Vec<_> = ["a", "b", "c", "sel_1", "sel_2", "_hidden"]
            .iter()
            .map(|name| {
                let test = Test { field: Some(Field::Path), op: Op::Regex((*name).to_owned()) };
                ((*name).to_owned(), Expr::Test(test))
            })
            .collect();
        parse(condition, &selections).map(|expr| shown(&expr)).map_err(|problem| problem.to_string())
    }

    #[test]
    fn precedence_and_groups() {
        let rows = [
            ("a", "a"),
            ("a or b and not c", "(a|(b&!c))"),
            ("(a or b) and not c", "((a|b)&!c)"),
            ("not not a", "!!a"),
            ("1 of sel_*", "(sel_1|sel_2)"),
            ("ALL OF sel*", "(sel_1&sel_2)"),
            ("all of them", "(a&b&c&sel_1&sel_2)"),
            ("a and not 1 of sel_*", "(a&!(sel_1|sel_2))"),
            ("1 of _hidden", "(_hidden)"),
        ];
        for (condition, expected) in rows {
            assert_eq!(check(condition).as_deref(), Ok(expected), "{condition}");
        }
    }

    #[test]
    fn errors_name_column_and_reason() {
        let rows = [
            ("", "column 1"),
            ("a and", "column 6"),
            ("a b", "column 3: unexpected `b`"),
            ("(a", "column 3: `)`"),
            ("a)", "column 2"),
            ("x", "no selection is named `x`"),
            ("1 of x*", "column 6: no selection is named like `x*`"),
            ("2 of sel*", "`2 of` is not supported"),
            ("a | count() > 3", "column 3: aggregations"),
            ("a & b", "column 3"),
            ("not and", "column 5"),
        ];
        for (condition, word) in rows {
            let error = check(condition).unwrap_err();
            assert!(error.contains(word), "{condition}: {error}");
        }
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert!(check(&deep).unwrap_err().contains("depth"));
    }

    #[test]
    fn name_globs() {
        let rows = [
            ("sel*", "sel_1", true),
            ("*_1", "sel_1", true),
            ("s*l*1", "sel_1", true),
            ("sel", "sel_1", false),
            ("a*a", "a", false),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
