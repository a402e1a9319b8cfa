//! Variables whose value is known, as a script is read from its beginning to its end.
//!
//! A script is taken to run straight through. What is assigned something unknown is unknown from there on.

use super::value::{Folded, Value, add};
use std::collections::HashMap;

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

#[derive(Debug)]
pub(in crate::view) struct Variables {
    known: HashMap<String, Folded>,
    units: usize,
}

impl Variables {
    pub(in crate::view) fn new() -> Self {
        let folded = |text: &str| Folded::plain(Value::Text(text.encode_utf16().collect()));
        let known = AUTOMATIC.map(|(name, text)| (name.to_owned(), folded(text)));
        Self { known: known.into(), units: 0 }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Folded> {
        self.known.get(name)
    }

    /// `$name = …`; `None` for what is not known.
    pub(super) fn assign(&mut self, name: String, value: Option<Folded>) {
        self.forget(&name);
        let Some(folded) = value else { return };
        let size = folded.value.size();
        if self.known.len() < VARIABLES_MAX && self.units + size <= VARIABLE_UNITS_MAX {
            self.units += size;
            self.known.insert(name, folded);
        }
    }

    /// `$name += …`.
    pub(super) fn append(&mut self, name: String, value: Option<Folded>) {
        let Some(before) = self.known.remove(&name) else { return };
        self.units = self.units.saturating_sub(before.value.size());
        let Some(value) = value else { return };
        let done = before.done.and(value.done).with(super::Transformation::Concatenation);
        if let Some(sum) = add(before.value, &value.value) {
            self.assign(name, Some(Folded { value: sum, done }));
        }
    }

    /// `[array]::Reverse($name)`.
    pub(super) fn reverse(&mut self, name: &str) {
        if let Some(folded) = self.known.get_mut(name) {
            match &mut folded.value {
                Value::List(items) => items.reverse(),
                // Declared as an array of characters, which is not looked at.
                Value::Text(text) => text.reverse(),
                _ => {}
            }
            folded.done = folded.done.with(super::Transformation::Reverse);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(before) = self.known.remove(name) {
            self.units = self.units.saturating_sub(before.value.size());
        }
    }
}
