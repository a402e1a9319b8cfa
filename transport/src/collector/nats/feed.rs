//! A durable pull consumer as the feed of a sink. Several programs with the same sink share its work.
//!
//! A message is acknowledged when its hit was delivered, and the acknowledgement is itself confirmed by the server. What
//! was delivered and comes again all the same (the confirmation was lost, or the stream has it twice) is known again by
//! its id, as far as this program remembers; after a restart, or with several programs, its reader tells by sensor,
//! epoch and sequence number.

use super::{ACK_TIMEOUT, MessageId, NatsError, NatsSettings, VERSION_HEADER, consumers};
use crate::sink::{BatchLimits, Feed, FeedError, Item, Lag};
use crate::wire::codec;
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::{AckKind, Message};
use futures_util::stream::{self, StreamExt};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::runtime::Handle;

/// Acknowledgements under way at a time.
const ACKS: usize = 256;
/// Fewest bytes asked for: the longest message must fit.
const BYTES_MIN: usize = 2 * 1024 * 1024;
/// Ids of delivered messages that are remembered.
const REMEMBERED: usize = 200_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The feed. It blocks, on any thread that is not one of the runtime's.
pub struct NatsFeed {
    runtime: Handle,
    consumer: Consumer<Config>,
    batch: Vec<Message>,
    ids: Vec<MessageId>,
    delivered: Remembered,
}

/// The last ids, in the order in which they came.
#[derive(Default)]
struct Remembered {
    known: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Remembered {
    fn add(&mut self, id: MessageId) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl NatsFeed {
    /// The feed of the sink `name`, whose consumer is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`NatsError`].
    pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Self, NatsError> {
        let client = settings.client().await?;
        let context = async_nats::jetstream::new(client);
        let layout = settings.layout(&context).await?;
        let consumer = consumers::ensure(&context, settings, layout, 0, name).await?;
        Ok(Self {
            runtime: Handle::current(),
            consumer,
            batch: Vec::new(),
            ids: Vec::new(),
            delivered: Remembered::default(),
        })
    }

    async fn take(&self, limits: BatchLimits, wait: Duration) -> Result<Vec<Message>, FeedError> {
        let failed = |error: &dyn std::fmt::Display| FeedError(format!("JetStream: {error}"));
        let mut messages = self
            .consumer
            .batch()
            .max_messages(limits.hits)
            .max_bytes(limits.bytes.max(BYTES_MIN))
            .expires(wait)
            .messages()
            .await
            .map_err(|error| failed(&error))?;
        let mut batch = Vec::new();
        // The server ends the request; if it does not, because it has died, nobody else will.
        let end = tokio::time::Instant::now() + wait + REQUEST_TIMEOUT;
        loop {
            match tokio::time::timeout_at(end, messages.next()).await {
                Ok(Some(Ok(message))) => batch.push(message),
                Ok(None) => return Ok(batch),
                Ok(Some(Err(_))) | Err(_) if !batch.is_empty() => return Ok(batch),
                Ok(Some(Err(error))) => return Err(failed(&error)),
                Err(_) => return Err(failed(&"no answer")),
            }
        }
    }

    /// Acknowledges messages and waits for the server's word.
    async fn confirm(messages: &[Message]) -> Result<(), FeedError> {
        let mut acks = stream::iter(messages)
            .map(|message| tokio::time::timeout(ACK_TIMEOUT, message.double_ack()))
            .buffer_unordered(ACKS);
        let mut failure = None;
        while let Some(ack) = acks.next().await {
            match ack {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failure = Some(error.to_string()),
                Err(_) => failure = Some("no answer to an acknowledgement".to_owned()),
            }
        }
        failure.map_or(Ok(()), |error| Err(FeedError(format!("JetStream: {error}"))))
    }
}

impl Feed for NatsFeed {
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<Item>, FeedError> {
        let taken = self.runtime.block_on(self.take(limits, wait))?;
        let (mut items, mut done) = (Vec::new(), Vec::new());
        (self.batch, self.ids) = (Vec::new(), Vec::new());
        let mut ids = HashSet::new();
        for message in taken {
            match read(&message) {
                Ok((id, _)) if self.delivered.known.contains(&id) || ids.contains(&id) => done.push(message),
                Ok((id, item)) => {
                    ids.insert(id.clone());
                    self.ids.push(id);
                    self.batch.push(message);
                    items.push(item);
                }
                Err(detail) => {
                    // It stays in the stream until that removes it.
                    tracing::error!(subject = %message.subject, detail, "a message is no hit, and is passed over");
                    done.push(message);
                }
            }
        }
        if !done.is_empty() {
            // If this fails they come again, and are known again.
            let _ = self.runtime.block_on(Self::confirm(&done));
        }
        Ok(items)
    }

    fn acknowledge(&mut self) -> Result<(), FeedError> {
        let batch = std::mem::take(&mut self.batch);
        for id in self.ids.drain(..) {
            self.delivered.add(id);
        }
        self.runtime.block_on(Self::confirm(&batch))
    }

    fn hold(&mut self) {
        self.runtime.block_on(async {
            for message in &self.batch {
                let _ = tokio::time::timeout(ACK_TIMEOUT, message.ack_with(AckKind::Progress)).await;
            }
        });
    }

    fn lag(&mut self) -> Result<Lag, FeedError> {
        let info = self
            .runtime
            .block_on(async { tokio::time::timeout(REQUEST_TIMEOUT, self.consumer.get_info()).await });
        match info {
            Ok(Ok(info)) => Ok(Lag { hits: info.num_pending + info.num_ack_pending as u64, oldest: None }),
            Ok(Err(error)) => Err(FeedError(format!("JetStream: {error}"))),
            Err(_) => Err(FeedError("JetStream: no answer".to_owned())),
        }
    }
}

/// The hit of a message and its id.
fn read(message: &Message) -> Result<(MessageId, Item), String> {
    let header = |name: &str| {
        let headers = message.headers.as_ref()?;
        headers.get(name).map(ToString::to_string)
    };
    let id = header("Nats-Msg-Id").and_then(|id| MessageId::read(&id, &message.payload));
    let id = id.ok_or("it has no Nats-Msg-Id of ours")?;
    let version = header(VERSION_HEADER).ok_or("it has no version")?;
    if version != codec::HIT_VERSION.to_string() {
        return Err(format!("it is of version {version}, this program knows {}", codec::HIT_VERSION));
    }
    let hit = codec::decode_hit(&message.payload).map_err(|error| error.to_string())?;
    let item = Item { sensor: id.sensor.clone(), epoch: id.epoch, sequence: id.sequence, hit };
    Ok((id, item))
}
