//! Synthetic script blocks: two prepared payloads, in which each event replaces the number.

use crate::writer::{module_logging, script_block};

/// Minimum length of the text in units: the number and the needles.
const UNITS_MIN: usize = 64;
const DIGITS: usize = 12;
/// Bytes before the text of a 4104: two numbers.
const TEXT_AT: usize = 8;
const PREFIX: &str = "# ";
const HIT: &str = " Enter-PSSession -ComputerName srv; ";
const FILLER: &str = "Get-ChildItem C:\\Logs | Sort-Object Length; ";
const ID_PREFIX: &str = "5e1ec7ed-0000-4000-8000-";

/// Number and properties of the script blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// Number of events.
    pub count: u64,
    /// UTF-16 units of the script text, at least 64 and at most 32,000.
    pub units: usize,
    /// The text of every `every`-th event contains `Enter-PSSession -ComputerName srv`; 0 for no event.
    pub every: u64,
    /// Event id: 4103 puts the text into its Payload field, all others have the layout of 4104.
    pub event_id: u16,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { count: 0, units: 250, every: 1000, event_id: 4104 }
    }
}

impl Synthetic {
    /// Number of hits in the first `count` events.
    pub fn hits(&self, count: u64) -> u64 {
        count.checked_div(self.every).unwrap_or(0)
    }
}

/// The prepared payloads.
#[derive(Debug)]
pub(super) struct Prepared {
    every: u64,
    plain: Patchable,
    hit: Patchable,
}

#[derive(Debug)]
struct Patchable {
    payload: Vec<u8>,
    /// Offsets of the numbers, which have twelve digits in UTF-16LE.
    numbers_at: Vec<usize>,
}

impl Prepared {
    pub(super) fn new(synthetic: &Synthetic) -> Self {
        let units = synthetic.units.clamp(UNITS_MIN, 32_000);
        let make = |lead: &str| Patchable::new(synthetic.event_id, lead, units);
        Self { every: synthetic.every, plain: make(" "), hit: make(HIT) }
    }

    /// Returns the payload of the event with this number, from 1.
    pub(super) fn payload(&mut self, number: u64) -> &[u8] {
        let is_hit = self.every != 0 && number.is_multiple_of(self.every);
        let patchable = if is_hit { &mut self.hit } else { &mut self.plain };
        let mut digits = [0; 2 * DIGITS];
        let mut rest = number;
        for digit in digits.as_chunks_mut::<2>().0.iter_mut().rev() {
            digit[0] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        for &at in &patchable.numbers_at {
            patchable.payload[at..at + digits.len()].copy_from_slice(&digits);
        }
        &patchable.payload
    }
}

impl Patchable {
    fn new(event_id: u16, lead: &str, units: usize) -> Self {
        let zeros = "0".repeat(DIGITS);
        let mut text = format!("{PREFIX}{zeros}{lead}");
        text.extend(FILLER.chars().cycle().take(units - text.len()));
        if event_id == 4103 {
            let context = "        Severity = Informational\r\n";
            let payload = module_logging(context, "", text.as_str());
            let at = 2 * (context.len() + 1 + 1 + PREFIX.len());
            return Self { payload, numbers_at: vec![at] };
        }
        let payload = script_block(1, 1, text.as_str(), &format!("{ID_PREFIX}{zeros}"), None);
        let text_at = TEXT_AT + 2 * PREFIX.len();
        let id_at = TEXT_AT + 2 * (units + 1 + ID_PREFIX.len());
        Self { payload, numbers_at: vec![text_at, id_at] }
    }
}

#[cfg(test)]
mod tests {
    use super::{Prepared, Synthetic};

    fn text(payload: &[u8], at: usize) -> String {
        let units: Vec<u16> =
            payload[at..].as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        String::from_utf16(&units).unwrap()
    }

    #[test]
    fn numbers_and_hits_are_where_they_should_be() {
        let synthetic = Synthetic { count: 100, units: 250, every: 10, event_id: 4104 };
        let mut prepared = Prepared::new(&synthetic);
        for number in 1..=100 {
            let payload = prepared.payload(number);
            let all = text(payload, 8);
            let [script, id, path, rest] = all.split('\0').collect::<Vec<_>>()[..] else { panic!("{all:?}") };
            assert_eq!(script.len(), 250);
            assert!(script.starts_with(&format!("# {number:012} ")), "{script}");
            assert_eq!(script.contains("Enter-PSSession -ComputerName srv"), number % 10 == 0);
            assert_eq!(id, format!("5e1ec7ed-0000-4000-8000-{number:012}"));
            assert_eq!((path, rest), ("", ""));
        }
        assert_eq!(synthetic.hits(100), 10);
    }

    #[test]
    fn module_logging_holds_the_number() {
        let synthetic = Synthetic { event_id: 4103, every: 0, units: 0, count: 9 };
        let mut prepared = Prepared::new(&synthetic);
        let all = text(prepared.payload(7), 0);
        assert!(all.split('\0').nth(2).unwrap().starts_with("# 000000000007 "), "{all:?}");
        assert_eq!(synthetic.hits(9), 0);
    }
}
