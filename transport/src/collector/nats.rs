//! JetStream as the store: collectors without state in front of a cluster of nats-servers.
//!
//! Every hit is one message, `etwsieve.hits.SENSOR`, whose payload is the encoded hit; gaps are `etwsieve.gaps.SENSOR`, and
//! the last status of each sensor is `etwsieve.status.SENSOR` in a stream of its own. Dots in a sensor's name become `_`,
//! which no name has. `Nats-Msg-Id` is `SENSOR/EPOCH/SEQUENCE/HASH`: the stream drops what it has under the same id, so a
//! sensor may change between collectors, and **what is acknowledged to it has a PubAck**, which the cluster gives once most
//! replicas have the message. The hash (of the payload) lets two hits under one number both be stored: somebody runs a copy of
//! that sensor. Ids are remembered for the duplicate window; what is repeated later is stored again, and its
//! readers tell by sensor, epoch and sequence number.
//!
//! nats-server syncs its files every two minutes unless `sync_interval: always` is set: without it, a loss of power of most
//! replicas at once loses what has been acknowledged.

mod connect;
mod feed;
mod id;
mod report;
mod status;

pub use connect::{NatsError, NatsSettings};
pub use feed::NatsFeed;
pub use id::MessageId;
pub use status::status;

use super::backend::{Appended, Backend, BackendError, Entry, Id, Item};
use crate::wire::{self, codec::CodecError};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{ErrorCode, publish::PublishAck};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Messages of one batch that wait for their PubAck at a time.
const WINDOW: usize = 512;
/// How long one publication waits for its PubAck.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch is tried before the sensors are told to come back: less than a sensor waits for its ACK.
const APPEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before a publication is repeated, under the same id: a new leader is found within seconds.
const REPEAT_PAUSE: Duration = Duration::from_millis(250);
/// Header with the version of the hit's struct.
const VERSION_HEADER: &str = "Etwsieve-Version";

/// Header with the sensor's name, of messages whose id does not say it.
const SENSOR_HEADER: &str = "Etwsieve-Sensor";

/// The backend.
#[derive(Debug)]
pub struct Nats {
    context: Context,
    stopped: Arc<AtomicBool>,
}

/// A message to be stored.
struct Publication {
    sensor: Arc<str>,
    subject: String,
    payload: Vec<u8>,
    /// `None`: it is not known again (a status replaces the one before).
    id: Option<String>,
    version: u8,
    /// Hits that it declares lost.
    lost: u64,
    is_hit: bool,
}

impl Nats {
    /// Connects, and creates the streams if they are not there; what there is, is left as it is set up.
    ///
    /// # Errors
    ///
    /// [`NatsError`]: no server, credentials, limits that do not hold hits.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        let client = settings.client().await?;
        let context =
            ContextBuilder::new().ack_timeout(ACK_TIMEOUT).max_ack_inflight(16 * WINDOW).build(client);
        settings.prepare(&context).await?;
        Ok(Self { context, stopped: Arc::default() })
    }
}

impl Backend for Nats {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let (context, stopped) = (self.context.clone(), Arc::clone(&self.stopped));
        Box::pin(async move {
            if stopped.load(Ordering::Acquire) {
                return Err(BackendError::Stopped);
            }
            let publications: Result<Vec<_>, CodecError> = batch.into_iter().map(Publication::new).collect();
            let publications = publications.map_err(|error| BackendError::Failed(error.to_string()))?;
            let deadline = Instant::now() + APPEND_TIMEOUT;
            let publish = |publication: Publication| {
                let context = context.clone();
                async move { publication.store(&context, deadline).await }
            };
            let mut acks = stream::iter(publications).map(publish).buffered(WINDOW);
            let mut appended = Appended::default();
            let mut failure = None;
            // To the end even after a failure: what is under way is stored, and known again when it is repeated.
            while let Some(stored) = acks.next().await {
                match stored {
                    Ok(stored) => stored.count(&mut appended),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            failure.map_or(Ok(appended), Err)
        })
    }

    /// Not known without reading the stream: 0.
    fn durable(&self, _: Arc<str>, _: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        Box::pin(async { Ok(0) })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.stopped.store(true, Ordering::Release);
        let client = self.context.client();
        Box::pin(async move {
            if let Err(error) = client.flush().await {
                tracing::warn!(%error, "the connection to NATS was not closed in order");
            }
        })
    }
}

/// A publication with its PubAck.
struct Stored {
    duplicate: bool,
    is_hit: bool,
    is_gap: bool,
    lost: u64,
}

impl Stored {
    fn count(&self, appended: &mut Appended) {
        if self.duplicate {
            appended.repeated += 1;
        } else if self.is_hit {
            appended.new += 1;
        } else if self.is_gap {
            appended.gaps += 1;
            appended.lost += self.lost;
        }
    }
}

impl Publication {
    fn new(entry: Entry) -> Result<Self, CodecError> {
        let token = id::subject_token(&entry.sensor);
        let sensor = Arc::clone(&entry.sensor);
        Ok(match entry.item {
            Item::Hit { sequence, version, bytes } => {
                let id = MessageId::new(entry.sensor.to_string(), entry.epoch, sequence, &bytes);
                Self {
                    sensor,
                    subject: format!("{}.{token}", connect::HITS),
                    payload: bytes,
                    id: Some(id.to_string()),
                    version,
                    lost: 0,
                    is_hit: true,
                }
            }
            Item::Gap(gap) => {
                let mut payload = Vec::new();
                wire::encode_message(&gap, &mut payload)?;
                let id = MessageId::new(entry.sensor.to_string(), entry.epoch, gap.from, &payload);
                Self {
                    sensor,
                    subject: format!("{}.{token}", connect::GAPS),
                    payload,
                    id: Some(format!("gap/{id}")),
                    version: 1,
                    lost: gap.count,
                    is_hit: false,
                }
            }
            Item::Status(status) => {
                let mut payload = Vec::new();
                wire::encode_message(&status, &mut payload)?;
                let subject = format!("{}.{token}", connect::STATUS);
                Self { sensor, subject, payload, id: None, version: 1, lost: 0, is_hit: false }
            }
        })
    }

    /// Publishes until there is a PubAck, or until the deadline.
    async fn store(self, context: &Context, deadline: Instant) -> Result<Stored, BackendError> {
        let payload = self.payload.into();
        loop {
            let mut message = PublishMessage::build()
                .payload(Clone::clone(&payload))
                .header(VERSION_HEADER, self.version.to_string());
            if !self.is_hit {
                message = message.header(SENSOR_HEADER, &*self.sensor);
            }
            if let Some(id) = &self.id {
                message = message.message_id(id);
            }
            let published: Result<PublishAck, PublishError> =
                async { context.send_publish(self.subject.clone(), message).await?.await }.await;
            match published {
                Ok(ack) => {
                    let is_gap = !self.is_hit && self.id.is_some();
                    return Ok(Stored {
                        duplicate: ack.duplicate,
                        is_hit: self.is_hit,
                        is_gap,
                        lost: self.lost,
                    });
                }
                Err(error) => {
                    let error = judge(&error);
                    // No room is no passing failure, and the deadline is for those.
                    if !matches!(error, BackendError::Overload(_))
                        || Instant::now() + REPEAT_PAUSE >= deadline
                    {
                        return Err(error);
                    }
                    tokio::time::sleep(REPEAT_PAUSE).await;
                }
            }
        }
    }
}

fn judge(error: &PublishError) -> BackendError {
    let detail = error.to_string();
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code);
    let full = [
        ErrorCode::STREAM_STORE_FAILED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
    ];
    match (error.kind(), code) {
        (_, Some(code)) if full.contains(&code) => BackendError::Full(detail),
        (PublishErrorKind::MaxPayloadExceeded, _) => BackendError::Failed(detail),
        _ => BackendError::Overload(detail),
    }
}
