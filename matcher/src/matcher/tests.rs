use super::{Matcher, Scratch};
use crate::engine::cost::CostMeter;
use crate::field::EventKind;
use crate::matcher::repeats::Repeats;
use crate::payload::Payload;
use crate::scan::kernel::Kernel;
use crate::testing::compile;
use crate::{Rule, load, naive};
use std::sync::atomic::{AtomicU64, Ordering};

const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

fn payload(text: &str, path: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 2, 0, 0, 0];
    bytes.extend(format!("{text}\0{ID}\0{path}\0").encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

fn rule(detection: &str) -> Vec<Rule> {
    let text = format!(
        "title: t\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n{detection}  condition: 1 of s*\n"
    );
    let loaded = load([("test.yml", text.as_str())]);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.rules
}

fn contains(values: &[&str]) -> Vec<Rule> {
    rule(&format!("  s:\n    ScriptBlockText|contains:\n{}", list(values)))
}

fn list(values: &[&str]) -> String {
    values.iter().flat_map(|value| ["      - '", value, "'\n"]).collect()
}

/// Returns rule sets for every method of the gate: without needles, with one, a few, single bytes, and many; and for
/// other fields.
fn rule_sets() -> Vec<Vec<Rule>> {
    let many: Vec<Rule> =
        (0..200).flat_map(|n| contains(&[&format!("word{n:03}x"), &format!("w{n}")])).collect();
    vec![
        Vec::new(),
        contains(&["word007x"]),
        contains(&["word007x", "WORD008", "abc"]),
        contains(&["%", "w1"]),
        many,
        rule("  s:\n    Path|endswith: '.ps1'\n"),
        rule("  s:\n    MessageNumber|gt: 0\n"),
        rule("  s1:\n    ScriptBlockText|re: 'word0\\d+x'\n  s2:\n    ScriptBlockId|startswith: '339'\n"),
        rule("  s:\n    - 'word007'\n"),
    ]
}

fn texts() -> Vec<Vec<u8>> {
    let texts = ["", "WORD007X", "harmless", "abc % w1", "word199x w3 w45", "\u{e9} Word008 word012x"];
    let paths = ["", "C:\\word007.PS1"];
    let all = texts.iter().flat_map(|text| paths.map(|path| payload(text, path)));
    all.chain([Vec::new(), vec![1; 9]]).collect()
}

fn naive(rules: &[Rule], kind: EventKind, bytes: &[u8]) -> Vec<u32> {
    (0..).zip(rules).filter(|(_, rule)| naive::matches(rule, kind, bytes)).map(|(at, _)| at).collect()
}

/// A scratch is passed from matcher to matcher, as after a reload of rules, and never returns results of another one.
#[test]
fn a_scratch_can_be_used_with_any_matcher() {
    let sets = rule_sets();
    for kernel in Kernel::available() {
        for repeats in [Repeats::Never, Repeats::Auto, Repeats::Always] {
            let of = |rules: &Vec<Rule>| Matcher::with_kernel(rules.clone(), kernel).with_repeats(repeats);
            let matchers: Vec<Matcher> = sets.iter().map(of).collect();
            let mut scratch = Scratch::default();
            // Each matcher meets what every other one has left, and the same text several times.
            for turn in 0..3 * matchers.len() {
                for step in 0..matchers.len() {
                    let matcher = &matchers[(turn * (step + 1) + step) % matchers.len()];
                    for bytes in texts() {
                        for kind in EventKind::ALL {
                            let payload = Payload { kind, process_id: None, bytes: &bytes };
                            let found = matcher.find(&payload, &mut scratch).to_vec();
                            assert_eq!(found, naive(matcher.rules(), kind, &bytes), "{kernel} {repeats:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn repeats_are_recognised_by_the_fields_that_rules_read() {
    let matcher = compile(contains(&["evil"])).with_repeats(Repeats::Always);
    let mut scratch = Scratch::default();
    let mut find = |bytes: &[u8]| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let found = matcher.find(&payload, &mut scratch).len();
        (found, scratch.counts().repeat_hits, scratch.counts().repeat_misses)
    };
    let first = payload("harmless", "p");
    let mut other_id = first.clone();
    other_id[8 + 2 * "harmless".len() + 2] = b'4';
    other_id[0] = 2;
    assert_eq!(find(&first), (0, 0, 1));
    assert_eq!(find(&other_id), (0, 1, 1), "neither id nor number is read");
    assert_eq!(find(&payload("harmless", "q")), (0, 2, 1), "no rule reads the path");
    assert_eq!(find(&payload("harmles", "sp")), (0, 2, 2));
    assert_eq!(find(&payload("evil", "p")), (1, 2, 3));
    assert_eq!(find(&payload("evil", "p")), (1, 2, 4), "what matches is searched each time");
}

#[test]
fn other_fields_matter_if_rules_read_them() {
    let rows = [
        ("Path|contains: evil", payload("t", "p"), payload("t", "evil")),
        ("ScriptBlockId|contains: '439311ba'", payload("t", "p"), {
            let mut bytes = payload("t", "p");
            bytes[12] = b'4';
            bytes
        }),
        ("MessageNumber: 2", payload("t", "p"), {
            let mut bytes = payload("t", "p");
            bytes[0] = 2;
            bytes
        }),
        ("Path|exists: false", payload("t", "p"), payload("t", "")[..8 + 2 * 39].to_vec()),
    ];
    for (detection, harmless, evil) in rows {
        let matcher = compile(rule(&format!("  s:\n    {detection}\n"))).with_repeats(Repeats::Always);
        let mut scratch = Scratch::default();
        for (bytes, expected) in [(&harmless, 0), (&evil, 1), (&harmless, 0), (&evil, 1)] {
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
            assert_eq!(matcher.find(&payload, &mut scratch).len(), expected, "{detection}");
        }
        assert_eq!(scratch.counts().repeat_hits, 1, "{detection}");
    }
}

/// Repeats are not looked up in a stream without any, and are again when some appear.
#[test]
fn looking_up_repeats_pauses_without_success() {
    let many: Vec<Rule> = (0..200).flat_map(|n| contains(&[&format!("word{n:03}x")])).collect();
    let matcher = compile(many);
    let mut scratch = Scratch::default();
    let mut find = |bytes: &[u8]| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        assert!(matcher.find(&payload, &mut scratch).is_empty());
        scratch.counts()
    };
    for n in 0..20_000 {
        find(&payload(&n.to_string(), ""));
    }
    let before = find(&payload("x", ""));
    assert!(before.repeat_misses < 5_000, "{before:?}");
    for _ in 0..20_000 {
        find(&payload("the same", ""));
    }
    let after = find(&payload("the same", ""));
    assert!(after.repeat_hits > 10_000, "{after:?}");
}

#[test]
fn costs_are_attributed_to_rules() {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    let mut rules = contains(&["word007x"]);
    rules.extend(rule("  s:\n    ScriptBlockText|contains|all:\n      - word008\n      - abc\n"));
    let matcher = compile(rules);
    let mut meter = CostMeter::new(2, || TICKS.fetch_add(1, Ordering::Relaxed));
    let mut scratch = Scratch::default();
    for text in ["word007x", "word008", "word008 abc", "harmless"] {
        let bytes = payload(text, "");
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
        let metered = matcher.find_metered(&payload, &mut scratch, &mut meter).to_vec();
        assert_eq!(metered, matcher.find(&payload, &mut scratch));
    }
    let [first, second] = meter.rules() else { panic!("two rules") };
    assert_eq!((first.candidates, first.matches), (1, 1));
    assert_eq!((second.candidates, second.matches), (2, 1));
    assert!((meter.share(0) - 1.0 / 3.0).abs() < 1e-9 && meter.rule_ticks() == 3 && meter.gate_ticks() == 4);
}
