//! Calls of known cmdlets, rewritten as if every name had been written out.
//!
//! A call is a command at the place of one: at the beginning of a statement or of a part of a pipeline, behind `&` or
//! `.`, behind `=`, in parentheses or braces; never in a string or a comment, but in a string that `Invoke-Expression`
//! gets. Its alias becomes the cmdlet's name, the abbreviation or alias of a parameter its name, an argument without a
//! name gets that of the parameter at its position, and a module's name before the cmdlet is left out. Each call is a
//! text of its own, so what a rule asks for has to stand in one call.

mod table;

use super::chars::{
    BACKTICK, BLANK, DASH, ends_token, is, is_dash, is_double_quote, is_newline, is_single_quote,
    is_whitespace, is_word, lower,
};
use super::fold::{Budget, Variables, read_literal};
use super::mapped::{Builder, Mapped};
use super::transformation::{Done, Transformation};
use crate::compile::rarity;
use crate::pattern::Part;
use crate::rule::{Expr, Op, Rule};
use crate::scan::marks::{Bucket, PLACES};
use crate::scan::narrow::narrow_unit;
use memchr::memmem;
use std::ops::Range;
use table::{CMDLETS, COMMON, COMMON_ALIASES, COMMON_SWITCHES, Cmdlet};

/// Deepest nesting of parentheses and braces in which calls are looked for.
const DEPTH_MAX: usize = 64;
/// Most arguments of a call that are looked at.
const ARGUMENTS_MAX: usize = 64;
/// How deep a script may lie in the strings of `Invoke-Expression`.
const STRINGS_DEPTH_MAX: u32 = 3;
/// Longest name of a command or parameter, in units.
const NAME_UNITS_MAX: usize = 128;

/// The names under which the cmdlets of the rules are called, each with the units by which it is looked for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Small letters, and where in them these units stand; behind a shorter name may stand anything.
    list: Vec<(Vec<u8>, usize)>,
}

impl Names {
    /// The names of the cmdlets that the rules of the call-aware view speak of.
    pub(crate) fn of(rules: &[Rule]) -> Self {
        let mut list: Vec<(Vec<u8>, usize)> = Vec::new();
        for rule in rules.iter().filter(|rule| rule.calls != crate::rule::Calls::No) {
            for name in Self::of_expr(&rule.expr) {
                let name = name.to_ascii_lowercase().into_bytes();
                let rarer = |a: &usize, b: &usize| {
                    rarity::bits(&name[*a..a + PLACES]).total_cmp(&rarity::bits(&name[*b..b + PLACES]))
                };
                let start = (0..(name.len() + 1).saturating_sub(PLACES)).max_by(rarer).unwrap_or(0);
                if !list.iter().any(|(known, _)| *known == name) {
                    list.push((name, start));
                }
            }
        }
        Self { list }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|(name, _)| &name[..])
    }

    /// The names and aliases of the known cmdlets in the literals of an expression.
    pub(crate) fn of_expr(expr: &Expr) -> Vec<&'static str> {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().flat_map(Self::of_expr).collect(),
            Expr::Not(_) => Vec::new(),
            Expr::Test(test) => {
                let Op::Text { pattern, .. } = &test.op else { return Vec::new() };
                let units: Vec<u16> = pattern
                    .parts()
                    .iter()
                    .map(|part| if let Part::Unit(unit) = part { *unit } else { 0 })
                    .collect();
                let named =
                    |cmdlet: &&Cmdlet| units.windows(cmdlet.name.len()).any(|part| same(part, cmdlet.name));
                CMDLETS
                    .iter()
                    .filter(named)
                    .flat_map(|cmdlet| std::iter::once(cmdlet.name).chain(cmdlet.aliases.iter().copied()))
                    .collect()
            }
        }
    }

    /// What the names have at the units by which they are looked for.
    pub(super) fn bucket(&self) -> Bucket {
        let own = |place: usize| self.list.iter().map(move |(name, start)| name.get(start + place).copied());
        let first = std::array::from_fn(|place| own(place).flatten().collect());
        Bucket { first, last: own(PLACES - 1).collect() }
    }

    /// Whether one of the names stands anywhere in a text in light normalisation. `narrow` is memory.
    pub(super) fn stand_in(&self, units: &[u16], narrow: &mut Vec<u8>) -> bool {
        narrow.clear();
        narrow.extend(units.iter().map(|unit| narrow_unit(*unit)));
        self.list.iter().any(|(name, _)| memmem::find(narrow, name).is_some())
    }

    /// Whether one of the names stands at a place at which its units may be.
    pub(super) fn stands(&self, units: &[[u8; 2]], at: usize) -> bool {
        let unit = |at: usize| units.get(at).map_or(0, |unit| lower(u16::from_le_bytes(*unit)));
        self.list.iter().any(|(name, own)| {
            at.checked_sub(*own).is_some_and(|start| {
                let borders = [start.checked_sub(1).map_or(0, unit), unit(start + name.len())];
                name.iter().enumerate().all(|(at, byte)| u16::from(*byte) == unit(start + at))
                    && borders.iter().all(|unit| !is_word(*unit) && *unit != DASH)
            })
        })
    }
}

/// The name in any case.
fn same(units: &[u16], name: &str) -> bool {
    units.len() == name.len()
        && name.bytes().zip(units).all(|(byte, unit)| u16::from(byte.to_ascii_lowercase()) == lower(*unit))
}

/// The calls of a text that are written otherwise than in full, each as a text, written in full; at most `max`.
pub(super) fn rewritten(text: &Mapped, budget: &mut Budget, max: usize) -> Vec<Mapped> {
    let mut made = Vec::new();
    let mut scripts = vec![(text.clone(), 0)];
    while let Some((script, depth)) = scripts.pop() {
        let mut reader =
            Reader { text: script.units(), at: 0, budget, calls: Vec::new(), strings: Vec::new() };
        reader.script();
        let Reader { calls, strings, .. } = reader;
        made.extend(
            calls.iter().filter_map(|call| call.rewrite(&script)).take(max.saturating_sub(made.len())),
        );
        if depth < STRINGS_DEPTH_MAX {
            for (part, value) in strings.into_iter().take(max) {
                scripts.push((Mapped::made(&script, part, value, Done::NONE), depth + 1));
            }
        }
        if made.len() >= max {
            break;
        }
    }
    made
}

/// A call of a known cmdlet.
#[derive(Debug)]
struct Call {
    cmdlet: &'static Cmdlet,
    name: Range<usize>,
    name_done: Done,
    arguments: Vec<Argument>,
    end: usize,
}

#[derive(Debug)]
enum Argument {
    /// Where its name with the dash stands, and the name.
    Parameter(Range<usize>, Vec<u16>),
    Value(Range<usize>),
}

impl Call {
    fn rewrite(&self, script: &Mapped) -> Option<Mapped> {
        let text = script.units();
        let mut builder = Builder::new(script);
        builder.drop_to(self.name.start);
        let mut changed = !self.name_done.is_none();
        if changed {
            builder.put(self.name.end, self.cmdlet.name.encode_utf16(), self.name_done);
        }
        let mut taken: Vec<&str> = Vec::new();
        let mut known = true;
        for argument in &self.arguments {
            let Argument::Parameter(_, name) = argument else { continue };
            match parameter(self.cmdlet, name) {
                Some((full, _, _)) => taken.push(full),
                // Whether an argument belongs to it cannot be told.
                None => known = false,
            }
        }
        let mut positions = self.cmdlet.positions.iter().filter(|name| !taken.contains(name));
        let mut named = false;
        for argument in &self.arguments {
            match argument {
                Argument::Parameter(part, name) => {
                    named = false;
                    if let Some((full, done, takes)) = parameter(self.cmdlet, name) {
                        named = takes;
                        if !done.is_none() {
                            changed = true;
                            builder.copy_to(part.start);
                            let units = std::iter::once(DASH).chain(full.encode_utf16());
                            builder.put(part.end, units, done);
                        }
                    }
                }
                Argument::Value(_) if named || !known => named = false,
                Argument::Value(part) => {
                    let Some(position) = positions.next() else { continue };
                    if *position == "ComputerName" && !may_be_computer(&text[part.clone()]) {
                        continue;
                    }
                    changed = true;
                    builder.copy_to(part.start);
                    let name = std::iter::once(DASH).chain(position.encode_utf16()).chain([BLANK]);
                    let value = text[part.clone()].iter().copied();
                    builder.put(part.end, name.chain(value), Done::only(Transformation::Positional));
                }
            }
        }
        builder.copy_to(self.end);
        changed.then(|| builder.cut())
    }
}

/// A script block is none, nor is a variable that is called a session: both go to other sets of parameters.
fn may_be_computer(value: &[u16]) -> bool {
    let text: String = String::from_utf16_lossy(value).to_ascii_lowercase();
    !text.starts_with(['{', '@', '(']) && !(text.starts_with('$') && (text.contains("sess") || text == "$s"))
}

/// The parameter that a name means: in full, what was done, and whether it takes an argument.
fn parameter(cmdlet: &'static Cmdlet, name: &[u16]) -> Option<(&'static str, Done, bool)> {
    let with = || cmdlet.parameters.iter().chain(&COMMON).copied();
    let without = || cmdlet.switches.iter().chain(&COMMON_SWITCHES).copied();
    let aliases = || cmdlet.parameter_aliases.iter().chain(&COMMON_ALIASES).copied();
    let takes = |full: &str| with().any(|other| other == full);
    if let Some(full) = with().chain(without()).find(|full| same(name, full)) {
        return Some((full, Done::NONE, takes(full)));
    }
    if let Some((_, full)) = aliases().find(|(alias, _)| same(name, alias)) {
        return Some((full, Done::only(Transformation::ParameterAlias), takes(full)));
    }
    let begins = |full: &str| full.len() >= name.len() && same(name, &full[..name.len()]);
    let mut meant: Vec<&str> = with().chain(without()).filter(|full| begins(full)).collect();
    meant.extend(aliases().filter(|(alias, _)| begins(alias)).map(|(_, full)| full));
    meant.dedup();
    match meant[..] {
        [full] => Some((full, Done::only(Transformation::ParameterPrefix), takes(full))),
        _ => None,
    }
}

/// The cmdlet that a command's name means, and what was done.
fn cmdlet(name: &[u16]) -> Option<(&'static Cmdlet, Done)> {
    let behind = name.iter().rposition(|unit| *unit == u16::from(b'\\')).map_or(0, |at| at + 1);
    let module = &name[..behind.saturating_sub(1)];
    let is_module = |unit: &u16| is_word(*unit) || *unit == u16::from(b'.');
    if behind > 0 && (module.is_empty() || !module.iter().all(is_module)) {
        return None;
    }
    let done = if behind > 0 { Done::only(Transformation::ModuleQualified) } else { Done::NONE };
    let name = &name[behind..];
    CMDLETS.iter().find_map(|cmdlet| {
        if same(name, cmdlet.name) {
            return Some((cmdlet, done));
        }
        let is_alias = cmdlet.aliases.iter().any(|alias| same(name, alias));
        is_alias.then(|| (cmdlet, done.with(Transformation::Alias)))
    })
}

/// What stands around a place: a statement, parentheses or braces.
#[derive(Debug)]
struct Frame {
    call: Option<Call>,
    /// Whether a command may begin here.
    command: bool,
    /// A string that stands alone before a `|`, for `Invoke-Expression` behind it.
    string: Option<(Range<usize>, Vec<u16>)>,
    /// Where the parenthesis or brace opened.
    start: usize,
}

struct Reader<'a> {
    text: &'a [u16],
    at: usize,
    budget: &'a mut Budget,
    calls: Vec<Call>,
    /// Strings that `Invoke-Expression` gets.
    strings: Vec<(Range<usize>, Vec<u16>)>,
}

impl Reader<'_> {
    fn script(&mut self) {
        let frame = |start| Frame { call: None, command: true, string: None, start };
        let mut frames = vec![frame(0)];
        // Beyond the depth parentheses are counted only.
        let mut deeper = 0usize;
        let variables = Variables::default();
        while let Some(&unit) = self.text.get(self.at) {
            if !self.budget.spend(1) {
                break;
            }
            let start = self.at;
            let next = self.text.get(start + 1).copied().unwrap_or(0);
            let Some(top) = frames.last_mut() else { break };
            if is_whitespace(unit) {
                self.at += 1;
            } else if unit == BACKTICK && is_newline(next) {
                self.at += 2 + usize::from(self.text[start + 1..].starts_with(&[0x0D, 0x0A]));
            } else if is_newline(unit)
                || unit == u16::from(b';')
                || unit == u16::from(b'|')
                || unit == u16::from(b'&')
            {
                self.at += 1;
                self.end_call(top, start);
                top.command = true;
                if unit != u16::from(b'|') && unit != u16::from(b'&') {
                    top.string = None;
                }
            } else if unit == u16::from(b'#') {
                self.skip_comment_line();
            } else if unit == u16::from(b'<') && next == u16::from(b'#') {
                self.skip_comment();
            } else if unit == u16::from(b'(') || unit == u16::from(b'{') {
                self.at += 1;
                if frames.len() < DEPTH_MAX {
                    frames.push(frame(start));
                } else {
                    deeper += 1;
                }
            } else if unit == u16::from(b')') || unit == u16::from(b'}') {
                self.at += 1;
                self.end_call(top, start);
                if deeper > 0 {
                    deeper -= 1;
                } else if frames.len() > 1 {
                    let inner = frames.pop().map_or(start, |frame| frame.start);
                    if let Some(outer) = frames.last_mut() {
                        // Statements follow a block: `if (…) { … }`.
                        outer.command = unit == u16::from(b'}') && outer.call.is_none();
                        push(outer, Argument::Value(inner..self.at));
                    }
                }
            } else if let Some(literal) = read_literal(self.text, start, &variables) {
                self.at = literal.end.max(start + 1);
                self.budget.spend(self.at - start);
                self.literal(top, start..self.at, literal.value);
            } else if unit == u16::from(b'$') || unit == u16::from(b'@') {
                self.at += 1;
                while self.text.get(self.at).is_some_and(|unit| is_word(*unit) || *unit == u16::from(b':')) {
                    self.at += 1;
                }
                if self.text.get(self.at).is_some_and(|unit| *unit == u16::from(b'{'))
                    && self.at == start + 1
                    && unit == u16::from(b'$')
                {
                    self.skip_braced();
                }
                if self.at > start + 1 {
                    top.command = false;
                    push(top, Argument::Value(start..self.at));
                }
            } else if unit == u16::from(b'=') {
                self.at += 1;
                if top.call.is_none() {
                    top.command = true;
                }
            } else if unit == u16::from(b',') {
                // The next value belongs to the one before.
                self.at += 1;
                self.join_values(top);
            } else {
                self.token(top);
            }
        }
        let end = self.text.len();
        for mut frame in frames {
            self.end_call(&mut frame, end);
        }
    }

    fn end_call(&mut self, frame: &mut Frame, end: usize) {
        if let Some(mut call) = frame.call.take() {
            call.end = end;
            if is(&call.cmdlet.name.encode_utf16().collect::<Vec<_>>(), "invoke-expression")
                && let Some(string) = frame.string.take()
            {
                self.strings.push(string);
            }
            self.calls.push(call);
        }
        frame.command = false;
    }

    fn literal(&mut self, frame: &mut Frame, part: Range<usize>, value: Option<Vec<u16>>) {
        let called = frame.command && self.is_called(part.start);
        if let (true, Some(value)) = (called, &value) {
            self.command(frame, part, value, Done::NONE);
            return;
        }
        frame.command = false;
        let is_iex = frame.call.as_ref().is_some_and(|call| call.cmdlet.name == "Invoke-Expression");
        match value {
            Some(value) if is_iex => self.strings.push((part.clone(), value)),
            Some(value) if frame.call.is_none() => frame.string = Some((part.clone(), value)),
            _ => {}
        }
        push(frame, Argument::Value(part));
    }

    /// Whether `&` or `.` stands before.
    fn is_called(&self, at: usize) -> bool {
        let before = self.text[..at].iter().rev().find(|unit| !is_whitespace(**unit));
        before.is_some_and(|unit| *unit == u16::from(b'&') || *unit == u16::from(b'.'))
    }

    /// A word: a command, a parameter or an argument.
    fn token(&mut self, frame: &mut Frame) {
        let start = self.at;
        let mut name = Vec::new();
        let mut done = Done::NONE;
        while let Some(&unit) = self.text.get(self.at) {
            if ends_token(unit) || (self.at > start && unit == u16::from(b'=') && frame.call.is_none()) {
                break;
            }
            let quote = is_single_quote(unit) || is_double_quote(unit);
            if quote && (frame.command || self.at == start) {
                break;
            }
            self.at += 1;
            let unit = match unit {
                BACKTICK => {
                    let Some(&next) = self.text.get(self.at) else { break };
                    if is_newline(next) {
                        self.at -= 1;
                        break;
                    }
                    self.at += 1;
                    done = done.with(Transformation::Backtick);
                    next
                }
                unit => unit,
            };
            if unit >= 0x80 && is_dash(unit) {
                done = done.with(Transformation::Dash);
                name.push(DASH);
            } else {
                name.push(unit);
            }
            // A dot alone calls what follows it; a colon ends a parameter's name.
            let dot =
                name == [u16::from(b'.')] && self.text.get(self.at).is_some_and(|unit| is_whitespace(*unit));
            let colon = unit == u16::from(b':') && name.first() == Some(&DASH) && !frame.command;
            if dot || colon || name.len() > NAME_UNITS_MAX {
                break;
            }
        }
        self.budget.spend(self.at - start);
        self.at = self.at.max(start + 1);
        let part = start..self.at;
        if frame.command {
            if name != [u16::from(b'.')] {
                self.command(frame, part, &name, done);
            }
            return;
        }
        let letter = name.get(1).is_some_and(|unit| is_word(*unit) && !(0x30..0x3A).contains(unit));
        if name.first() == Some(&DASH) && letter {
            let colon = usize::from(name.last() == Some(&u16::from(b':')));
            let plain = name[1..name.len() - colon].to_vec();
            push(frame, Argument::Parameter(start..self.at - colon, plain));
        } else {
            push(frame, Argument::Value(part));
        }
    }

    /// What stands at the place of a command.
    fn command(&mut self, frame: &mut Frame, part: Range<usize>, name: &[u16], done: Done) {
        const GO_ON: [&str; 14] = [
            "return", "else", "do", "try", "finally", "begin", "process", "end", "throw", "exit", "trap",
            "in", "!", "not",
        ];
        if GO_ON.iter().any(|word| is(name, word)) {
            return;
        }
        frame.command = false;
        // A key of a hash table is none.
        let behind = self.text[self.at..].iter().find(|unit| !is_whitespace(**unit));
        let Some((cmdlet, own)) = cmdlet(name).filter(|_| behind != Some(&u16::from(b'='))) else { return };
        // A name in quotes or with backticks is put in full, too.
        let is_as_written = same(&self.text[part.clone()], cmdlet.name);
        let name_done = if is_as_written { Done::NONE } else { done.and(own) };
        frame.call =
            Some(Call { cmdlet, name: part.clone(), name_done, arguments: Vec::new(), end: part.end });
    }

    /// Arguments with commas between are one.
    fn join_values(&mut self, frame: &mut Frame) {
        let Some(call) = &mut frame.call else { return };
        while self.text.get(self.at).is_some_and(|unit| is_whitespace(*unit) || is_newline(*unit)) {
            self.at += 1;
        }
        // The value behind the comma replaces the end of the one before.
        if let Some(Argument::Value(part)) = call.arguments.last_mut() {
            part.end = self.at;
        }
    }

    fn skip_comment_line(&mut self) {
        let start = self.at;
        while self.text.get(self.at).is_some_and(|unit| !is_newline(*unit)) {
            self.at += 1;
        }
        self.budget.spend(self.at - start);
    }

    fn skip_comment(&mut self) {
        let start = self.at;
        self.at += 2;
        while self.at < self.text.len()
            && !self.text[self.at..].starts_with(&[u16::from(b'#'), u16::from(b'>')])
        {
            self.at += 1;
        }
        self.budget.spend(self.at - start);
        self.at = (self.at + 2).min(self.text.len());
    }

    fn skip_braced(&mut self) {
        while self.text.get(self.at).is_some_and(|unit| *unit != u16::from(b'}') && !is_newline(*unit)) {
            self.at += 1;
        }
        self.at = (self.at + 1).min(self.text.len());
    }
}

/// Adds an argument to the call, if one is being read. What touches the value before, or follows a comma, is part of it.
fn push(frame: &mut Frame, argument: Argument) {
    let Some(call) = &mut frame.call else { return };
    if let Argument::Value(part) = &argument
        && let Some(Argument::Value(before)) = call.arguments.last_mut()
        && before.end == part.start
    {
        before.end = part.end;
        return;
    }
    if call.arguments.len() < ARGUMENTS_MAX {
        call.arguments.push(argument);
    }
}

#[cfg(test)]
mod tests;
