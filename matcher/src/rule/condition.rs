//! Conditions: names of selections with `and`, `or`, `not`, parentheses, and `1 of` / `all of` groups.
//!
//! Operators in order of decreasing precedence: `not`, `and`, `or` (Sigma specification 2.1, "Condition").

use crate::error::{Located, Position, Problem};
use crate::rule::report::Report;
use crate::rule::value::TEST_LEN;
use crate::rule::{Expr, Op};

/// Maximum length of a condition, in bytes.
pub(crate) const CONDITION_LEN_MAX: usize = 8 * 1024;
/// Maximum depth of parentheses and `not`.
pub(crate) const CONDITION_DEPTH_MAX: usize = 64;
/// Maximum number of tests in the expression of a rule, with groups expanded.
pub(crate) const EXPR_TESTS_MAX: usize = 50_000;

/// A named part of `detection`.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) name: String,
    pub(crate) at: Position,
    /// `None` if it is invalid; the error has been reported.
    expr: Option<Expr>,
    tests: usize,
    len: usize,
    /// True if a condition refers to it.
    pub(crate) is_used: bool,
}

impl Selection {
    pub(crate) fn new(name: String, at: Position, expr: Option<Expr>) -> Self {
        let (tests, len) = expr.as_ref().map_or((0, 0), |expr| (expr.count_tests(), expr.memory()));
        Self { name, at, expr, tests, len, is_used: false }
    }
}

/// Parses `text`, which is at `at` in the file. Returns `None` if it is invalid, or if a selection that it needs is;
/// the error has been reported.
pub(crate) fn parse(
    text: &str,
    at: Position,
    selections: &mut [Selection],
    report: &mut Report<'_>,
) -> Option<Expr> {
    if text.len() > CONDITION_LEN_MAX {
        report.error(at, Problem::TooLarge { what: "length of the condition", max: CONDITION_LEN_MAX });
        return None;
    }
    let mark = report.mark();
    let tokens = report.take(tokens(text).map_err(|problem| (at, problem)))?;
    // Each token may become a part of the expression.
    let paid = report.allocate(at, tokens.len() * TEST_LEN);
    report.take(paid)?;
    let mut parser = Parser { tokens, next: 0, depth: 0, tests: 0, at, selections, report, is_whole: true };
    let expr = parser.or().and_then(|expr| match parser.peek() {
        Some(token) => Err((at, fail(token.column, format!("unexpected `{}`", token.text)))),
        None => Ok(expr),
    });
    let is_whole = parser.is_whole;
    let expr = report.take(expr)?;
    (is_whole && !report.failed_since(mark)).then_some(expr)
}

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    column: usize,
}

struct Parser<'a, 's, 'b> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
    tests: usize,
    at: Position,
    selections: &'s mut [Selection],
    report: &'s mut Report<'b>,
    /// True if all referenced selections are valid.
    is_whole: bool,
}

fn fail(column: usize, reason: impl Into<String>) -> Problem {
    Problem::Condition { column, reason: reason.into(), suggestion: None }
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

impl<'a> Parser<'a, '_, '_> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn fail<T>(&self, column: usize, reason: impl Into<String>) -> Result<T, Located> {
        Err((self.at, fail(column, reason)))
    }

    fn or(&mut self) -> Result<Expr, Located> {
        let mut parts = vec![self.and()?];
        while self.eat("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Result<Expr, Located> {
        let mut parts = vec![self.not()?];
        while self.eat("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Result<Expr, Located> {
        self.depth += 1;
        if self.depth > CONDITION_DEPTH_MAX {
            return Err((
                self.at,
                Problem::TooLarge { what: "depth of the condition", max: CONDITION_DEPTH_MAX },
            ));
        }
        let expr = if self.eat("not") { Expr::Not(Box::new(self.not()?)) } else { self.primary()? };
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, Located> {
        let end = self.tokens.last().map_or(1, |token| token.column + token.text.chars().count());
        let Some(Token { text, column }) = self.peek() else {
            return self.fail(end, "a selection is expected here");
        };
        self.next += 1;
        if text == "(" {
            let expr = self.or()?;
            if !self.eat(")") {
                return self.fail(self.peek().map_or(end, |token| token.column), "`)` is expected here");
            }
            return Ok(expr);
        }
        let quantifier = text.to_ascii_lowercase();
        if self.eat("of") {
            return self.group(&quantifier, column);
        }
        if matches!(quantifier.as_str(), ")" | "and" | "or" | "of" | "not") {
            return self.fail(column, format!("a selection is expected here, found `{text}`"));
        }
        self.report.charge(self.at, self.selections.len())?;
        if let Some(found) = self.selections.iter().position(|selection| selection.name == text) {
            return self.take(found);
        }
        let names: Vec<String> =
            self.selections.iter().take(NAMES_MAX).map(|selection| selection.name.clone()).collect();
        let suggestion = self.report.nearest(text, names.iter().map(String::as_str)).map(str::to_owned);
        let reason = format!("no selection is named `{text}`");
        self.report.error(self.at, Problem::Condition { column, reason, suggestion });
        // Continues, to find further errors in the condition.
        Ok(Expr::Or(Vec::new()))
    }

    fn group(&mut self, quantifier: &str, column: usize) -> Result<Expr, Located> {
        if !matches!(quantifier, "1" | "any" | "all") {
            return self.fail(column, format!("`{quantifier} of` is not supported; 1, any and all are"));
        }
        let Some(Token { text, column }) = self.peek() else {
            return self.fail(column, "`them` or a name with `*` is expected after `of`");
        };
        self.next += 1;
        self.report.charge(self.at, self.selections.len() * GLOB_STEPS)?;
        // Names that start with an underscore match only patterns that do.
        let hidden_too = text.starts_with('_');
        let is_all = text.eq_ignore_ascii_case("them");
        let is_member = |name: &str| (hidden_too || !name.starts_with('_')) && (is_all || glob(text, name));
        let members: Vec<usize> =
            (0..self.selections.len()).filter(|&at| is_member(&self.selections[at].name)).collect();
        if members.is_empty() {
            self.report.error(self.at, fail(column, format!("no selection is named like `{text}`")));
            return Ok(Expr::Or(Vec::new()));
        }
        let parts = members.into_iter().map(|member| self.take(member)).collect::<Result<Vec<_>, _>>()?;
        Ok(if quantifier == "all" { Expr::And(parts) } else { Expr::Or(parts) })
    }

    /// Returns a copy of a selection's expression.
    fn take(&mut self, selection: usize) -> Result<Expr, Located> {
        let selection = &mut self.selections[selection];
        selection.is_used = true;
        self.tests += selection.tests;
        if self.tests > EXPR_TESTS_MAX {
            return Err((
                self.at,
                Problem::TooLarge { what: "number of tests in a rule", max: EXPR_TESTS_MAX },
            ));
        }
        self.report.allocate(self.at, selection.len)?;
        self.is_whole &= selection.expr.is_some();
        Ok(selection.expr.clone().unwrap_or(Expr::Or(Vec::new())))
    }
}

/// Approximate steps to compare a name with a pattern.
const GLOB_STEPS: usize = 8;
/// Maximum number of names that a misspelled one is compared with.
const NAMES_MAX: usize = 100;

impl Expr {
    /// Returns the number of tests in the expression.
    pub fn count_tests(&self) -> usize {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::count_tests).sum(),
            Self::Not(part) => part.count_tests(),
            Self::Test(_) => 1,
        }
    }

    /// Returns the approximate memory of the expression in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::memory).sum(),
                Self::Not(part) => part.memory(),
                Self::Test(test) => match &test.op {
                    Op::Text { pattern, .. } => size_of_val(pattern.parts()),
                    Op::Regex(source) => source.len(),
                    Op::Number(..) | Op::Exists(_) => 0,
                },
            }
    }
}

/// Returns true if `name` matches `pattern`, in which `*` stands for any text.
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
    use super::{Selection, glob, parse};
    use crate::error::Position;
    use crate::field::Field;
    use crate::rule::report::Report;
    use crate::rule::{Expr, Op, Test};
    use etwsieve_budget::Budget;

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
        let at = Position { line: 1, column: 1 };
        let mut selections: Vec<_> = ["a", "b", "c", "sel_1", "sel_2", "_hidden", "_sel_3"]
            .iter()
            .map(|name| {
                let test = Test { field: Some(Field::Path), op: Op::Regex((*name).to_owned()) };
                Selection::new((*name).to_owned(), at, Some(Expr::Test(test)))
            })
            .collect();
        let mut report = Report::new(Budget::new(1 << 20, 1 << 20));
        let found = parse(condition, at, &mut selections, &mut report);
        let errors: Vec<_> = report.errors.iter().map(|(_, problem)| problem.to_string()).collect();
        found.map(|expr| shown(&expr)).ok_or_else(|| errors.join("; "))
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
            ("1 of _*", "(_hidden|_sel_3)"),
            ("1 of *", "(a|b|c|sel_1|sel_2)"),
            ("1 of THEM", "(a|b|c|sel_1|sel_2)"),
            ("all of *sel_*", "(sel_1&sel_2)"),
            ("any of *_3 or a", ""),
        ];
        for (condition, expected) in rows {
            assert_eq!(check(condition).unwrap_or_default(), expected, "{condition}");
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
            ("1 of *_3", "no selection is named like `*_3`"),
            ("sel_l and c", "no selection is named `sel_l` (did you mean `sel_1`?)"),
            ("x or y", "column 6: no selection is named `y`"),
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
