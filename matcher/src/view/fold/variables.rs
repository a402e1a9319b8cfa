//! Variables whose value is known, as a script is read from its beginning to its end.
//!
//! A script is taken to run straight through. What is assigned something unknown is unknown from there on.

use super::value::{Folded, ITEM_STEPS, Value, owned_list, owned_text};
use crate::view::transformation::Transformation;
use crate::view::work::Work;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Most variables.
pub(crate) const VARIABLES_MAX: usize = 256;
/// Most units of all their values.
pub(crate) const VARIABLE_UNITS_MAX: usize = 1 << 20;

/// What PowerShell itself sets, and is as good as constant: disguises take letters from it.
const AUTOMATIC: [(&str, &str); 5] = [
    ("env:comspec", "C:\\WINDOWS\\system32\\cmd.exe"),
    ("pshome", "C:\\Windows\\System32\\WindowsPowerShell\\v1.0"),
    ("shellid", "Microsoft.PowerShell"),
    ("verbosepreference", "SilentlyContinue"),
    ("maximumdrivecount", "4096"),
];

/// The same as values, made once.
static AUTOMATIC_VALUES: LazyLock<[Folded; AUTOMATIC.len()]> = LazyLock::new(|| {
    AUTOMATIC.map(|(_, text)| Folded::plain(Value::Text(Arc::new(text.encode_utf16().collect()))))
});

/// Allocates nothing before the first assignment.
#[derive(Debug, Default)]
pub(in crate::view) struct Variables {
    /// Few and asked for often: comparing is faster than hashing.
    known: BTreeMap<String, Folded>,
    units: usize,
    /// Which of the automatic ones have been assigned to.
    lost: [bool; AUTOMATIC.len()],
}

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&Folded> {
        self.known.get(name).or_else(|| {
            let number = automatic(name).filter(|number| !self.lost[*number])?;
            Some(&AUTOMATIC_VALUES[number])
        })
    }

    /// `$name = …`; `None` for what is not known.
    pub(super) fn assign(&mut self, name: &str, value: Option<Folded>) {
        self.take(name);
        let Some(folded) = value else { return };
        let units = folded.value.units();
        if self.known.len() < VARIABLES_MAX && self.units.saturating_add(units) <= VARIABLE_UNITS_MAX {
            self.units += units;
            self.known.insert(name.to_owned(), folded);
        }
    }

    /// `$name += …`.
    pub(super) fn append(&mut self, name: &str, value: Option<Folded>, work: &mut Work<'_, '_>) {
        let Some(before) = self.take(name) else { return };
        let Some(value) = value else { return };
        let done = before.done.and(value.done).with(Transformation::Concatenation);
        if let Some(value) = before.value.plus(&value.value, work) {
            self.assign(name, Some(Folded { value, done }));
        }
    }

    /// `[array]::Reverse($name)`.
    pub(super) fn reverse(&mut self, name: &str, work: &mut Work<'_, '_>) {
        let Some(Folded { value, done }) = self.take(name) else { return };
        if let Some(value) = reversed(value, work) {
            self.assign(name, Some(Folded { value, done: done.with(Transformation::Reverse) }));
        }
    }

    /// The value, which is not known from here on.
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
        // Declared as an array of characters, which is not looked at.
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
