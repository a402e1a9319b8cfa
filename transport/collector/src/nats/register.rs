//! The list of sensors in a key-value bucket, from which every collector of a cluster reads it.
//!
//! The key is the fingerprint of a certificate, the value its entry of `sensors.toml` as JSON. An administrator pushes
//! `sensors.toml`; collectors check for changes every [`POLL_EVERY`]. A revoked certificate stays revoked even if an
//! older file is pushed.

use super::connect::{ConnectRetry, chain};
use super::status::read_all;
use super::{NatsError, NatsSettings};
use crate::pki::{CertificateEntry, Register, SENSORS_MAX};
use async_nats::jetstream::Message;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType, Stream};
use futures_util::stream::{self, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Interval at which changes are checked.
pub const POLL_EVERY: Duration = Duration::from_secs(2);
/// The default bucket.
pub const BUCKET: &str = "etwsieve-sensors";
/// Prefix of the subjects of key-value buckets.
const PREFIX: &str = "$KV";
/// Maximum number of concurrent writes.
const PUTS: usize = 256;
/// Maximum size of the bucket in bytes. A certificate takes some 300.
const BUCKET_BYTES: i64 = 128 << 20;

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Number of entries that were written because they are new or have changed.
    pub written: usize,
    /// Number of entries that are revoked in the bucket but not in the file, and stay revoked.
    pub stay_revoked: usize,
}

/// Copies a register to the bucket, which is created if it is missing.
///
/// # Errors
///
/// The cluster cannot be reached or refuses a request. Entries written before stay.
pub async fn push_register(settings: &NatsSettings, register: &Register) -> Result<Pushed, NatsError> {
    let context = async_nats::jetstream::new(settings.client_now().await?);
    let bucket = settings.register.as_deref().unwrap_or(BUCKET);
    let stream = open(&context, settings, bucket).await?;
    let known = read(&stream, bucket).await?;
    let mut pushed = Pushed { written: 0, stay_revoked: 0 };
    let mut puts = Vec::new();
    for entry in register.entries() {
        match known.get(&entry.fingerprint) {
            Some(known) if known.revoked && !entry.revoked => pushed.stay_revoked += 1,
            Some(known) if known == entry => {}
            _ => {
                let value =
                    serde_json::to_vec(entry).map_err(|error| NatsError::Settings(error.to_string()))?;
                puts.push((entry.fingerprint.clone(), value));
            }
        }
    }
    let mut puts = stream::iter(puts)
        .map(|(key, value)| {
            let (context, subject) = (&context, format!("{PREFIX}.{bucket}.{key}"));
            async move { context.publish(subject, value.into()).await?.await }
        })
        .buffer_unordered(PUTS);
    while let Some(put) = puts.next().await {
        put.map_err(|error| NatsError::jetstream(format!("the bucket {bucket}"), chain(&error)))?;
        pushed.written += 1;
    }
    Ok(pushed)
}

/// Opens or creates the stream of the bucket, in the format of NATS key-value clients. (The client's function for this
/// first queries the account and cannot parse the answer of nats-server 2.9.)
async fn open(context: &Context, settings: &NatsSettings, bucket: &str) -> Result<Stream, NatsError> {
    let config = Config {
        name: format!("KV_{bucket}"),
        description: Some("certificates of the sensors of etwsieve".into()),
        subjects: vec![format!("{PREFIX}.{bucket}.>")],
        max_messages_per_subject: 1,
        max_messages: -1,
        max_consumers: -1,
        max_bytes: BUCKET_BYTES,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        ..Config::default()
    };
    let opened = context.get_or_create_stream(config).await;
    opened.map_err(|error| NatsError::jetstream(format!("the bucket {bucket}"), chain(&error)))
}

/// Reads all entries by fingerprint.
async fn read(stream: &Stream, bucket: &str) -> Result<HashMap<String, CertificateEntry>, NatsError> {
    let mut entries = HashMap::new();
    read_all(stream, &format!("{PREFIX}.{bucket}"), SENSORS_MAX, |key, message, _| {
        if let Some(entry) = decode(key, message) {
            entries.insert(key.to_owned(), entry);
        }
    })
    .await?;
    Ok(entries)
}

fn decode(key: &str, message: &Message) -> Option<CertificateEntry> {
    let is_removed = message.headers.as_ref().is_some_and(|headers| headers.get("KV-Operation").is_some());
    if is_removed {
        return None;
    }
    match serde_json::from_slice::<CertificateEntry>(&message.payload) {
        Ok(entry) if entry.fingerprint == key => Some(entry),
        Ok(_) => {
            tracing::warn!(key, "entry of the list of sensors skipped: its key is not its fingerprint");
            None
        }
        Err(error) => {
            tracing::warn!(key, "entry of the list of sensors skipped: {error}");
            None
        }
    }
}

/// Reads the bucket and watches it for changes from then on.
///
/// # Errors
///
/// Only errors for which [`NatsError::is_final`] holds.
pub(crate) async fn follow(
    context: Context,
    settings: &NatsSettings,
    bucket: &str,
) -> Result<watch::Receiver<Arc<Vec<CertificateEntry>>>, NatsError> {
    let mut retry = ConnectRetry::default();
    let first = async |state: &mut Option<State>| {
        let stream = open(&context, settings, bucket).await?;
        changes(&context, &stream.cached_info().config.name, bucket, state).await
    };
    let mut state = None;
    let entries = loop {
        match first(&mut state).await {
            Ok(entries) => break entries.unwrap_or_default(),
            Err(error) => retry.wait(error).await?,
        }
    };
    let (sender, receiver) = watch::channel(Arc::new(entries));
    let bucket = bucket.to_owned();
    tokio::spawn(async move {
        let name = format!("KV_{bucket}");
        let mut logged = false;
        while !sender.is_closed() {
            tokio::time::sleep(POLL_EVERY).await;
            match changes(&context, &name, &bucket, &mut state).await {
                Ok(Some(entries)) => {
                    tracing::info!(certificates = entries.len(), "list of sensors reloaded from the cluster");
                    sender.send_replace(Arc::new(entries));
                    logged = false;
                }
                Ok(None) => logged = false,
                Err(error) if !logged => {
                    tracing::warn!("cannot reload the list of sensors, keeping the old one: {error}");
                    logged = true;
                }
                Err(_) => {}
            }
        }
    });
    Ok(receiver)
}

/// The creation time of a bucket and its last sequence number.
type State = (i128, u64);

/// Returns the entries if they have changed since `state`.
async fn changes(
    context: &Context,
    stream: &str,
    bucket: &str,
    state: &mut Option<State>,
) -> Result<Option<Vec<CertificateEntry>>, NatsError> {
    let stream = context.get_stream(stream).await;
    let stream =
        stream.map_err(|error| NatsError::jetstream(format!("the bucket {bucket}"), chain(&error)))?;
    let Info { created, state: found, .. } = stream.cached_info();
    let found = (created.unix_timestamp_nanos(), found.last_sequence);
    if *state == Some(found) {
        return Ok(None);
    }
    let entries = read(&stream, bucket).await?.into_values().collect();
    *state = Some(found);
    Ok(Some(entries))
}
