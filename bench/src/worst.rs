//! Compares the cost of the most expensive scripts with that of an ordinary one, in steps of their budgets.
//!
//! Steps are counted, not timed, so the figures are the same on every machine. Running the command under callgrind, as
//! described in `bench/README.md`, shows that a step takes a bounded number of instructions.

mod scripts;

pub use scripts::{KINDS, Kind, ordinary};

use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, Views};

/// Length of the ordinary script that all others are compared with, in UTF-16 units.
pub const ORDINARY_UNITS: usize = 20_000;
/// Maximum cost of a script relative to the ordinary one.
pub const RATIO_MAX: f64 = 50.0;
/// Lengths of the scripts in units: a short one, a usual one, the longest in a single event, and a joined block.
pub const SIZES: [usize; 4] = [100, ORDINARY_UNITS, 65_000, 2 << 20];

/// The cost of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// UTF-16 units of the script.
    pub units: usize,
    /// Steps of the candidates' programs on the text as recorded, and of all views.
    pub steps: u64,
    /// Bytes that the views allocated, including freed ones.
    pub bytes: u64,
    /// True if the views were cut short.
    pub is_cut: bool,
    /// Rules that a view matched.
    pub found: usize,
}

/// Searches a script as the sensor does: as recorded, then in the views that could differ.
///
/// Never inlined, so that callgrind can count its instructions separately.
#[inline(never)]
pub fn cost(matcher: &Matcher, script: &str, scratch: &mut Scratch) -> Cost {
    let bytes = payload(script);
    search(matcher, &bytes, script.encode_utf16().count(), scratch)
}

#[inline(never)]
fn search(matcher: &Matcher, bytes: &[u8], units: usize, scratch: &mut Scratch) -> Cost {
    let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
    let before = scratch.counts().steps;
    let raw = matcher.find(&payload, scratch).to_vec();
    let mut budget = ViewBudget::new(bytes.len());
    let mut found = 0;
    if matcher.views_could_differ_from_raw(&payload, Views::ALL, scratch, &mut budget) {
        found = matcher.find_views(&payload, Views::ALL, &raw, scratch, &mut budget).len();
    }
    let steps = scratch.counts().steps - before + budget.steps();
    Cost { units, steps, bytes: budget.bytes(), is_cut: budget.is_cut(), found }
}

/// Returns the payload of the script's event.
fn payload(script: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
    let behind = "\u{0}339311ba-d4cc-4a10-b04e-417ef95bc8b6\0\0";
    bytes.extend(script.encode_utf16().chain(behind.encode_utf16()).flat_map(u16::to_le_bytes));
    bytes
}
