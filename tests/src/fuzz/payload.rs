//! Arbitrary bytes as the payload of an event, searched with rules of every kind: the matcher equals the naive evaluator.

use super::work;
use etwsieve_matcher::{EventKind, Field, Fields, Matcher, Payload, Scratch, load, naive};
use std::cell::RefCell;

/// Rules with short needles, which random bytes are likely to contain.
const RULES: &str = "\
title: contains
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains|all: [ab, cd]}, condition: s}
---
title: glob
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText: 'a?b*c'}, f: {Path|endswith: x}, condition: s and not f}
---
title: expression
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|re|i: 'a[0-9]+b'}, condition: s}
---
title: absent
logsource: {product: windows, category: ps_script}
detection: {s: {Path: null}, n: {MessageNumber|gt: 1}, condition: s or n}
---
title: cased
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockId|contains|cased: [aB, é]}, condition: s}
---
title: keyword
logsource: {product: windows, service: powershell}
detection: {s: [ab, 'c?d'], condition: s}
---
title: module
logsource: {product: windows, category: ps_module}
detection: {s: {ContextInfo|startswith: a, Payload|contains: b}, condition: s}
";

thread_local! {
    static MATCHER: RefCell<(Matcher, Scratch)> = RefCell::new((Matcher::new(load([("fuzz.yml", RULES)]).rules), Scratch::default()));
}

/// Runs the target.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn payload(data: &[u8]) {
    // The naive evaluator is quadratic.
    let data = &data[..data.len().min(4096)];
    MATCHER.with_borrow_mut(|(matcher, scratch)| {
        assert_eq!(matcher.rules().len(), 7, "the rules load");
        for kind in EventKind::ALL {
            let fields = Fields::split(kind, data);
            let mut end = 0;
            for &field in kind.text_fields() {
                let Some(range) = fields.range(field) else { continue };
                assert!(range.start >= end && range.end >= range.start, "fields are in order");
                assert!(kind.text_offset() + 2 * range.end <= data.len(), "a field lies inside the payload");
                assert_eq!(fields.text(field).map(<[u8]>::len), Some(2 * range.len()));
                end = range.end;
            }
            assert_eq!(
                fields.number(Field::MessageNumber).is_some(),
                kind == EventKind::ScriptBlock && data.len() >= 4
            );
            let payload = Payload { kind, process_id: None, bytes: data };
            let before = scratch.counts().steps;
            let found = matcher.find(&payload, scratch).to_vec();
            work::assert_raw_bounded(scratch.counts().steps - before, data.len());
            let plain: Vec<u32> = (0..)
                .zip(matcher.rules())
                .filter(|(_, rule)| naive::matches(rule, kind, data))
                .map(|(at, _)| at)
                .collect();
            assert_eq!(found, plain, "the matcher equals the naive evaluator");
        }
    });
}
