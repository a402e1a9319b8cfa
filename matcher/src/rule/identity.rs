//! Ids for rules that have none.
//!
//! Stores, sinks and rule updates identify rules by id. The id of a rule without one is derived from its title and what
//! it searches for, so it does not depend on the file, on the position in it, or on a reload.

use crate::yaml::{Node, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Prefix of derived ids; a UUID of version 8 (RFC 9562) follows.
pub const DERIVED_ID_PREFIX: &str = "derived-";
/// The parts of a document that identify the rule. Others describe it and may change.
const IDENTIFYING: [&str; 4] = ["title", "logsource", "detection", "etwsieve"];

/// Assigns ids to the rules of one set.
#[derive(Debug, Default)]
pub(super) struct DerivedIds {
    /// Number of rules by id, without the suffix.
    counts: HashMap<String, usize>,
}

impl DerivedIds {
    /// Returns an id for the rule in `document` that is not in use. The second of several equal rules gets the suffix
    /// `-2`, and so on.
    pub(super) fn next(&mut self, document: &Node, is_taken: impl Fn(&str) -> bool) -> String {
        let id = derived_id(document);
        let count = self.counts.entry(id.clone()).or_default();
        loop {
            *count += 1;
            let numbered = if *count == 1 { id.clone() } else { format!("{id}-{count}") };
            if !is_taken(&numbered) {
                return numbered;
            }
        }
    }
}

fn derived_id(document: &Node) -> String {
    let mut hash = Sha256::new();
    for key in IDENTIFYING {
        match document.get(key) {
            None => hash.update(b"-"),
            Some(node) => update(&mut hash, node),
        }
    }
    format!("{DERIVED_ID_PREFIX}{}", uuid_v8(&hash.finalize().into()))
}

/// Hashes the contents of a node. Quotes, comments and the order of keys make no difference.
fn update(hash: &mut Sha256, node: &Node) {
    match &node.value {
        _ if node.is_null() => hash.update(b"0"),
        Value::Scalar { text, .. } => {
            hash.update(b"s");
            update_text(hash, text.trim());
        }
        Value::List(items) => {
            hash.update(b"l");
            hash.update((items.len() as u64).to_le_bytes());
            for item in items {
                update(hash, item);
            }
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            hash.update(b"m");
            hash.update((entries.len() as u64).to_le_bytes());
            for (key, value) in entries {
                update_text(hash, key);
                update(hash, value);
            }
        }
    }
}

fn update_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

fn uuid_v8(hash: &[u8; 32]) -> String {
    let mut bits = hash.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    bits = bits & !(0xF << 76) | 0x8 << 76;
    bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
