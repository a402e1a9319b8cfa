//! Records: the output of a sink for one rule of one hit. Each contains sensor, epoch and sequence number.

use super::SinkItem;
use super::clamp::{self, CLAMPED, FieldLimits};
use data_encoding::HEXLOWER;
use etwsieve_transport::hit::{EventIdentity, HitV1, RuleRefV1};
use etwsieve_transport::output::{ecs, jsonl, splunk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

/// The rule in the record of a hit without rules.
static NO_RULE: RuleRefV1 = RuleRefV1 {
    id: String::new(),
    title: String::new(),
    level: String::new(),
    attack: Vec::new(),
    beyond_nul: false,
    spans: Vec::new(),
    transformations: Vec::new(),
};

/// The format of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFormat {
    /// The fields of `etwsieve replay --format jsonl`, preceded by `sensor`, `epoch` and `sequence`.
    #[default]
    Jsonl,
    /// Elastic Common Schema: `agent.name`, `agent.ephemeral_id`, `event.sequence`.
    Ecs,
    /// Splunk's HTTP Event Collector: `sensor`, `sensor_epoch`, `sensor_sequence` in `event`.
    Splunk,
}

/// The record of one rule of a hit.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The original hit.
    item: &'a SinkItem,
    /// The original rule.
    rule: &'a RuleRefV1,
    shown: Shown<'a>,
    shown_rule: Cow<'a, RuleRefV1>,
    /// Names of fields whose values were clamped.
    clamped: Vec<&'static str>,
    /// The identity of the event as reported by this sensor. It is computed once per hit, because encoding the hit for
    /// each of its rules would take quadratic time.
    event: Rc<OnceCell<EventIdentity>>,
}

/// The event in a record.
#[derive(Clone, Debug)]
enum Shown<'a> {
    /// The same event as in other records of the hit.
    Shared(Rc<Cow<'a, HitV1>>),
    /// A shortened event.
    Own(Box<HitV1>),
}

impl<'a> Record<'a> {
    /// Returns the records of a hit: one for each rule, or one with an empty rule for a hit without rules.
    ///
    /// Their total length is linear in that of the encoded hit (`clamp.rs`).
    pub fn of(item: &'a SinkItem) -> impl Iterator<Item = Self> {
        let (shown, clamped) = clamp::whole(&item.hit);
        let copy_len = clamp::copy_len(&shown).max(1);
        let copies_max = clamp::copies_len_max(copy_len) / copy_len;
        let (shown, event) = (Rc::new(shown), Rc::default());
        let none = item.hit.rules.is_empty().then_some(&NO_RULE);
        item.hit.rules.iter().chain(none).enumerate().map(move |(index, rule)| {
            let is_whole = item.rules_before.saturating_add(index) <= copies_max;
            let record = Self {
                item,
                rule,
                shown: Shown::Shared(Rc::clone(&shown)),
                shown_rule: Cow::Borrowed(rule),
                clamped: clamped.clone(),
                event: Rc::clone(&event),
            };
            if is_whole { record } else { record.within(FieldLimits::EXCERPT) }
        })
    }

    /// Returns the record shortened to the limits.
    pub(super) fn within(&self, limits: FieldLimits) -> Self {
        let (hit, clamped) = clamp::event(self.hit(), &self.rule.spans, limits);
        let mut record = Self { shown: Shown::Own(Box::new(hit)), ..self.clone() };
        record.clamped.extend(clamped);
        record.shown_rule = clamp::rule(self.rule, limits, &mut record.clamped);
        record.clamped.sort_unstable();
        record.clamped.dedup();
        record
    }

    /// Returns the original hit with its sender.
    pub(super) fn item(&self) -> &'a SinkItem {
        self.item
    }

    /// Returns the event in the record. Its list of rules is meaningless.
    pub(super) fn hit(&self) -> &HitV1 {
        match &self.shown {
            Shown::Shared(hit) => hit,
            Shown::Own(hit) => hit,
        }
    }

    /// Returns the rule in the record.
    pub(super) fn rule(&self) -> &RuleRefV1 {
        &self.shown_rule
    }

    /// Appends the record as one line of JSON without the line end.
    pub fn append(&self, format: RecordFormat, out: &mut Vec<u8>) {
        let item = self.item;
        let written = match format {
            RecordFormat::Jsonl => {
                /// A line that starts with the sender.
                #[derive(Serialize)]
                struct Line<'a> {
                    sensor: &'a str,
                    epoch: String,
                    sequence: u64,
                    #[serde(flatten)]
                    found: jsonl::Line<'a>,
                    #[serde(skip_serializing_if = "<[_]>::is_empty")]
                    clamped: &'a [&'static str],
                }
                let found = jsonl::Line::new(self.hit(), self.rule());
                let line = Line {
                    sensor: &item.sensor,
                    epoch: HEXLOWER.encode(&item.epoch),
                    sequence: item.sequence,
                    found,
                    clamped: &self.clamped,
                };
                serde_json::to_writer(out, &line)
            }
            RecordFormat::Ecs => serde_json::to_writer(out, &self.ecs()),
            RecordFormat::Splunk => serde_json::to_writer(out, &self.splunk()),
        };
        debug_assert!(written.is_ok(), "writing to memory does not fail, and all keys are strings");
    }

    fn ecs(&self) -> Value {
        let item = self.item;
        let mut document = ecs::document(self.hit(), self.rule());
        document["agent"] =
            json!({ "type": "etwsieve", "name": item.sensor, "ephemeral_id": HEXLOWER.encode(&item.epoch) });
        document["event"]["sequence"] = json!(item.sequence);
        if !self.clamped.is_empty() {
            document["etwsieve"][CLAMPED] = json!(self.clamped);
        }
        document
    }

    /// Returns the record for Splunk, without source type and index.
    pub(super) fn splunk(&self) -> Value {
        let item = self.item;
        let mut event = splunk::event(self.hit(), self.rule());
        event["event"]["sensor"] = json!(item.sensor);
        event["event"]["sensor_epoch"] = json!(HEXLOWER.encode(&item.epoch));
        event["event"]["sensor_sequence"] = json!(item.sequence);
        if !self.clamped.is_empty() {
            event["event"][CLAMPED] = json!(self.clamped);
        }
        // An event without a computer name is from the sensor's computer.
        if event["host"].is_null() {
            event["host"] = json!(item.sensor);
        }
        event
    }

    /// Returns the identity of the record, a SHA-256 in hexadecimal. It depends only on event, rule and sensor, not on
    /// when the record is sent or from which path the event was read.
    pub fn identity(&self) -> String {
        let event = self.event.get_or_init(|| {
            let SinkItem { sensor, hit, .. } = self.item;
            // Hits from the wire are within the limits, so they can be encoded.
            EventIdentity::of(hit).unwrap_or_default().from_sensor(sensor, hit)
        });
        HEXLOWER.encode(event.with_rule(self.rule).as_bytes())
    }
}
