//! Hits as JSON at the limits of time, and the identities of their detections.

mod common;

use common::{hit, rule};
use etwsieve_transport::hit::{EventIdentity, HitV1, RuleRefV1, SpanV1};
use etwsieve_transport::output::{ecs, jsonl, splunk};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Before 1970 the whole number of seconds is negative, and no year has five digits.
#[test]
fn times_are_correct_over_the_whole_range() {
    let rows = [
        (0, "1601-01-01T00:00:00.0000000Z", "-11644473600.0000000"),
        (116_444_735_989_999_999, "1969-12-31T23:59:58.9999999Z", "-1.0000001"),
        (116_444_735_999_999_999, "1969-12-31T23:59:59.9999999Z", "-0.0000001"),
        (116_444_736_000_000_000, "1970-01-01T00:00:00.0000000Z", "0.0000000"),
        (116_444_736_000_000_001, "1970-01-01T00:00:00.0000001Z", "0.0000001"),
        (2_650_467_743_999_999_999, "9999-12-31T23:59:59.9999999Z", "253402300799.9999999"),
        (2_650_467_744_000_000_000, "9999-12-31T23:59:59.9999999Z", "253402300799.9999999"),
        (u64::MAX, "9999-12-31T23:59:59.9999999Z", "253402300799.9999999"),
    ];
    for (time, text, seconds) in rows {
        let hit = HitV1 { time, ..hit(1) };
        let rule = &hit.rules[0];
        let line = serde_json::to_value(jsonl::Line::new(&hit, rule)).unwrap();
        let (ecs, splunk) = (ecs::document(&hit, rule), splunk::event(&hit, rule));
        assert_eq!((&line["time"], &ecs["@timestamp"]), (&json!(text), &json!(text)), "{time}");
        assert_eq!(splunk["time"], seconds, "{time}");
        let clamped = if time > 2_650_467_743_999_999_999 { json!(["time"]) } else { Value::Null };
        for found in [&line["clamped"], &ecs["etwsieve"]["clamped"], &splunk["event"]["clamped"]] {
            assert_eq!(*found, clamped, "{time}");
        }
    }
}

#[test]
fn detections_of_an_event_have_different_identities() {
    let event = EventIdentity::of(&hit(1)).unwrap();
    let span = |start| SpanV1 { text: 0, start, len: 3 };
    let rules = [
        rule("a", "T"),
        rule("b", "T"),
        rule("a", "U"),
        rule("", "T"),
        RuleRefV1 { level: "low".into(), ..rule("", "T") },
        RuleRefV1 { attack: vec![], ..rule("", "T") },
        RuleRefV1 { spans: vec![span(0)], ..rule("", "T") },
        RuleRefV1 { spans: vec![span(1)], ..rule("", "T") },
    ];
    let identities: HashSet<_> = rules.iter().map(|rule| event.with_rule(rule)).collect();
    assert_eq!(identities.len(), rules.len());
    // A rule with an id has the same identity whatever it matched and whatever its level is.
    let changed = RuleRefV1 { level: "low".into(), spans: vec![span(0)], ..rule("a", "T") };
    assert_eq!(event.with_rule(&changed), event.with_rule(&rule("a", "T")));
}
