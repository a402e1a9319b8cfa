//! Arbitrary text as a script, in every view: matches are in the text, and the prefilter hides none.

use super::work;
use etwsieve_matcher::{EventKind, Field, Matcher, Payload, Scratch, ViewBudget, Views, builtin, load};
use std::cell::RefCell;

/// Rules with short needles, which random texts are likely to contain.
const RULES: &str = "\
title: contains
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains|all: [ab, cd]}, condition: s}
---
title: blank
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains: 'a b'}, f: {ScriptBlockText|contains: xx}, condition: s and not f}
---
title: calls
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains: New-PSSession -ComputerName}, condition: s}
etwsieve: {calls: also}
";

/// Follows the script in the payload: id and path.
const BEHIND: &str = "\0id\0p\0";

thread_local! {
    static MATCHERS: RefCell<([Matcher; 2], Scratch)> = RefCell::new((
        [Matcher::new(load([("fuzz.yml", RULES)]).rules), Matcher::new(builtin::rules())],
        Scratch::default(),
    ));
}

/// Returns the payload of a script. Each byte is the low half of a unit; 0xFF starts a complete unit.
pub(super) fn script(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
    let mut rest = data;
    loop {
        match rest {
            [0xFF, low, high, behind @ ..] => {
                bytes.extend([*low, *high]);
                rest = behind;
            }
            [low, behind @ ..] => {
                bytes.extend([*low, 0]);
                rest = behind;
            }
            [] => break,
        }
    }
    bytes.extend(BEHIND.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

/// Runs the target.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn views(data: &[u8]) {
    let bytes = script(data);
    let end = bytes.len() - 2 * BEHIND.len();
    let units = bytes[8..end].as_chunks().0;
    MATCHERS.with_borrow_mut(|(matchers, scratch)| {
        for matcher in matchers {
            assert!(matcher.rules().len() > 1, "the rules load");
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
            let raw = matcher.find(&payload, scratch).to_vec();
            let mut budget = ViewBudget::new(bytes.len());
            let found = matcher.find_views(&payload, Views::ALL, &raw, scratch, &mut budget);
            work::assert_bounded(&budget, bytes.len());
            for found in &found {
                assert!(!raw.contains(&found.rule), "what is reported is not tried again");
                assert!(!found.transformations.is_empty(), "something was undone");
                for span in found.spans.iter().filter(|span| span.field == Field::ScriptBlockText) {
                    assert!(span.units.start < span.units.end && span.units.end <= units.len(), "{span:?}");
                }
            }
            let mut budget = ViewBudget::new(bytes.len());
            let could = matcher.views_could_differ(EventKind::ScriptBlock, units, Views::ALL, &mut budget);
            work::assert_bounded(&budget, bytes.len());
            assert!(could || found.is_empty(), "the cheap test hides nothing");
        }
    });
}
