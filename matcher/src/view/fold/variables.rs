//! Variables with known values, as a script is read from beginning to end.
//!
//! A script is assumed to run straight through. A variable that is assigned something unknown is unknown from there on.

use super::value::{Folded, ITEM_STEPS, Value, owned_list, owned_text};
use crate::view::transformation::Transformation;
use crate::view::work::Work;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Maximum number of variables.
pub(crate) const VARIABLES_MAX: usize = 256;
/// Maximum number of units in all values.
pub(crate) const VARIABLE_UNITS_MAX: usize = 1 << 20;

/// Variables that PowerShell sets and that are practically constant: obfuscation takes letters from them.
const AUTOMATIC: [(&str, &str); 5] = [
    ("env:comspec", "C:\\WINDOWS\\system32\\cmd.exe"),
    ("pshome", "C:\\Windows\\System32\\WindowsPowerShell\\v1.0"),
    ("shellid", "Microsoft.PowerShell"),
    ("verbosepreference", "SilentlyContinue"),
    ("maximumdrivecount", "4096"),
];

/// The same as values.
static AUTOMATIC_VALUES: LazyLock<[Folded; AUTOMATIC.len()]> = LazyLock::new(|| {
    AUTOMATIC.map(|(_, text)| Folded::plain(Value::Text(Arc::new(text.encode_utf16().collect()))))
});

/// The variables; allocates nothing before the first assignment.
#[derive(Debug, Default)]
pub(in crate::view) struct Variables {
    /// A tree, because they are few and looked up often: comparing is faster than hashing.
    known: BTreeMap<String, Folded>,
    units: usize,
    /// The predefined variables that have been assigned.
    lost: [bool; AUTOMATIC.len()],
}

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&Folded> {
        self.known.get(name).or_else(|| {
            let number = automatic(name).filter(|number| !self.lost[*number])?;
            Some(&AUTOMATIC_VALUES[number])
        })
    }

    /// Evaluates `$name = …`; `None` for an unknown value.
    pub(super) fn assign(&mut self, name: &str, value: Option<Folded>) {
        self.take(name);
        let Some(folded) = value else { return };
        let units = folded.value.units();
        if self.known.len() < VARIABLES_MAX && self.units.saturating_add(units) <= VARIABLE_UNITS_MAX {
            self.units += units;
            self.known.insert(name.to_owned(), folded);
        }
    }

    /// Evaluates `$name += …`.
    pub(super) fn append(&mut self, name: &str, value: Option<Folded>, work: &mut Work<'_, '_>) {
        let Some(before) = self.take(name) else { return };
        let Some(value) = value else { return };
        let done = before.done.and(value.done).with(Transformation::Concatenation);
        if let Some(value) = before.value.plus(&value.value, work) {
            self.assign(name, Some(Folded { value, done }));
        }
    }

    /// Evaluates `[array]::Reverse($name)`.
    pub(super) fn reverse(&mut self, name: &str, work: &mut Work<'_, '_>) {
        let Some(Folded { value, done }) = self.take(name) else { return };
        if let Some(value) = reversed(value, work) {
            self.assign(name, Some(Folded { value, done: done.with(Transformation::Reverse) }));
        }
    }

    /// Removes the value of a variable and returns it.
    fn take(&mut self, name: &str) -> Option<Folded> {
        if let Some(before) = self.known.remove(name) {
            self.units = self.units.saturating_sub(before.value.units());
            return Some(before);
        }
        let number = automatic(name)?;
        let was_lost = std::mem::replace(&mut self.lost[number], true);
        (!was_lost).then(|| AUTOMATIC_VALUES[number].clone())
    }
}

fn reversed(mut value: Value, work: &mut Work<'_, '_>) -> Option<Value> {
    match &mut value {
        Value::List(list) => {
            work.charge(ITEM_STEPS * list.items().len())?;
            owned_list(list, work)?.reverse();
        }
        // Assumes that the variable is declared as an array of characters.
        Value::Text(text) => {
            work.charge(text.len())?;
            owned_text(text, work)?.reverse();
        }
        _ => {}
    }
    Some(value)
}

fn automatic(name: &str) -> Option<usize> {
    AUTOMATIC.iter().position(|(known, _)| *known == name)
}
