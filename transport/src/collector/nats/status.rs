//! What a cluster knows of its sensors and sinks, for `etwsieve-collector status`.
//!
//! Collectors before a cluster keep nothing, so addresses, connections and certificates are not known here; a sensor counts
//! as connected while its last status is fresh.

use super::connect::{GAPS, HITS, NatsError, NatsSettings, STATUS, STATUS_STREAM, STREAM};
use super::{SENSOR_HEADER, id, report};
use crate::collector::status::{SensorStatus, SinkStatus, Status};
use crate::wire;
use crate::wire::frame::split_frame;
use crate::wire::message::{GapV1, Message, StatusV1};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Stream;
use futures_util::stream::StreamExt;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Sensors send a status three times within the silence that a collector allows, which is a minute unless set otherwise.
const FRESH_SECONDS: i64 = 60;
/// Most sensors that are listed.
const SENSORS_MAX: usize = 100_000;
/// Most gaps of all sensors that are read.
const GAPS_MAX: usize = 100_000;

/// Reads it; `now` is in seconds since 1970.
///
/// # Errors
///
/// [`NatsError`]: no cluster, or none that has had a collector before it.
pub async fn status(settings: &NatsSettings, now: i64) -> Result<Status, NatsError> {
    let context = async_nats::jetstream::new(settings.client().await?);
    let hits = context.get_stream(STREAM).await.map_err(|error| refused(STREAM, error))?;
    let statuses = context.get_stream(STATUS_STREAM).await.map_err(|error| refused(STATUS_STREAM, error))?;
    let mut sensors: BTreeMap<String, SensorStatus> = BTreeMap::new();
    for (token, _) in subjects(&statuses, STATUS).await? {
        if report::is_sink(&token) {
            continue;
        }
        let message = statuses.get_last_raw_message_by_subject(&format!("{STATUS}.{token}")).await;
        let message = message.map_err(|error| refused(STATUS_STREAM, error))?;
        let mut sensor = SensorStatus { sensor: name_of(&message, &token), ..SensorStatus::default() };
        sensor.last_seen = message.time.unix_timestamp();
        sensor.connected = now - sensor.last_seen <= FRESH_SECONDS;
        if let Some(status) = read::<StatusV1>(&message) {
            sensor.take_counts(status.counts.into_iter().map(|count| (count.name, count.value)));
        }
        sensors.insert(token, sensor);
    }
    for (token, count) in subjects(&hits, HITS).await? {
        entry(&mut sensors, &token).hits = count as u64;
    }
    let mut left = GAPS_MAX;
    for (token, count) in subjects(&hits, GAPS).await? {
        let sensor = entry(&mut sensors, &token);
        sensor.gaps = count as u64;
        let subject = format!("{GAPS}.{token}");
        let mut sequence = 1;
        for _ in 0..count.min(left) {
            // Removed meanwhile by its age, if there is none.
            let next = hits.raw_message_builder().sequence(sequence).next_by_subject(subject.as_str());
            let Ok(message) = next.send().await else { break };
            sequence = message.sequence + 1;
            if let Some(gap) = read::<GapV1>(&message) {
                sensor.lost += gap.count;
            }
        }
        left = left.saturating_sub(count);
    }
    let mut sensors: Vec<SensorStatus> = sensors.into_values().collect();
    sensors.sort_by(|left, right| left.sensor.cmp(&right.sensor));
    for sensor in &mut sensors {
        sensor.alarms = sensor.judge(now);
    }
    let mut sinks = Vec::new();
    let mut consumers = hits.consumers();
    while let Some(consumer) = consumers.next().await {
        let info = consumer.map_err(|error| refused(STREAM, error))?;
        // Those without a name are somebody's look at the stream.
        let Some(sink) = info.config.durable_name else { continue };
        let delivered = match info.ack_floor.last_active {
            Some(time) => time.unix_timestamp(),
            None => 0,
        };
        let waiting = info.num_pending + info.num_ack_pending as u64;
        let mut status = SinkStatus { sink, waiting, delivered, ..SinkStatus::default() };
        if let Some((counts, time)) = report::read(&statuses, &status.sink).await {
            status.take_report(counts, time);
        }
        sinks.push(status);
    }
    sinks.sort_by(|left, right| left.sink.cmp(&right.sink));
    Ok(Status { is_running: None, sensors, sinks, ..Status::default() })
}

/// Sensors' tokens below a subject, each with its number of messages.
async fn subjects(stream: &Stream, prefix: &str) -> Result<Vec<(String, usize)>, NatsError> {
    let what = format!("the subjects {prefix}");
    let mut pages = stream
        .info_with_subjects(format!("{prefix}.>"))
        .await
        .map_err(|error| refused(&what, error))?
        .take(SENSORS_MAX);
    let mut found = Vec::new();
    while let Some(subject) = pages.next().await {
        let (subject, count) = subject.map_err(|error| refused(&what, error))?;
        if let Some(token) = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            found.push((token.to_owned(), count));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn entry<'a>(sensors: &'a mut BTreeMap<String, SensorStatus>, token: &str) -> &'a mut SensorStatus {
    sensors
        .entry(token.to_owned())
        .or_insert_with(|| SensorStatus { sensor: token.to_owned(), ..SensorStatus::default() })
}

/// The sensor's name; a message of an earlier release has none, and its token must do.
fn name_of(message: &StreamMessage, token: &str) -> String {
    let name = message.headers.get(SENSOR_HEADER).map(ToString::to_string);
    name.filter(|name| id::subject_token(name) == token).unwrap_or_else(|| token.to_owned())
}

/// The frame of a message; `None`, with a word in the log, for anything else.
fn read<M: Message>(message: &StreamMessage) -> Option<M> {
    let split = split_frame(&message.payload).ok().flatten().filter(|split| split.frame_type == M::TYPE);
    let read = split.and_then(|split| wire::decode_message(split.payload).ok());
    if read.is_none() {
        tracing::warn!(subject = %message.subject, sequence = message.sequence, "a message is none of ours");
    }
    read
}

fn refused(what: &str, error: impl Display) -> NatsError {
    NatsError::JetStream { what: what.to_owned(), detail: error.to_string() }
}
