//! Publications: an entry as a message, tried until it has a PubAck.

use super::id::{MessageId, subject_token};
use super::keeper::Findings;
use super::layout::{CONFLICTS, GAPS, LEDGER_STREAM, Layout};
use super::{SENSOR_HEADER, VERSION_HEADER};
use crate::backend::{Appended, BackendError, Entry, EntryError, Id, Item, Refusal};
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

/// Pause before a publication is repeated under the same id: a new leader is found within seconds.
const REPEAT_PAUSE: Duration = Duration::from_millis(250);
/// Time that an entry still has once others of its batch are stored: whatever is in its way is not in theirs.
const STRAGGLER_TIME: Duration = Duration::from_secs(2);

/// The batch that a publication belongs to.
#[derive(Debug)]
pub(super) struct Batch {
    deadline: Instant,
    stored: AtomicUsize,
}

impl Batch {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, stored: AtomicUsize::new(0) }
    }

    /// Whether other entries are stored while this one has failed for long.
    fn is_straggler(&self, failing_since: Instant) -> bool {
        self.stored.load(Ordering::Relaxed) > 0 && failing_since.elapsed() >= STRAGGLER_TIME
    }

    /// Whether there is time for one attempt more.
    fn has_time(&self, failing_since: Instant) -> bool {
        !self.is_straggler(failing_since) && Instant::now() + REPEAT_PAUSE < self.deadline
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    New,
    /// It was there already, with the same contents.
    Repeated,
    /// Its number has another hit: both are stored now.
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

/// What publications share.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) context: Context,
    pub(super) layout: Layout,
    pub(super) findings: Arc<Findings>,
}

/// A message that was sent, or could not be.
type Sent = Result<PublishAckFuture, PublishError>;

/// An entry that was sent once.
pub(super) struct Begun {
    sensor: Arc<str>,
    epoch: Id,
    kind: Kind,
    message: Result<Outgoing, EntryError>,
    sent: Option<Sent>,
}

#[derive(Clone, Copy)]
enum Kind {
    Hit { sequence: u64 },
    Gap { lost: u64 },
}

/// A message of an entry.
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
    /// Sends an entry for the first time. Called for one entry after the other, which keeps their order in the stream;
    /// only what has to be sent again may come behind later ones.
    pub(super) async fn begin(&self, entry: Entry, batch: &Batch) -> Begun {
        let Entry { sensor, epoch, item } = entry;
        let (kind, message) = match item {
            Item::Hit { version, bytes, sequence } => {
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
            Item::Gap(gap) => (Kind::Gap { lost: gap.count }, gap_message(&sensor, epoch, &gap)),
        };
        let sent = match &message {
            // While the servers are away each attempt takes its whole time.
            Ok(message)
                if Instant::now() < batch.deadline && self.findings.breach(&message.stream).is_none() =>
            {
                Some(self.send(message).await)
            }
            _ => None,
        };
        Begun { sensor, epoch, kind, message, sent }
    }

    /// Completes what was begun; returns when it has a PubAck of the right stream.
    pub(super) async fn finish(&self, begun: Begun, batch: &Batch) -> Result<Stored, EntryError> {
        let Begun { sensor, epoch, kind, message, sent } = begun;
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

    /// Records that a hit can never be stored.
    async fn store_refusal(&self, sensor: &Arc<str>, epoch: Id, sequence: u64, batch: &Batch) {
        let gap = GapV1 { from: sequence, to: sequence, count: 1, reason: GapReason::Refused };
        let recorded = match gap_message(sensor, epoch, &gap) {
            Ok(message) => self.publish(&message, None, batch).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            tracing::error!(
                sensor = &**sensor,
                sequence,
                ?error,
                "the loss of a refused hit cannot be recorded"
            );
        }
    }

    async fn finish_hit(
        &self,
        sensor: &Arc<str>,
        epoch: Id,
        sequence: u64,
        mut message: Outgoing,
        sent: Option<Sent>,
        batch: &Batch,
    ) -> Result<Stored, EntryError> {
        let ack = self.publish(&message, sent, batch).await?;
        if !ack.duplicate {
            return Ok(Stored::New);
        }
        match self.is_same(&message, ack.sequence, batch).await? {
            Some(true) => return Ok(Stored::Repeated),
            Some(false) => {}
            None => {
                // The first is gone, so nobody can tell: stored once more is better than not at all.
                tracing::debug!(
                    sensor = &**sensor,
                    sequence,
                    "a repeated hit cannot be compared and is stored"
                );
            }
        }
        // Two hits under one number: the second is stored under an id of its own, once.
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
            "a number came again with other contents; both are stored: somebody runs a copy of this sensor"
        );
        Ok(Stored::Conflict)
    }

    /// Sends a message; the PubAck comes later.
    async fn send(&self, message: &Outgoing) -> Sent {
        let mut publish = PublishMessage::build().payload(message.payload.clone()).message_id(&message.id);
        if let Some(version) = message.version {
            publish = publish.header(VERSION_HEADER, version.to_string());
        }
        if let Some(sensor) = &message.sensor {
            publish = publish.header(SENSOR_HEADER, &**sensor);
        }
        self.context.send_publish(message.subject.clone(), publish).await
    }

    /// Waits for the PubAck of what was sent, and sends again until there is one, or until the deadline.
    async fn publish(
        &self,
        message: &Outgoing,
        mut sent: Option<Sent>,
        batch: &Batch,
    ) -> Result<PublishAck, EntryError> {
        let (mut failing_since, mut failure) = (None, None);
        loop {
            if let Some(breach) = self.findings.breach(&message.stream) {
                return Err(EntryError::Failed(BackendError::Failed(breach)));
            }
            if sent.is_none() && Instant::now() >= batch.deadline {
                let error = failure.unwrap_or_else(|| BackendError::Overload("no time is left".into()));
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
                    "the stream {:?} of somebody else has taken a message for {:?}",
                    ack.stream, message.stream
                )),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(refused(RefusalReason::TooLarge, super::connect::chain(&error)));
                }
                Err(error) => {
                    if error.kind() == PublishErrorKind::StreamNotFound {
                        self.findings.wake.notify_one();
                    }
                    judge(&error)
                }
            };
            // What a full stream refuses is refused again; the deadline is for what passes.
            let is_passing = matches!(error, BackendError::Overload(_));
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !is_passing || !batch.has_time(since) {
                return Err(EntryError::Failed(error));
            }
            failure = Some(error);
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    /// Whether the message that is stored under the same number has the same contents; `None`: it is not there any more.
    async fn is_same(
        &self,
        message: &Outgoing,
        sequence: u64,
        batch: &Batch,
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

/// Reads a message: from any replica, which is fast, or from the leader if that replica does not have it yet.
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
    // The code is the same for a full stream, a full disk, and a stream that is being deleted.
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
