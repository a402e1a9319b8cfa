//! Reads the state of sensors, streams and sinks from a cluster, for `etwsieve-collector status`.
//!
//! Collectors in front of a cluster are stateless, so addresses, connections and certificates are not known; a sensor
//! counts as connected while its last status is recent. Streams are read in large batches: 100,000 sensors take a few
//! requests, not one each.

use super::connect::chain;
use super::layout::{CONFLICTS, GAPS, LEDGER_STREAM, STATUS, STATUS_STREAM, StreamLayout};
use super::{NatsError, NatsSettings, SENSOR_HEADER, StreamLevel, consumers, id, report};
use crate::status::{SensorStatus, SinkStatus, Status};
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use etwsieve_transport::wire;
use etwsieve_transport::wire::frame::split_frame;
use etwsieve_transport::wire::message::{GapV1, StatusV1};
use futures_util::stream::StreamExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// Age in seconds up to which a status is recent: the default idle timeout, within which sensors send three.
const FRESH_SECONDS: i64 = 60;
/// Maximum number of sensors that are listed.
const SENSORS_MAX: usize = 100_000;
/// Maximum number of gaps that are read.
const GAPS_MAX: usize = 1_000_000;
/// Maximum number of messages per request.
const BATCH_MAX: usize = 5000;
/// Time limit for a request.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the status of a cluster; `now` is in seconds since 1970.
///
/// # Errors
///
/// The cluster cannot be reached, or no collector has ever used it.
pub async fn status(settings: &NatsSettings, now: i64) -> Result<Status, NatsError> {
    let context = async_nats::jetstream::new(settings.client_now().await?);
    let layouts = StreamLayout::existing(&context).await?;
    if layouts.is_empty() {
        return Err(NatsError::jetstream("the status", "no collector has ever used this cluster"));
    }
    let mut sensors: BTreeMap<String, SensorStatus> = BTreeMap::new();
    read_statuses(&stream(&context, STATUS_STREAM).await?, now, &mut sensors).await?;
    read_ledger(&stream(&context, LEDGER_STREAM).await?, &mut sensors).await?;
    let (mut levels, mut sinks) = (Vec::new(), BTreeMap::new());
    for layout in layouts {
        for partition in 0..layout.partitions() {
            let stream = stream(&context, &layout.stream(partition)).await?;
            for (token, count) in subjects(&stream, &layout.prefix(partition)).await? {
                entry(&mut sensors, &token).hits += count as u64;
            }
            let consumers_of = consumers::consumers_of(&stream).await?;
            levels.push(StreamLevel::of(stream.cached_info(), &consumers_of));
            for reader in consumers_of {
                let sink = sinks.entry(reader.name.clone()).or_insert_with(|| no_sink(reader.name.clone()));
                sink.waiting += reader.waiting;
                sink.delivered = sink.delivered.max(reader.active);
            }
        }
    }
    for name in consumers::registered(&context).await? {
        sinks.entry(name.clone()).or_insert_with(|| no_sink(name));
    }
    let mut sensors: Vec<SensorStatus> = sensors.into_values().collect();
    sensors.sort_by(|left, right| left.sensor.cmp(&right.sensor));
    for sensor in &mut sensors {
        sensor.alarms = sensor.judge(now);
    }
    let statuses = stream(&context, STATUS_STREAM).await?;
    let mut sinks: Vec<SinkStatus> = sinks.into_values().collect();
    for sink in &mut sinks {
        if let Some((counts, time)) = report::read(&statuses, &sink.sink).await {
            sink.take_report(counts, time);
        }
    }
    Ok(Status { is_running: None, sensors, sinks, streams: levels, ..Status::default() })
}

fn no_sink(sink: String) -> SinkStatus {
    SinkStatus { sink, ..SinkStatus::default() }
}

async fn stream(context: &Context, name: &str) -> Result<Stream, NatsError> {
    context
        .get_stream(name)
        .await
        .map_err(|error| NatsError::jetstream(format!("the stream {name}"), chain(&error)))
}

async fn read_statuses(
    stream: &Stream,
    now: i64,
    sensors: &mut BTreeMap<String, SensorStatus>,
) -> Result<(), NatsError> {
    read_all(stream, STATUS, SENSORS_MAX, |token, message, time| {
        if report::is_sink(token) {
            return;
        }
        let mut sensor = SensorStatus { sensor: name_of(message, token), ..SensorStatus::default() };
        sensor.last_seen = time;
        sensor.connected = now - time <= FRESH_SECONDS;
        if let Some(status) = decode::<StatusV1>(message) {
            sensor.take_counts(status.counts.into_iter().map(|count| (count.name, count.value)));
        }
        sensors.insert(token.to_owned(), sensor);
    })
    .await
}

async fn read_ledger(stream: &Stream, sensors: &mut BTreeMap<String, SensorStatus>) -> Result<(), NatsError> {
    for (token, count) in subjects(stream, CONFLICTS).await? {
        entry(sensors, &token).conflicts = count as u64;
    }
    read_all(stream, GAPS, GAPS_MAX, |token, message, _| {
        let sensor = entry(sensors, token);
        sensor.gaps += 1;
        if let Some(gap) = decode::<GapV1>(message) {
            sensor.lost = sensor.lost.saturating_add(gap.count);
        }
    })
    .await
}

/// Reads all messages below a prefix in the order of the stream. `each` gets the sensor's token, the message, and the
/// time when it was stored in seconds since 1970.
pub(super) async fn read_all(
    stream: &Stream,
    prefix: &str,
    messages_max: usize,
    mut each: impl FnMut(&str, &Message, i64),
) -> Result<(), NatsError> {
    let what = || format!("reading {prefix}");
    // An ephemeral consumer in memory without acknowledgements, which leaves no trace.
    let config = Config {
        ack_policy: AckPolicy::None,
        filter_subject: format!("{prefix}.*"),
        inactive_threshold: 3 * BATCH_TIMEOUT,
        memory_storage: true,
        num_replicas: 1,
        ..Config::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| NatsError::jetstream(what(), chain(&error)))?;
    let mut left = consumer.cached_info().num_pending.min(messages_max as u64) as usize;
    let mut result = Ok(());
    while left > 0 && result.is_ok() {
        let mut messages = consumer
            .batch()
            .max_messages(left.min(BATCH_MAX))
            .expires(BATCH_TIMEOUT)
            .messages()
            .await
            .map_err(|error| NatsError::jetstream(what(), chain(&error)))?;
        let before = left;
        let mut is_last = false;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| NatsError::jetstream(what(), error))?;
            let (time, pending) = match message.info() {
                Ok(info) => (info.published.unix_timestamp(), info.pending),
                Err(error) => return Err(NatsError::jetstream(what(), error)),
            };
            if let Some(token) = message.subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'))
            {
                each(token, &message, time);
            }
            left -= 1;
            // Messages that were removed in the meantime never arrive.
            is_last = pending == 0;
            if left == 0 || is_last {
                break;
            }
        }
        if is_last {
            break;
        }
        if left == before {
            result = Err(NatsError::jetstream(what(), "no answer"));
        }
    }
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    result
}

/// Returns the sensors' tokens below a prefix with their numbers of messages.
async fn subjects(stream: &Stream, prefix: &str) -> Result<Vec<(String, usize)>, NatsError> {
    let what = || format!("the subjects {prefix}");
    let mut pages = stream
        .info_with_subjects(format!("{prefix}.*"))
        .await
        .map_err(|error| NatsError::jetstream(what(), chain(&error)))?
        .take(SENSORS_MAX);
    let mut found = Vec::new();
    while let Some(subject) = pages.next().await {
        let (subject, count) = subject.map_err(|error| NatsError::jetstream(what(), error))?;
        if let Some(token) = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            found.push((token.to_owned(), count));
        }
    }
    Ok(found)
}

fn entry<'a>(sensors: &'a mut BTreeMap<String, SensorStatus>, token: &str) -> &'a mut SensorStatus {
    sensors
        .entry(token.to_owned())
        .or_insert_with(|| SensorStatus { sensor: token.to_owned(), ..SensorStatus::default() })
}

/// Returns the sensor's name, or its token if the message is from an earlier release without the name.
fn name_of(message: &Message, token: &str) -> String {
    let name =
        message.headers.as_ref().and_then(|headers| headers.get(SENSOR_HEADER)).map(ToString::to_string);
    name.filter(|name| id::subject_token(name) == token).unwrap_or_else(|| token.to_owned())
}

/// Decodes the frame in a message; logs a warning and returns `None` if there is none.
fn decode<M: wire::message::Message>(message: &Message) -> Option<M> {
    let split = split_frame(&message.payload).ok().flatten().filter(|split| split.frame_type == M::TYPE);
    let decoded = split.and_then(|split| wire::decode_message(split.payload).ok());
    if decoded.is_none() {
        tracing::warn!(subject = %message.subject, "message of unknown origin skipped");
    }
    decoded
}
