//! Records: what a sink writes for one rule of one hit. Each names the sensor, its epoch and the sequence number.

use super::Item;
use crate::hit::{EventIdentity, RuleRefV1};
use crate::output::{ecs, jsonl, splunk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;

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

/// A rule of a hit.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The hit.
    pub item: &'a Item,
    /// The rule.
    pub rule: &'a RuleRefV1,
}

impl<'a> Record<'a> {
    /// The records of a hit, one for each rule.
    pub fn of(item: &'a Item) -> impl Iterator<Item = Self> {
        item.hit.rules.iter().map(move |rule| Self { item, rule })
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
                }
                let found = jsonl::Line::new(&item.hit, self.rule);
                let line =
                    Line { sensor: &item.sensor, epoch: hex(&item.epoch), sequence: item.sequence, found };
                serde_json::to_writer(out, &line)
            }
            RecordFormat::Ecs => serde_json::to_writer(out, &self.ecs()),
            RecordFormat::Splunk => serde_json::to_writer(out, &self.splunk()),
        };
        debug_assert!(written.is_ok(), "memory takes everything, and no key is anything but text");
    }

    fn ecs(&self) -> Value {
        let item = self.item;
        let mut document = ecs::document(&item.hit, self.rule);
        document["agent"] =
            json!({ "type": "etwsieve", "name": item.sensor, "ephemeral_id": hex(&item.epoch) });
        document["event"]["sequence"] = json!(item.sequence);
        document
    }

    /// The record for Splunk, to which a sink adds what its token's administrator decides.
    pub(super) fn splunk(&self) -> Value {
        let item = self.item;
        let mut event = splunk::event(&item.hit, self.rule);
        event["event"]["sensor"] = json!(item.sensor);
        event["event"]["sensor_epoch"] = json!(hex(&item.epoch));
        event["event"]["sensor_sequence"] = json!(item.sequence);
        // Without a computer of its own, the event is the sensor's.
        if event["host"].is_null() {
            event["host"] = json!(item.sensor);
        }
        event
    }

    /// Identifies the record: the same for the same event, rule and sensor, whenever it is sent and whatever path the
    /// event was read from; another one for every other sensor. SHA-256 in hexadecimal.
    pub fn identity(&self) -> String {
        let Item { sensor, hit, .. } = self.item;
        // A hit that came over the wire has passed the limits, so it encodes.
        let event = EventIdentity::of(hit).unwrap_or_default().from_sensor(sensor, hit);
        hex(event.with_rule(self.rule).as_bytes())
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
