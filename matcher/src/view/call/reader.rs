//! Reads the calls of known cmdlets from a script.

use super::{Argument, Call, cmdlet};
use crate::cmdlet::is_name;
use crate::view::chars::{
    BACKTICK, DASH, ends_token, is, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace,
    is_word,
};
use crate::view::fold::{Variables, end_of_comment, read_literal};
use crate::view::transformation::{Transformation, Transformations};
use crate::view::work::Work;
use std::ops::Range;

/// Maximum nesting depth of parentheses and braces in which calls are read.
const DEPTH_MAX: usize = 64;
/// Maximum number of arguments of a call that are read.
const ARGUMENTS_MAX: usize = 64;
/// Maximum length of the name of a command or parameter, in units.
const NAME_UNITS_MAX: usize = 128;
/// Steps for each token, beyond its units.
const TOKEN_STEPS: usize = 20;
/// Steps to resolve the name of a command.
const COMMAND_STEPS: usize = 64;

/// The cmdlet that runs a string.
const INVOKE_EXPRESSION: &str = "Invoke-Expression";

/// The range of a string, and its value.
pub(super) type Text = (Range<usize>, Vec<u16>);

/// The context of a position: a statement, parentheses or braces.
#[derive(Debug)]
struct Frame {
    call: Option<Call>,
    /// True in command position.
    command: bool,
    /// A string that is the only element before a `|`, for a following `Invoke-Expression`.
    string: Option<Text>,
    /// Position of the opening parenthesis or brace.
    start: usize,
}

/// Receives a call. Returns `None` to end the reading.
type Sink<'a, 'w, 'b> = dyn FnMut(&Call, &mut Work<'w, 'b>) -> Option<()> + 'a;

pub(super) struct Reader<'a, 'w, 'b> {
    text: &'a [u16],
    at: usize,
    work: &'a mut Work<'w, 'b>,
    sink: &'a mut Sink<'a, 'w, 'b>,
    /// Strings that are passed to `Invoke-Expression`.
    strings: Vec<Text>,
    /// Memory for the current word.
    word: Vec<u16>,
}

impl<'a, 'w, 'b> Reader<'a, 'w, 'b> {
    pub(super) fn new(text: &'a [u16], work: &'a mut Work<'w, 'b>, sink: &'a mut Sink<'a, 'w, 'b>) -> Self {
        Self { text, at: 0, work, sink, strings: Vec::new(), word: Vec::new() }
    }

    /// Passes the calls of known cmdlets to the sink and returns the strings that are passed to `Invoke-Expression`.
    /// Returns `None` if the sink ends the reading, or if the work is exhausted.
    pub(super) fn read(mut self) -> Option<Vec<Text>> {
        self.script()?;
        Some(self.strings)
    }

    fn script(&mut self) -> Option<()> {
        let frame = |start| Frame { call: None, command: true, string: None, start };
        let mut frames = vec![frame(0)];
        // Deeper parentheses are only counted.
        let mut deeper = 0usize;
        let variables = Variables::default();
        while let Some(&unit) = self.text.get(self.at) {
            self.work.charge(TOKEN_STEPS)?;
            let start = self.at;
            let next = self.text.get(start + 1).copied().unwrap_or(0);
            let Some(top) = frames.last_mut() else { break };
            if is_whitespace(unit) {
                self.at = self.work.find(self.text, start, |unit| !is_whitespace(unit))?;
            } else if unit == BACKTICK && is_newline(next) {
                self.at += 2 + usize::from(self.text[start + 1..].starts_with(&[0x0D, 0x0A]));
            } else if is_newline(unit)
                || unit == u16::from(b';')
                || unit == u16::from(b'|')
                || unit == u16::from(b'&')
            {
                self.at += 1;
                self.end_call(top, start)?;
                top.command = true;
                if unit != u16::from(b'|') && unit != u16::from(b'&') {
                    top.string = None;
                }
            } else if unit == u16::from(b'#') {
                self.at = self.work.find(self.text, start, is_newline)?;
            } else if unit == u16::from(b'<') && next == u16::from(b'#') {
                self.at = end_of_comment(self.text, start + 2, self.work)?;
            } else if unit == u16::from(b'(') || unit == u16::from(b'{') {
                self.at += 1;
                if frames.len() < DEPTH_MAX {
                    frames.push(frame(start));
                } else {
                    deeper += 1;
                }
            } else if unit == u16::from(b')') || unit == u16::from(b'}') {
                self.at += 1;
                self.end_call(top, start)?;
                if deeper > 0 {
                    deeper -= 1;
                } else if frames.len() > 1 {
                    let inner = frames.pop().map_or(start, |frame| frame.start);
                    if let Some(outer) = frames.last_mut() {
                        // A block may be followed by a statement: `if (…) { … }`.
                        outer.command = unit == u16::from(b'}') && outer.call.is_none();
                        push(outer, Argument::Value(inner..self.at));
                    }
                }
            } else if let Some(literal) = read_literal(self.text, start, &variables, self.work) {
                self.at = literal.end.max(start + 1);
                self.literal(top, start..self.at, literal.value)?;
            } else if unit == u16::from(b'$') || unit == u16::from(b'@') {
                self.at =
                    self.work.find(self.text, start + 1, |unit| !is_word(unit) && unit != u16::from(b':'))?;
                if self.text.get(self.at).is_some_and(|unit| *unit == u16::from(b'{'))
                    && self.at == start + 1
                    && unit == u16::from(b'$')
                {
                    let is_end = |unit| unit == u16::from(b'}') || is_newline(unit);
                    let end = self.work.find(self.text, self.at, is_end)?;
                    self.at = (end + 1).min(self.text.len());
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
                // The next value is part of the same argument.
                self.at += 1;
                self.join_values(top)?;
            } else {
                self.token(top)?;
            }
        }
        let end = self.text.len();
        for mut frame in frames {
            self.end_call(&mut frame, end)?;
        }
        Some(())
    }

    fn end_call(&mut self, frame: &mut Frame, end: usize) -> Option<()> {
        if let Some(mut call) = frame.call.take() {
            call.end = end;
            if call.cmdlet.name == INVOKE_EXPRESSION
                && let Some(string) = frame.string.take()
            {
                self.strings.push(string);
            }
            (self.sink)(&call, self.work)?;
        }
        frame.command = false;
        Some(())
    }

    fn literal(&mut self, frame: &mut Frame, part: Range<usize>, value: Option<Vec<u16>>) -> Option<()> {
        let called = frame.command && self.is_called(part.start);
        if let (true, Some(value)) = (called, &value) {
            return self.command(frame, part, value, Transformations::NONE);
        }
        frame.command = false;
        let is_iex = frame.call.as_ref().is_some_and(|call| call.cmdlet.name == INVOKE_EXPRESSION);
        match value {
            Some(value) if is_iex => self.strings.push((part.clone(), value)),
            Some(value) if frame.call.is_none() => frame.string = Some((part.clone(), value)),
            _ => {}
        }
        push(frame, Argument::Value(part));
        Some(())
    }

    /// Returns true if the position is preceded by `&` or `.`.
    fn is_called(&mut self, at: usize) -> bool {
        let before = self.work.find_before(self.text, at, |unit| !is_whitespace(unit));
        before.is_some_and(|unit| unit == u16::from(b'&') || unit == u16::from(b'.'))
    }

    /// Reads a word: a command, a parameter or an argument.
    fn token(&mut self, frame: &mut Frame) -> Option<()> {
        let mut name = std::mem::take(&mut self.word);
        name.clear();
        let done = self.token_into(frame, &mut name);
        self.word = name;
        done
    }

    fn token_into(&mut self, frame: &mut Frame, name: &mut Vec<u16>) -> Option<()> {
        let start = self.at;
        let mut done = Transformations::NONE;
        while let Some(&unit) = self.text.get(self.at) {
            self.work.charge(2)?;
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
            // A single dot calls the command that follows it; a colon ends a parameter's name.
            let dot = name[..] == [u16::from(b'.')]
                && self.text.get(self.at).is_some_and(|unit| is_whitespace(*unit));
            let colon = unit == u16::from(b':') && name.first() == Some(&DASH) && !frame.command;
            if dot || colon || name.len() > NAME_UNITS_MAX {
                break;
            }
        }
        self.at = self.at.max(start + 1);
        let part = start..self.at;
        if frame.command {
            if name[..] != [u16::from(b'.')] {
                self.command(frame, part, name, done)?;
            }
            return Some(());
        }
        let letter = name.get(1).is_some_and(|unit| is_word(*unit) && !(0x30..0x3A).contains(unit));
        if name.first() == Some(&DASH) && letter {
            let colon = usize::from(name.last() == Some(&u16::from(b':')));
            let plain = name[1..name.len() - colon].to_vec();
            push(frame, Argument::Parameter(start..self.at - colon, plain));
        } else {
            push(frame, Argument::Value(part));
        }
        Some(())
    }

    /// Reads the name in command position.
    fn command(
        &mut self,
        frame: &mut Frame,
        part: Range<usize>,
        name: &[u16],
        done: Transformations,
    ) -> Option<()> {
        const GO_ON: [&str; 14] = [
            "return", "else", "do", "try", "finally", "begin", "process", "end", "throw", "exit", "trap",
            "in", "!", "not",
        ];
        self.work.charge(COMMAND_STEPS + name.len())?;
        if GO_ON.iter().any(|word| is(name, word)) {
            return Some(());
        }
        frame.command = false;
        // Keys of hash tables are not commands.
        let behind = self.work.find(self.text, self.at, |unit| !is_whitespace(unit))?;
        let is_key = self.text.get(behind) == Some(&u16::from(b'='));
        let Some((cmdlet, own)) = cmdlet(name).filter(|_| !is_key) else { return Some(()) };
        // A name in quotes or with backticks is rewritten as well.
        let is_as_written = is_name(&self.text[part.clone()], cmdlet.name);
        let name_done = if is_as_written { Transformations::NONE } else { done.and(own) };
        frame.call =
            Some(Call { cmdlet, name: part.clone(), name_done, arguments: Vec::new(), end: part.end });
        Some(())
    }

    /// Joins values that are separated by commas to one argument.
    fn join_values(&mut self, frame: &mut Frame) -> Option<()> {
        let Some(call) = &mut frame.call else { return Some(()) };
        self.at = self.work.find(self.text, self.at, |unit| !is_whitespace(unit) && !is_newline(unit))?;
        // The value after the comma extends the one before.
        if let Some(Argument::Value(part)) = call.arguments.last_mut() {
            part.end = self.at;
        }
        Some(())
    }
}

/// Adds an argument to the current call, if there is one. A value that is adjacent to the one before, or follows a
/// comma, is part of it.
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
