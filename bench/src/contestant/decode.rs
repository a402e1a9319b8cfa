//! The obvious implementation: decode the text to a `String`, convert it to lower case, search for the needles. For rules of
//! plain needles only.
//!
//! It does not use the matcher, so its verdicts also serve as the expected ones.

use super::Contestant;
use crate::answer::Pair;
use crate::workload::{Part, Workload, text_of};

/// Maximum number of payload bytes in one pass.
const BYTES_MAX: u64 = 64 << 20;

/// Decodes every text.
pub struct Decode<'a> {
    workload: &'a Workload,
    part: Part,
    needles: &'a [Vec<String>],
}

impl<'a> Decode<'a> {
    /// Creates the contestant. A rule matches if all of its needles, which are in lower case, occur.
    pub fn new(workload: &'a Workload, needles: &'a [Vec<String>]) -> Self {
        Self { workload, part: Part::of(workload, BYTES_MAX), needles }
    }
}

/// Returns the text of event 4104, up to the first NUL, in lower case.
pub fn lowered(payload: &[u8]) -> String {
    let units = text_of(payload)
        .as_chunks()
        .0
        .iter()
        .map(|unit| u16::from_le_bytes(*unit))
        .take_while(|unit| *unit != 0);
    let decoded: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    decoded.to_lowercase()
}

/// Returns whether the built-in rule matches this payload of event 4104.
pub fn is_hit(payload: &[u8]) -> bool {
    let text = lowered(payload);
    text.contains("enter-pssession") && text.contains("-computername")
}

impl Contestant for Decode<'_> {
    fn name(&self) -> String {
        "decode-lowercase".into()
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.part(self.part) {
            let text = lowered(payload);
            for (rule, needles) in (0..).zip(self.needles) {
                if needles.iter().all(|needle| text.contains(needle.as_str())) {
                    found((event, rule));
                }
            }
        }
    }
}
