//! Records: what a sink writes for one rule of one hit. Each names the sensor, its epoch and the sequence number.

use super::Item;
use super::clamp::{self, CLAMPED, Limits};
use etwsieve_transport::hit::{EventIdentity, HitV1, RuleRefV1};
use etwsieve_transport::output::{ecs, jsonl, splunk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

/// The rule of a hit that names none.
static NO_RULE: RuleRefV1 = RuleRefV1 {
    id: String::new(),
    title: String::new(),
    level: String::new(),
    attack: Vec::new(),
    beyond_nul: false,
    spans: Vec::new(),
    transformations: Vec::new(),
};

/// The field names of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFormat {
    /// The project's own: `sensor`, `epoch`, `sequence`, and those of `etwsieve replay --format jsonl`.
    #[default]
    Jsonl,
    /// Elastic Common Schema: `agent.name`, `agent.ephemeral_id`, `event.sequence`.
    Ecs,
    /// Splunk's HTTP Event Collector: `sensor`, `sensor_epoch`, `sensor_sequence` in `event`.
    Splunk,
}

/// A rule of a hit, with as much of the hit as a record of this rule shows.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The hit as it came.
    item: &'a Item,
    /// The rule as it came.
    rule: &'a RuleRefV1,
    shown: Shown<'a>,
    shown_rule: Cow<'a, RuleRefV1>,
    /// Fields whose values differ from the event's.
    clamped: Vec<&'static str>,
    /// The identity of the event as this sensor reported it. It is computed once a hit: encoding the hit for each of its
    /// rules would cost their product.
    event: Rc<OnceCell<EventIdentity>>,
}

/// What a record shows of its hit.
#[derive(Clone, Debug)]
enum Shown<'a> {
    /// As the other records of the hit.
    Shared(Rc<Cow<'a, HitV1>>),
    Own(Box<HitV1>),
}

impl<'a> Record<'a> {
    /// Returns the records of a hit: one for each rule, or one with an empty rule for a hit without rules.
    ///
    /// Their total length is linear in that of the encoded hit (`clamp.rs`).
    pub fn of(item: &'a Item) -> impl Iterator<Item = Self> {
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
            if is_whole { record } else { record.within(Limits::EXCERPT) }
        })
    }

    /// Returns the record cut to the limits.
    pub(super) fn within(&self, limits: Limits) -> Self {
        let (hit, clamped) = clamp::event(self.hit(), &self.rule.spans, limits);
        let mut record = Self { shown: Shown::Own(Box::new(hit)), ..self.clone() };
        record.clamped.extend(clamped);
        record.shown_rule = clamp::rule(self.rule, limits, &mut record.clamped);
        record.clamped.sort_unstable();
        record.clamped.dedup();
        record
    }

    /// Who sent the hit, and under which number.
    pub(super) fn item(&self) -> &'a Item {
        self.item
    }

    /// Returns the event as the record shows it. Its list of rules is meaningless.
    pub(super) fn hit(&self) -> &HitV1 {
        match &self.shown {
            Shown::Shared(hit) => hit,
            Shown::Own(hit) => hit,
        }
    }

    /// The rule as the record shows it.
    pub(super) fn rule(&self) -> &RuleRefV1 {
        &self.shown_rule
    }

    /// Appends the record as one line of JSON, without its end.
    pub fn append(&self, format: RecordFormat, out: &mut Vec<u8>) {
        let item = self.item;
        let written = match format {
            RecordFormat::Jsonl => {
                /// A line, with who sent it in front.
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
                    epoch: hex(&item.epoch),
                    sequence: item.sequence,
                    found,
                    clamped: &self.clamped,
                };
                serde_json::to_writer(out, &line)
            }
            RecordFormat::Ecs => serde_json::to_writer(out, &self.ecs()),
            RecordFormat::Splunk => serde_json::to_writer(out, &self.splunk()),
        };
        debug_assert!(written.is_ok(), "memory takes everything, and no key is anything but text");
    }

    fn ecs(&self) -> Value {
        let item = self.item;
        let mut document = ecs::document(self.hit(), self.rule());
        document["agent"] =
            json!({ "type": "etwsieve", "name": item.sensor, "ephemeral_id": hex(&item.epoch) });
        document["event"]["sequence"] = json!(item.sequence);
        if !self.clamped.is_empty() {
            document["etwsieve"][CLAMPED] = json!(self.clamped);
        }
        document
    }

    /// The record for Splunk, to which a sink adds what its token's administrator decides.
    pub(super) fn splunk(&self) -> Value {
        let item = self.item;
        let mut event = splunk::event(self.hit(), self.rule());
        event["event"]["sensor"] = json!(item.sensor);
        event["event"]["sensor_epoch"] = json!(hex(&item.epoch));
        event["event"]["sensor_sequence"] = json!(item.sequence);
        if !self.clamped.is_empty() {
            event["event"][CLAMPED] = json!(self.clamped);
        }
        // Without a computer of its own, the event is the sensor's.
        if event["host"].is_null() {
            event["host"] = json!(item.sensor);
        }
        event
    }

    /// Identifies the record: the same for the same event, rule and sensor, whenever it is sent and whatever path the
    /// event was read from; another one for every other sensor. SHA-256 in hexadecimal.
    pub fn identity(&self) -> String {
        let event = self.event.get_or_init(|| {
            let Item { sensor, hit, .. } = self.item;
            // A hit that came over the wire has passed the limits, so it encodes.
            EventIdentity::of(hit).unwrap_or_default().from_sensor(sensor, hit)
        });
        hex(event.with_rule(self.rule).as_bytes())
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
