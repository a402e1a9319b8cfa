//! Compares the hits that were sent with the hits that are stored.

use super::batch::{Batch, Script, name_in};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::store::{HitFilter, Store, StoreError};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Maximum number of examples in a report.
const EXAMPLES_MAX: usize = 5;

/// The scripts that sensors may have delivered, and those that they have reported as delivered.
#[derive(Clone, Debug, Default)]
pub struct Account {
    scripts: HashMap<String, Owed>,
}

#[derive(Clone, Debug)]
struct Owed {
    script: Script,
    is_due: bool,
    found: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Hits that sensors reported as delivered.
    pub sent: u64,
    /// Of these, the hits in the store.
    pub stored: u64,
    /// Of these, the hits that are neither in the store nor counted as dropped by the sensor.
    pub lost: u64,
    /// Hits that are stored more than once.
    pub doubled: u64,
    /// Stored hits that differ from everything sent, and rows that cannot be read.
    pub corrupt: u64,
    /// Descriptions of the first errors.
    #[serde(skip)]
    pub examples: Vec<String>,
}

impl Account {
    /// Records that these scripts may arrive from now on.
    pub fn offer(&mut self, batch: &Batch) {
        for script in &batch.scripts {
            let owed = Owed { script: script.clone(), is_due: false, found: 0 };
            self.scripts.insert(script.name.clone(), owed);
        }
    }

    /// Records that these scripts must be stored at the end.
    pub fn due(&mut self, batch: &Batch) {
        for script in &batch.scripts {
            if let Some(owed) = self.scripts.get_mut(&script.name) {
                owed.is_due = true;
            }
        }
    }

    /// Compares with a store in which `given_up` hits may be missing.
    ///
    /// # Errors
    ///
    /// If the store cannot be opened or read. Damaged rows are only counted.
    pub fn compare_with_store(self, store: &Path, given_up: u64) -> Result<Balance, StoreError> {
        let store = Store::open_read_only(store)?;
        let mut rows = Vec::new();
        let mut unreadable = 0;
        for row in store.hits(HitFilter::default()) {
            match row {
                Ok(row) => rows.push(row.hit),
                Err(error @ StoreError::Damaged { .. }) => {
                    unreadable += 1;
                    eprintln!("{error}");
                }
                Err(error) => return Err(error),
            }
        }
        let mut balance = self.compare(rows.iter(), given_up);
        balance.corrupt += unreadable;
        Ok(balance)
    }

    /// Compares with these hits, of which `given_up` may be missing.
    pub fn compare<'h>(mut self, hits: impl Iterator<Item = &'h HitV1>, given_up: u64) -> Balance {
        let mut balance = Balance::default();
        for hit in hits {
            match name_in(hit).and_then(|name| self.scripts.get_mut(&name)) {
                Some(owed) if owed.script.is(hit) => owed.found += 1,
                _ => {
                    balance.corrupt += 1;
                    balance.example(format_args!("corrupt: {hit:?}"));
                }
            }
        }
        let mut missing = 0;
        for (name, owed) in &self.scripts {
            if owed.is_due {
                balance.sent += 1;
                balance.stored += owed.found.min(1);
                if owed.found == 0 {
                    missing += 1;
                    balance.example(format_args!("lost: {name}"));
                }
            }
            if owed.found > 1 {
                balance.doubled += 1;
                balance.example(format_args!("stored {} times: {name}", owed.found));
            }
        }
        balance.lost = u64::saturating_sub(missing, given_up);
        balance
    }
}

impl Balance {
    /// Returns whether everything that was sent is stored once and unchanged.
    pub fn is_even(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.corrupt == 0
    }

    fn example(&mut self, what: fmt::Arguments<'_>) {
        if self.examples.len() < EXAMPLES_MAX {
            let mut text = what.to_string();
            text.truncate(text.floor_char_boundary(200));
            self.examples.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Batch};
    use crate::faults::rng::Rng;
    use etwsieve_transport::hit::HitV1;

    #[test]
    fn each_kind_of_error_is_counted() {
        let batch = Batch::new("b", 4, 50..200, &mut Rng::new(1));
        let hits = batch.hits();
        let mut account = Account::default();
        account.offer(&batch);
        account.due(&batch);
        let mut garbled = hits[3].clone();
        garbled.process_id = None;
        let rows: [(&str, Vec<&HitV1>, [u64; 4]); 5] = [
            ("all", hits.iter().collect(), [4, 0, 0, 0]),
            ("one lost", hits[1..].iter().collect(), [3, 1, 0, 0]),
            ("one twice", hits.iter().chain(&hits[..1]).collect(), [4, 0, 1, 0]),
            ("one garbled", hits[..3].iter().chain([&garbled]).collect(), [3, 1, 0, 1]),
            ("nothing", Vec::new(), [0, 4, 0, 0]),
        ];
        for (name, hits, expected) in rows {
            let balance = account.clone().compare(hits.into_iter(), 0);
            assert_eq!([balance.stored, balance.lost, balance.doubled, balance.corrupt], expected, "{name}");
        }
    }
}
