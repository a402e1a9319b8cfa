//! The output of one hit is bounded.

use crate::common;
use crate::feed::{MemoryFeed, config, drain};
use etwsieve_collector::sink::SinkItem;
use etwsieve_transport::hit::{EventContent, RuleRefV1, Utf16Text};
use etwsieve_transport::wire::codec::encode_hit;

/// Returns a hit of an event 4104 with this text and a number of empty rules.
pub(crate) fn hostile(text: Utf16Text, rules: usize) -> SinkItem {
    let mut hit = common::hit(1);
    if let EventContent::ScriptBlock { text: script, .. } = &mut hit.content {
        *script = text;
    }
    hit.rules = (0..rules).map(|n| RuleRefV1 { id: format!("r{n}"), ..RuleRefV1::default() }).collect();
    SinkItem { sensor: "srv1.example.test".into(), epoch: [7; 16], sequence: 1, hit, rules_before: 0 }
}

#[test]
fn the_output_is_bounded_by_the_length_of_the_hit() {
    // A hit of 61 KB, and the longest possible one.
    for (units, rules) in [(16_000, 550), (128 * 1024, 4096)] {
        let folder = tempfile::tempdir().unwrap();
        let item = hostile(Utf16Text(vec![1; units]), rules);
        let encoded = encode_hit(&item.hit).unwrap().len() as u64;
        let feed = MemoryFeed::of(vec![item]);
        let counts = drain(&config("type = \"jsonl\"\npath = \"hits.jsonl\""), folder.path(), &feed);
        assert_eq!(counts.delivered, 1);
        let path = folder.path().join("hits.jsonl");
        let len = std::fs::metadata(&path).unwrap().len();
        println!("{encoded} bytes of a hit with {rules} rules became {len}");
        assert!(len < 40 * encoded, "{len} bytes of {encoded}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), rules, "every rule has its record");
    }
}

#[test]
fn a_hit_without_rules_is_delivered() {
    for format in ["jsonl", "ecs", "splunk"] {
        let folder = tempfile::tempdir().unwrap();
        let feed = MemoryFeed::of(vec![hostile("x".into(), 0)]);
        let sink = config(&format!("type = \"jsonl\"\npath = \"hits.jsonl\"\nformat = \"{format}\""));
        drain(&sink, folder.path(), &feed);
        let text = std::fs::read_to_string(folder.path().join("hits.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1, "{format}");
    }
}
