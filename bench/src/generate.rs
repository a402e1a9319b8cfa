//! Generates traces of script blocks that are the same on every machine, for use without the recorded corpus.

use crate::answer::mix;
use crate::snippets::SNIPPETS;
use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block};
use std::fmt::Write;

/// Script blocks that a server with repeats compiles over and over.
const REPEATED_BLOCKS: u64 = 300;
/// In traces with repeats, one of this many events has a block that occurs only once.
const SINGLE_EVERY: u64 = 20;
/// One of this many events matches the built-in rule.
const HIT_EVERY: u64 = 200;
/// One of this many events contains only one of the rule's two needles.
const NEAR_HIT_EVERY: u64 = 50;
/// Time between two events, in ticks of 100 ns.
const TICKS_APART: u64 = 2_000;
const PROCESSORS: u16 = 4;

/// The properties of a generated trace.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of events.
    pub events: u64,
    /// Minimum and maximum length of the script text in UTF-16 units; lengths are log-uniform.
    pub text_units: (u32, u32),
    /// True if most events repeat one of a few hundred blocks.
    pub repeats: bool,
}

/// A generated trace.
#[derive(Debug)]
pub struct Generated {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Indices of the events that match the built-in rule.
    pub hits: Vec<u32>,
}

/// Writes a trace of this shape.
pub fn generate(shape: Shape) -> Generated {
    let mut writer = TraceWriter::new().processors(u32::from(PROCESSORS));
    let mut hits = Vec::new();
    for event in 0..shape.events {
        let block = if shape.repeats && event % SINGLE_EVERY != 0 {
            mix(event) % REPEATED_BLOCKS
        } else {
            REPEATED_BLOCKS + event
        };
        // The text of a block depends only on its number; the text before it depends on the event.
        let mut random = Random(block);
        let mut text = String::new();
        if event % HIT_EVERY == HIT_EVERY / 2 {
            hits.push(event as u32);
            text.push_str("enter-PSSession -Credential $c -ComputerNAME web07\r\n");
        } else if event % NEAR_HIT_EVERY == 0 {
            text.push_str("Enter-PSSession -Id 4\r\n");
        } else if event % NEAR_HIT_EVERY == 1 {
            text.push_str("Test-Connection -ComputerName web07 -Count 1\r\n");
        }
        let (shortest, longest) = (f64::from(shape.text_units.0), f64::from(shape.text_units.1));
        let units = shortest * (longest / shortest).powf(random.fraction());
        while (text.len() as f64) < units {
            random.snippet(&mut text);
        }
        let id = format!("{:08x}-5e1e-4c7e-8d00-{:012x}", event, mix(event) >> 16);
        let process = 1_000 + (block % 40) as u32 * 4;
        let payload = script_block(1, 1, text.as_str(), &id, None);
        let event =
            EventSpec::powershell(4104, payload).at((event + 1) * TICKS_APART).by(process, process + 8);
        writer.push(event.on((block % u64::from(PROCESSORS)) as u16));
    }
    Generated { bytes: writer.build(), hits }
}

/// The random number generator SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Returns a number that is at least 0 and less than 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn snippet(&mut self, out: &mut String) {
        let snippet = SNIPPETS[(self.next() % SNIPPETS.len() as u64) as usize];
        let numbers = [self.next() % 900 + 7, self.next() % 90 + 3];
        let mut rest = snippet;
        while let Some(at) = rest.find('@') {
            let (before, behind) = rest.split_at(at);
            out.push_str(before);
            let number = match behind.as_bytes().get(1) {
                Some(b'1') => Some(numbers[0]),
                Some(b'2') => Some(numbers[1]),
                _ => None,
            };
            // Writing to a string cannot fail.
            let _ = match number {
                Some(number) => write!(out, "{number}"),
                None => write!(out, "@"),
            };
            rest = &behind[if number.is_some() { 2 } else { 1 }..];
        }
        out.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, generate};
    use crate::snippets::SNIPPETS;
    use etwsieve_etl::Trace;

    #[test]
    fn snippets_hold_no_needle() {
        for snippet in SNIPPETS {
            let text = snippet.to_lowercase();
            assert!(!text.contains("enter-pssession") && !text.contains("-computername"), "{snippet}");
        }
    }

    #[test]
    fn traces_are_of_their_shape() {
        for repeats in [false, true] {
            let shape = Shape { events: 700, text_units: (60, 9_000), repeats };
            let generated = generate(shape);
            assert_eq!(generated.bytes, generate(shape).bytes, "the same every time");
            assert_eq!(generated.hits, [100, 300, 500]);
            let trace = Trace::new(&generated.bytes).unwrap();
            let mut events = trace.events();
            let mut texts = std::collections::HashSet::new();
            let mut count = 0;
            while let Some(event) = events.next() {
                if event.event_id != Some(4104) {
                    continue;
                }
                let end = event.payload.len() - 2 * 38;
                texts.insert(event.payload[8..end].to_vec());
                count += 1;
            }
            assert_eq!((count, events.damage().total()), (700, 0));
            assert_eq!(texts.len() > 600, !repeats, "{} texts", texts.len());
        }
    }
}
