//! What one writes first: decode the text to a `String`, lower its case, look for both needles. Built-in rule only.
//!
//! It knows nothing of the matcher, so its verdicts are also the answer that is owed.

use super::Contestant;
use crate::answer::Pair;
use crate::workload::Workload;

/// Offset in bytes of the text of event 4104.
const TEXT_OFFSET: usize = 8;

/// Decodes every text.
pub struct Decode<'a> {
    workload: &'a Workload,
}

impl<'a> Decode<'a> {
    /// Takes part on this workload.
    pub fn new(workload: &'a Workload) -> Self {
        Self { workload }
    }
}

/// Whether the built-in rule matches this payload of event 4104: the text before the first NUL is taken.
pub fn is_hit(payload: &[u8]) -> bool {
    let text = payload.get(TEXT_OFFSET..).unwrap_or_default();
    let units = text.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    let decoded: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let lowered = decoded.to_lowercase();
    lowered.contains("enter-pssession") && lowered.contains("-computername")
}

impl Contestant for Decode<'_> {
    fn name(&self) -> &'static str {
        "decode-lowercase-contains"
    }

    fn events(&self) -> usize {
        self.workload.len()
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.payloads() {
            if is_hit(payload) {
                found((event, 0));
            }
        }
    }
}
