//! Arbitrary text as a rule file: it loads or is rejected with a line number, and loaded rules equal the naive evaluator.

use super::work;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, file_bytes_max, file_steps_max, load, naive};

/// Maximum number of tests in a rule for the naive evaluator. Larger rules load, but take too long.
const TESTS_MAX: usize = 500;

/// Runs the target.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn rule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let loaded = load([("fuzz.yml", &*text)]);
    // Work and memory are bounded by the length of the file.
    assert!(loaded.steps <= file_steps_max(text.len()), "{} steps for {} bytes", loaded.steps, text.len());
    assert!(loaded.bytes <= file_bytes_max(text.len()), "{} bytes for {} bytes", loaded.bytes, text.len());
    let own: usize = loaded.rules.iter().map(|rule| rule.expr.memory()).sum();
    assert!(own as u64 <= loaded.bytes, "{own} bytes were charged as {}", loaded.bytes);
    // A carriage return alone ends a line in YAML.
    let lines = text.matches(['\n', '\r']).count() + 2;
    for error in loaded.errors.iter().chain(&loaded.warnings) {
        assert!((1..=lines).contains(&error.line), "line {} of {lines}: {error}", error.line);
        assert!(error.to_string().starts_with("fuzz.yml:"));
    }
    let tests: usize = loaded.rules.iter().map(|rule| rule.expr.count_tests()).sum();
    if tests > TESTS_MAX {
        return;
    }
    let tests = tests as u64;
    let matcher = Matcher::new(loaded.rules);
    let mut scratch = Scratch::default();
    // The text of the rule is likely to match it.
    let script: String = text.chars().take(512).collect();
    for kind in EventKind::ALL {
        let mut bytes = vec![1; kind.text_offset()];
        bytes.extend(format!("{script}\0id\0{script}\0").encode_utf16().flat_map(u16::to_le_bytes));
        let before = scratch.counts().steps;
        let found = matcher.find(&Payload { kind, process_id: None, bytes: &bytes }, &mut scratch).to_vec();
        // Each rule may have its own literals and expressions.
        let tests = tests.max(1);
        work::assert_raw_bounded((scratch.counts().steps - before) / tests, bytes.len());
        let plain: Vec<u32> = (0..)
            .zip(matcher.rules())
            .filter(|(_, rule)| naive::matches(rule, kind, &bytes))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(found, plain, "the matcher equals the naive evaluator");
    }
}
