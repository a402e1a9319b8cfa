//! Calls of known cmdlets, rewritten in full.
//!
//! A call is a command in command position: at the beginning of a statement or pipeline element, after `&` or `.`,
//! after `=`, or in parentheses or braces. Strings and comments contain no calls, except for strings that are passed to
//! `Invoke-Expression`. Rewriting replaces an alias with the name of the cmdlet and an abbreviated or aliased parameter
//! with its full name, adds the parameter name before a positional argument, and removes the module name before a
//! cmdlet. Each call becomes a separate text, so everything that a rule requires must occur in one call.

mod names;
mod reader;

pub(crate) use names::Names;

use super::chars::{BLANK, DASH, is_word};
use super::mapped::{Builder, Mapped, PIECE_LEN};
use super::transformation::{Transformation, Transformations};
use super::work::Work;
use crate::cmdlet::{CMDLETS, COMMON, COMMON_ALIASES, COMMON_SWITCHES, Cmdlet, is_name};
use reader::Reader;
use std::ops::Range;

/// Maximum nesting depth of strings of `Invoke-Expression`.
const STRINGS_DEPTH_MAX: u32 = 3;
/// Steps to rewrite a call, without its arguments and units.
const CALL_STEPS: usize = 48;
/// Steps per argument.
const ARGUMENT_STEPS: usize = 24;
/// Steps to resolve the name of a parameter, which is compared with all parameters of the cmdlet.
const PARAMETER_STEPS: usize = 300;
/// Units of a value that decide whether it may be the name of a computer.
const COMPUTER_UNITS_MAX: usize = 128;

/// Calls `each` with the calls of a text that are not written in full, one at a time, each rewritten in full; at most
/// `max` of them. Only one of them is in memory at a time, because each may be as long as the text.
pub(super) fn rewritten<'w, 'b>(
    text: &Mapped,
    max: usize,
    work: &mut Work<'w, 'b>,
    mut each: impl FnMut(&Mapped),
) -> Option<()> {
    let mut made = 0;
    // Strings that have not been read yet, the next one last.
    let mut strings: Vec<(Mapped, u32)> = Vec::new();
    let mut current = None;
    loop {
        let (script, depth) = match &current {
            Some((script, depth)) => (script, *depth),
            None => (text, 0),
        };
        let mut sink = |call: &Call, work: &mut Work<'w, 'b>| {
            if let Some(call) = call.rewrite(script, work)? {
                each(&call);
                made += 1;
            }
            (made < max).then_some(())
        };
        let inner = Reader::new(script.units(), work, &mut sink).read()?;
        if depth < STRINGS_DEPTH_MAX {
            for (part, value) in inner.into_iter().take(max) {
                work.allocate(PIECE_LEN * script.pieces_in(&part))?;
                strings.push((Mapped::made(script, part, value, Transformations::NONE), depth + 1));
            }
        }
        current = Some(strings.pop()?);
    }
}

/// A call of a known cmdlet.
#[derive(Debug)]
struct Call {
    cmdlet: &'static Cmdlet,
    name: Range<usize>,
    name_done: Transformations,
    arguments: Vec<Argument>,
    end: usize,
}

#[derive(Debug)]
enum Argument {
    /// Range of the name including the dash, and the name.
    Parameter(Range<usize>, Vec<u16>),
    Value(Range<usize>),
}

impl Call {
    /// Rewrites the call. The inner `None` means that it is written in full already, the outer one that the work is
    /// exhausted.
    #[expect(clippy::option_option, reason = "the outer option means that the work is exhausted")]
    fn rewrite(&self, script: &Mapped, work: &mut Work<'_, '_>) -> Option<Option<Mapped>> {
        let text = script.units();
        let part = self.name.start..self.end;
        work.charge(CALL_STEPS + ARGUMENT_STEPS * self.arguments.len())?;
        work.allocate(2 * part.len() + PIECE_LEN * (script.pieces_in(&part) + 2 * self.arguments.len()))?;
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
            // Needed twice.
            work.charge(2 * PARAMETER_STEPS)?;
            match parameter(self.cmdlet, name) {
                Some((full, _, _)) => taken.push(full),
                // It is unknown whether the next argument belongs to it.
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
                    if *position == "ComputerName" && !may_be_computer(&text[part.clone()], work)? {
                        continue;
                    }
                    work.allocate(2 * part.len())?;
                    changed = true;
                    builder.copy_to(part.start);
                    let name = std::iter::once(DASH).chain(position.encode_utf16()).chain([BLANK]);
                    let value = text[part.clone()].iter().copied();
                    builder.put(
                        part.end,
                        name.chain(value),
                        Transformations::only(Transformation::Positional),
                    );
                }
            }
        }
        builder.copy_to(self.end);
        Some(changed.then(|| builder.cut()))
    }
}

/// Returns false for script blocks, and for variables that are named like a session: both belong to other parameter
/// sets.
fn may_be_computer(value: &[u16], work: &mut Work<'_, '_>) -> Option<bool> {
    let near = &value[..value.len().min(COMPUTER_UNITS_MAX)];
    work.charge(4 * near.len())?;
    let text = String::from_utf16_lossy(near).to_ascii_lowercase();
    let is_session = text.starts_with('$') && (text.contains("sess") || text == "$s");
    Some(!text.starts_with(['{', '@', '(']) && !is_session)
}

/// Resolves the name of a parameter. Returns its full name, the transformations, and whether it takes an argument.
fn parameter(cmdlet: &'static Cmdlet, name: &[u16]) -> Option<(&'static str, Transformations, bool)> {
    let with = || cmdlet.parameters.iter().chain(&COMMON).copied();
    let without = || cmdlet.switches.iter().chain(&COMMON_SWITCHES).copied();
    let aliases = || cmdlet.parameter_aliases.iter().chain(&COMMON_ALIASES).copied();
    let takes = |full: &str| with().any(|other| other == full);
    if let Some(full) = with().chain(without()).find(|full| is_name(name, full)) {
        return Some((full, Transformations::NONE, takes(full)));
    }
    if let Some((_, full)) = aliases().find(|(alias, _)| is_name(name, alias)) {
        return Some((full, Transformations::only(Transformation::ParameterAlias), takes(full)));
    }
    let begins = |full: &str| full.len() >= name.len() && is_name(name, &full[..name.len()]);
    let mut meant: Vec<&str> = with().chain(without()).filter(|full| begins(full)).collect();
    meant.extend(aliases().filter(|(alias, _)| begins(alias)).map(|(_, full)| full));
    meant.dedup();
    match meant[..] {
        [full] => Some((full, Transformations::only(Transformation::ParameterPrefix), takes(full))),
        _ => None,
    }
}

/// Resolves the name of a command. Returns the cmdlet and the transformations.
fn cmdlet(name: &[u16]) -> Option<(&'static Cmdlet, Transformations)> {
    let behind = name.iter().rposition(|unit| *unit == u16::from(b'\\')).map_or(0, |at| at + 1);
    let module = &name[..behind.saturating_sub(1)];
    let is_module = |unit: &u16| is_word(*unit) || *unit == u16::from(b'.');
    if behind > 0 && (module.is_empty() || !module.iter().all(is_module)) {
        return None;
    }
    let done = if behind > 0 {
        Transformations::only(Transformation::ModuleQualified)
    } else {
        Transformations::NONE
    };
    let name = &name[behind..];
    CMDLETS.iter().find_map(|cmdlet| {
        if is_name(name, cmdlet.name) {
            return Some((cmdlet, done));
        }
        let is_alias = cmdlet.aliases.iter().any(|alias| is_name(name, alias));
        is_alias.then(|| (cmdlet, done.with(Transformation::Alias)))
    })
}

#[cfg(test)]
mod tests;
