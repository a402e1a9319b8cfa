//! Publishes entries as messages and retries until they have a PubAck.

use super::id::{MessageId, subject_token};
use super::layout::{CONFLICTS, GAPS, LEDGER_STREAM, StreamLayout};
use super::maintenance::StreamHealth;
use super::{SENSOR_HEADER, VERSION_HEADER};
use crate::backend::{Appended, BackendError, Entry, EntryBody, EntryError, Id, Refusal};
use async_nats::jetstream::context::{Context, PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind, Stream};
use async_nats::jetstream::{ErrorCode, publish::PublishAck};
use bytes::Bytes;
use etwsieve_transport::wire;
use etwsieve_transport::wire::message::{GapReason, GapV1, RefusalReason};
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Pause before a publication is repeated under the same id. A new leader is elected within seconds.
const REPEAT_PAUSE: Duration = Duration::from_millis(250);
/// Time limit for an entry that fails while others of its batch are stored, because its failure is not one of the
/// cluster.
const STRAGGLER_TIME: Duration = Duration::from_secs(2);

/// The state of a batch that its publications share.
#[derive(Debug)]
pub(super) struct PublishBatch {
    deadline: Instant,
    stored: AtomicUsize,
}

impl PublishBatch {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, stored: AtomicUsize::new(0) }
    }

    /// Returns whether other entries are stored while this one keeps failing.
    fn is_straggler(&self, failing_since: Instant) -> bool {
        self.stored.load(Ordering::Relaxed) > 0 && failing_since.elapsed() >= STRAGGLER_TIME
    }

    /// Returns whether there is time for another attempt.
    fn has_time(&self, failing_since: Instant) -> bool {
        !self.is_straggler(failing_since) && Instant::now() + REPEAT_PAUSE < self.deadline
    }
}

/// The outcome of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    New,
    /// It was already stored with the same contents.
    Repeated,
    /// Its sequence number has another hit; both are stored.
    Conflict,
    Gap {
        lost: u64,
    },
}

impl Stored {
    pub(super) fn count(self, appended: &mut Appended) {
        match self {
            Self::New => appended.new += 1,
            Self::Repeated => appended.repeated += 1,
            Self::Conflict => appended.conflicts += 1,
            Self::Gap { lost } => {
                appended.gaps += 1;
                appended.lost = appended.lost.saturating_add(lost);
            }
        }
    }
}

/// Publishes entries to JetStream.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) context: Context,
    pub(super) layout: StreamLayout,
    pub(super) health: Arc<StreamHealth>,
}

/// The result of sending a message.
type SendResult = Result<PublishAckFuture, PublishError>;

/// An entry after its first attempt.
pub(super) struct SentEntry {
    sensor: Arc<str>,
    epoch: Id,
    kind: Kind,
    message: Result<Outgoing, EntryError>,
    sent: Option<SendResult>,
}

#[derive(Clone, Copy)]
enum Kind {
    Hit { sequence: u64 },
    Gap { lost: u64 },
}

/// The message for an entry.
#[derive(Clone)]
struct Outgoing {
    stream: String,
    subject: String,
    payload: Bytes,
    id: String,
    version: Option<u8>,
    sensor: Option<Arc<str>>,
}

impl Publisher {
    /// Sends an entry for the first time. Sequential calls keep the order of entries in the stream; only entries that
    /// must be sent again may come after later ones.
    pub(super) async fn begin(&self, entry: Entry, batch: &PublishBatch) -> SentEntry {
        let Entry { sensor, epoch, item } = entry;
        let (kind, message) = match item {
            EntryBody::Hit { version, bytes, sequence } => {
                let message = Outgoing {
                    stream: self.layout.stream(self.layout.partition(&sensor)),
                    subject: self.layout.subject(&sensor),
                    payload: bytes.into(),
                    id: MessageId::of_number(&sensor, &epoch, sequence),
                    version: Some(version),
                    sensor: None,
                };
                (Kind::Hit { sequence }, Ok(message))
            }
            EntryBody::Gap(gap) => (Kind::Gap { lost: gap.count }, gap_message(&sensor, epoch, &gap)),
        };
        let sent = match &message {
            // While the servers are unreachable, each attempt blocks until its timeout.
            Ok(message)
                if Instant::now() < batch.deadline && self.health.violation(&message.stream).is_none() =>
            {
                Some(self.send(message).await)
            }
            _ => None,
        };
        SentEntry { sensor, epoch, kind, message, sent }
    }

    /// Completes an entry; returns when it has a PubAck of the right stream.
    pub(super) async fn finish(&self, begun: SentEntry, batch: &PublishBatch) -> Result<Stored, EntryError> {
        let SentEntry { sensor, epoch, kind, message, sent } = begun;
        let stored = match (message, kind) {
            (Err(refusal), _) => Err(refusal),
            (Ok(message), Kind::Gap { lost }) => {
                let ack = self.publish(&message, sent, batch).await;
                ack.map(|ack| if ack.duplicate { Stored::Repeated } else { Stored::Gap { lost } })
            }
            (Ok(message), Kind::Hit { sequence }) => {
                let stored = self.finish_hit(&sensor, epoch, sequence, message, sent, batch).await;
                if let Err(EntryError::Refused(_)) = stored {
                    self.store_refusal(&sensor, epoch, sequence, batch).await;
                }
                stored
            }
        };
        batch.stored.fetch_add(usize::from(stored.is_ok()), Ordering::Relaxed);
        stored
    }

    /// Records a refused hit as a gap.
    async fn store_refusal(&self, sensor: &Arc<str>, epoch: Id, sequence: u64, batch: &PublishBatch) {
        let gap = GapV1 { from: sequence, to: sequence, count: 1, reason: GapReason::Refused };
        let recorded = match gap_message(sensor, epoch, &gap) {
            Ok(message) => self.publish(&message, None, batch).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            tracing::error!(sensor = &**sensor, sequence, ?error, "cannot record the loss of a refused hit");
        }
    }

    async fn finish_hit(
        &self,
        sensor: &Arc<str>,
        epoch: Id,
        sequence: u64,
        mut message: Outgoing,
        sent: Option<SendResult>,
        batch: &PublishBatch,
    ) -> Result<Stored, EntryError> {
        let ack = self.publish(&message, sent, batch).await?;
        if !ack.duplicate {
            return Ok(Stored::New);
        }
        match self.is_same(&message, ack.sequence, batch).await? {
            Some(true) => return Ok(Stored::Repeated),
            Some(false) => {}
            None => {
                // The first message is gone. Storing the hit twice is better than not at all.
                tracing::debug!(
                    sensor = &**sensor,
                    sequence,
                    "repeated hit cannot be compared and is stored again"
                );
            }
        }
        // Two hits have the same sequence number: the second one is stored under an id with a hash.
        let full = MessageId::new(sensor.to_string(), epoch, sequence, &message.payload);
        message.id = full.to_string();
        if self.publish(&message, None, batch).await?.duplicate {
            return Ok(Stored::Repeated);
        }
        let note = Outgoing {
            stream: LEDGER_STREAM.into(),
            subject: format!("{CONFLICTS}.{}", subject_token(sensor)),
            payload: full.to_string().into(),
            id: format!("conflict/{full}"),
            version: None,
            sensor: Some(Arc::clone(sensor)),
        };
        self.publish(&note, None, batch).await?;
        tracing::warn!(
            sensor = &**sensor,
            sequence,
            "sequence number reused with different contents, both hits stored: a copy of this sensor is running"
        );
        Ok(Stored::Conflict)
    }

    /// Sends a message without waiting for its PubAck.
    async fn send(&self, message: &Outgoing) -> SendResult {
        let mut publish = PublishMessage::build().payload(message.payload.clone()).message_id(&message.id);
        if let Some(version) = message.version {
            publish = publish.header(VERSION_HEADER, version.to_string());
        }
        if let Some(sensor) = &message.sensor {
            publish = publish.header(SENSOR_HEADER, &**sensor);
        }
        self.context.send_publish(message.subject.clone(), publish).await
    }

    /// Waits for the PubAck of a message and sends it again until there is one or the deadline is over.
    async fn publish(
        &self,
        message: &Outgoing,
        mut sent: Option<SendResult>,
        batch: &PublishBatch,
    ) -> Result<PublishAck, EntryError> {
        let (mut failing_since, mut failure) = (None, None);
        loop {
            if let Some(violation) = self.health.violation(&message.stream) {
                return Err(EntryError::Failed(BackendError::Failed(violation)));
            }
            if sent.is_none() && Instant::now() >= batch.deadline {
                let error = failure.unwrap_or_else(|| BackendError::Overload("timed out".into()));
                return Err(EntryError::Failed(error));
            }
            let first = match sent.take() {
                Some(sent) => sent,
                None => self.send(message).await,
            };
            let published: Result<PublishAck, PublishError> = match first {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let error = match published {
                Ok(ack) if ack.stream == message.stream => return Ok(ack),
                Ok(ack) => BackendError::Failed(format!(
                    "stream {:?}, which does not belong to etwsieve, stored a message for {:?}",
                    ack.stream, message.stream
                )),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(refused(RefusalReason::TooLarge, super::connect::chain(&error)));
                }
                Err(error) => {
                    if error.kind() == PublishErrorKind::StreamNotFound {
                        self.health.wake.notify_one();
                    }
                    judge(&error)
                }
            };
            // Only transient errors are retried: a full stream would refuse the message again.
            let is_passing = matches!(error, BackendError::Overload(_));
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !is_passing || !batch.has_time(since) {
                return Err(EntryError::Failed(error));
            }
            failure = Some(error);
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    /// Returns whether the message stored under the same id has the same contents; `None` if it no longer exists.
    async fn is_same(
        &self,
        message: &Outgoing,
        sequence: u64,
        batch: &PublishBatch,
    ) -> Result<Option<bool>, EntryError> {
        let since = Instant::now();
        loop {
            let failure = match self.stream(&message.stream).await {
                Ok(stream) => match find(&stream, sequence).await {
                    Ok(found) => {
                        let id = found.headers.get(async_nats::header::NATS_MESSAGE_ID);
                        let is_first = id.is_some_and(|id| id.as_str() == message.id);
                        return Ok(is_first.then(|| found.payload == message.payload));
                    }
                    Err(error) => match error.kind() {
                        RawMessageErrorKind::NoMessageFound => return Ok(None),
                        RawMessageErrorKind::JetStream(ref inner)
                            if inner.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
                        {
                            return Ok(None);
                        }
                        _ => error.to_string(),
                    },
                },
                Err(error) => error,
            };
            if !batch.has_time(since) {
                return Err(EntryError::Failed(BackendError::Overload(failure)));
            }
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    async fn stream(&self, name: &str) -> Result<Stream<()>, String> {
        self.context.get_stream_no_info(name).await.map_err(|error| error.to_string())
    }
}

/// Reads a message from any replica, which is fast, or from the leader if that replica does not have it yet.
async fn find(stream: &Stream<()>, sequence: u64) -> Result<StreamMessage, RawMessageError> {
    match stream.direct_get(sequence).await {
        Ok(found) => Ok(found),
        Err(_) => stream.get_raw_message(sequence).await,
    }
}

fn judge(error: &PublishError) -> BackendError {
    let detail = super::connect::chain(error);
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code);
    let full = [
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
    ];
    // The code is the same for a full stream, a full disk and a stream that is being deleted.
    let has_no_room = detail.contains("maximum") || detail.contains("no space");
    match code {
        Some(code) if full.contains(&code) => BackendError::Full(detail),
        Some(ErrorCode::STREAM_STORE_FAILED) if has_no_room => BackendError::Full(detail),
        _ => BackendError::Overload(detail),
    }
}

fn gap_message(sensor: &Arc<str>, epoch: Id, gap: &GapV1) -> Result<Outgoing, EntryError> {
    let mut payload = Vec::new();
    wire::encode_message(gap, &mut payload)
        .map_err(|error| refused(RefusalReason::NotStorable, error.to_string()))?;
    let id = MessageId::new(sensor.to_string(), epoch, gap.from, &payload);
    Ok(Outgoing {
        stream: LEDGER_STREAM.into(),
        subject: format!("{GAPS}.{}", subject_token(sensor)),
        payload: payload.into(),
        id: format!("gap/{id}"),
        version: Some(1),
        sensor: Some(Arc::clone(sensor)),
    })
}

fn refused(reason: RefusalReason, detail: String) -> EntryError {
    EntryError::Refused(Refusal { reason, detail })
}
