//! `rsigma-eval`, a Sigma engine for decoded events. Only its evaluation is measured; its events are decoded beforehand.

use super::Contestant;
use crate::answer::Pair;
use crate::error::BenchError;
use crate::rules::RuleSet;
use crate::workload::{Part, Workload};
use etwsieve_matcher::{EventKind, Field, Fields};
use rsigma_eval::Engine;
use rsigma_eval::event::JsonEvent;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields of an event, with their names in rules.
const FIELDS: [(&str, Field); 3] = [
    ("ScriptBlockText", Field::ScriptBlockText),
    ("ScriptBlockId", Field::ScriptBlockId),
    ("Path", Field::Path),
];

/// Maximum work of one pass, in payload bytes times rules.
const WORK_MAX: u64 = 512 << 20;
/// Minimum number of rules that the work is computed with, since decoding takes time even for a few rules.
const RULES_MIN: usize = 64;

pub(super) struct SigmaEngine<'a> {
    engine: Engine,
    part: Part,
    events: Vec<(u32, Value)>,
    by_id: HashMap<&'a str, u32>,
}

impl<'a> SigmaEngine<'a> {
    pub(super) fn new(workload: &Workload, rules: &'a RuleSet) -> Result<Self, BenchError> {
        let mut engine = Engine::new();
        for text in &rules.texts {
            let collection = rsigma_parser::parse_sigma_yaml(text)
                .map_err(|error| BenchError::Rules(format!("rsigma-parser: {error}")))?;
            engine
                .add_collection(&collection)
                .map_err(|error| BenchError::Rules(format!("rsigma-eval: {error}")))?;
        }
        let part = Part::of(workload, WORK_MAX / rules.rules.len().max(RULES_MIN) as u64);
        let events = workload.part(part).map(|(number, payload)| (number, event(payload))).collect();
        Ok(Self { engine, part, events, by_id: rules.by_id() })
    }
}

/// Returns the event in the form of the engine: decoded text fields.
pub(crate) fn event(payload: &[u8]) -> Value {
    let fields = Fields::split(EventKind::ScriptBlock, payload);
    let text = |field| {
        let units = fields.text(field)?.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
        Some(Value::String(
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
        ))
    };
    let present = FIELDS.into_iter().filter_map(|(name, field)| Some((name.to_owned(), text(field)?)));
    Value::Object(present.collect::<Map<_, _>>())
}

impl Contestant for SigmaEngine<'_> {
    fn name(&self) -> String {
        "rsigma-eval".into()
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (number, event) in &self.events {
            for result in self.engine.evaluate(&JsonEvent::borrow(event)) {
                // A match of an unknown rule is a wrong answer.
                let id = result.header.rule_id.as_deref().unwrap_or_default();
                found((*number, self.by_id.get(id).copied().unwrap_or(u32::MAX)));
            }
        }
    }
}
