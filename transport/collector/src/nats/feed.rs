//! Feeds a sink from durable pull consumers. Several programs with the same sink share the work.
//!
//! A message is acknowledged after its hit is delivered. The server confirms the last acknowledgement of a batch;
//! because it processes the acknowledgements of a connection in order, this covers all of them. A delivered message can
//! come again if an acknowledgement is lost, the consumer is recreated, or the stream contains the hit twice. The feed
//! recognises such a message by its id, as long as it remembers the id; after a restart, or with several programs, the
//! receiver must recognise it by sensor, epoch and sequence number.
//!
//! Missing consumers and streams are created again. If the cluster cannot be reached, the feed keeps trying.

use super::layout::StreamLayout;
use super::{ACK_TIMEOUT, MessageId, NatsError, NatsSettings, VERSION_HEADER, consumers, report};
use crate::sink::{BatchLimits, Feed, FeedError, Lag, SinkCounts, SinkItem};
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::{Batch, Config};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, Context};
use async_nats::jetstream::{AckKind, Message};
use etwsieve_transport::wire::codec;
use futures_util::FutureExt;
use futures_util::future::select_all;
use futures_util::stream::StreamExt;
use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{timeout, timeout_at};

/// Minimum number of bytes per request, so that the longest message fits.
const BYTES_MIN: usize = 2 * 1024 * 1024;
/// Number of ids of delivered messages that are remembered.
const RECENT_IDS_MAX: usize = 200_000;
/// Time limit for a request that the servers can answer at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a request for the next message expires on the server and is made again.
const WAITING_EXPIRES: Duration = Duration::from_secs(30);
/// Pause before a missing consumer or stream is created.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// Time limit for connecting, after which the sink reports an error.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);

/// The feed. Its methods block and must not be called on a thread of the runtime.
pub struct NatsFeed {
    runtime: Handle,
    settings: NatsSettings,
    name: String,
    /// `None` before the first connection.
    context: Option<Context>,
    /// One for each stream of hits.
    sources: Vec<Source>,
    /// The source that is read first. It rotates, so that no source starves.
    first: usize,
    batch: Vec<SourceMessage>,
    ids: Vec<MessageId>,
    delivered: RecentIds,
}

/// A consumer of one stream.
struct Source {
    consumer: Consumer<Config>,
    /// A request for one message that is pending on the server.
    waiting: Option<Batch>,
    /// A message that this request received while the sink was busy.
    ahead: Option<Message>,
}

/// A message and the index of its source.
struct SourceMessage {
    source: usize,
    message: Message,
}

/// The last delivered ids in the order of delivery.
#[derive(Default)]
struct RecentIds {
    known: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl RecentIds {
    fn add(&mut self, id: MessageId) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id);
        }
        while self.order.len() > RECENT_IDS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl NatsFeed {
    /// Connects and creates missing consumers of the sink `name`.
    ///
    /// # Errors
    ///
    /// The cluster cannot be reached, or a consumer cannot be used.
    pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Self, NatsError> {
        let mut feed = Self::unconnected(settings, name);
        feed.open(false).await?;
        Ok(feed)
    }

    /// Does the same as [`connect`](Self::connect), but if the cluster cannot be reached, every [`next`](Feed::next)
    /// tries again.
    ///
    /// # Errors
    ///
    /// The settings can never work.
    pub async fn start(settings: &NatsSettings, name: &str) -> Result<Self, NatsError> {
        let mut feed = Self::unconnected(settings, name);
        match timeout(REQUEST_TIMEOUT, feed.open(true)).await {
            Ok(Err(error)) if error.is_final() || matches!(error, NatsError::Payload { .. }) => {
                return Err(error);
            }
            Ok(Err(error)) => tracing::warn!(sink = name, "cannot connect, will retry: {error}"),
            Err(_) => tracing::warn!(sink = name, "cannot connect, will retry: no answer"),
            Ok(Ok(())) => {}
        }
        Ok(feed)
    }

    fn unconnected(settings: &NatsSettings, name: &str) -> Self {
        Self {
            runtime: Handle::current(),
            settings: settings.clone(),
            name: name.to_owned(),
            context: None,
            sources: Vec::new(),
            first: 0,
            batch: Vec::new(),
            ids: Vec::new(),
            delivered: RecentIds::default(),
        }
    }

    /// Connects if necessary, and creates missing streams and consumers.
    async fn open(&mut self, is_patient: bool) -> Result<(), NatsError> {
        let context = match &self.context {
            Some(context) => context.clone(),
            None if is_patient => async_nats::jetstream::new(self.settings.client().await?),
            None => async_nats::jetstream::new(self.settings.client_now().await?),
        };
        self.context = Some(context.clone());
        let mut layouts = StreamLayout::existing(&context).await?;
        if layouts.is_empty() {
            layouts.push(StreamLayout::new(self.settings.partitions));
        }
        let mut sources = Vec::new();
        for layout in layouts {
            for partition in 0..layout.partitions() {
                let consumer =
                    consumers::ensure(&context, &self.settings, layout, partition, &self.name).await?;
                sources.push(Source { consumer, waiting: None, ahead: None });
            }
        }
        self.sources = sources;
        Ok(())
    }

    /// Creates missing consumers and streams after a source failed. Returns the error to report.
    async fn repair(&mut self, error: FeedError) -> FeedError {
        let mut is_missing = false;
        for source in &self.sources {
            if let Ok(Err(error)) = timeout(REQUEST_TIMEOUT, source.consumer.get_info()).await {
                let kind = error.kind();
                is_missing |=
                    matches!(kind, ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound);
            }
        }
        if !is_missing {
            return error;
        }
        // The server may still be removing the files.
        tokio::time::sleep(REPAIR_PAUSE).await;
        // The new consumer starts at the beginning of the stream, so no hit is skipped. Hits that this program
        // delivered recently are recognised.
        match timeout(CONNECT_TIMEOUT, self.open(true)).await {
            Ok(Ok(())) => {
                tracing::warn!(
                    sink = self.name,
                    "consumer was deleted and has been created again; hits that are still in the stream may be delivered twice"
                );
                FeedError(format!("JetStream: consumer {} was deleted and has been created again", self.name))
            }
            Ok(Err(error)) => FeedError(format!("JetStream: consumer {} is missing: {error}", self.name)),
            Err(_) => FeedError(format!("JetStream: consumer {} is missing: no answer", self.name)),
        }
    }

    /// Takes the available messages, or waits for the first one and takes those that arrived with it.
    async fn take(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<SourceMessage>, FeedError> {
        if self.sources.is_empty() {
            match timeout(CONNECT_TIMEOUT, self.open(true)).await {
                Ok(opened) => opened.map_err(|error| FeedError(error.to_string()))?,
                Err(_) => return Err(failed(&"no answer")),
            }
        }
        let mut batch = BatchBuilder { limits, messages: Vec::new(), bytes: 0 };
        let count = self.sources.len();
        self.first = (self.first + 1) % count;
        for number in 0..count {
            let index = (self.first + number) % count;
            self.sources[index].take_available(index, &mut batch).await?;
        }
        if batch.messages.is_empty()
            && let Some(index) = self.wait(wait, &mut batch).await?
        {
            self.sources[index].take_available(index, &mut batch).await?;
        }
        // In the order of the streams.
        batch.messages.sort_by_key(|taken| {
            let sequence = taken.message.info().map_or(u64::MAX, |info| info.stream_sequence);
            (taken.source, sequence)
        });
        Ok(batch.messages)
    }

    /// Waits until a source has a message and returns the source's index.
    async fn wait(&mut self, wait: Duration, batch: &mut BatchBuilder) -> Result<Option<usize>, FeedError> {
        let end = tokio::time::Instant::now() + wait;
        loop {
            for source in self.sources.iter_mut().filter(|source| source.waiting.is_none()) {
                let request = source.consumer.batch().max_messages(1).expires(WAITING_EXPIRES);
                let request = timeout(REQUEST_TIMEOUT, request.messages()).await;
                let request = request.map_err(|_| failed(&"no answer"))?;
                source.waiting = Some(request.map_err(|error| failed(&error))?);
            }
            let waiting = self.sources.iter_mut().filter_map(|source| source.waiting.as_mut());
            let next = select_all(waiting.map(StreamExt::next));
            let Ok((next, index, _)) = timeout_at(end, next).await else { return Ok(None) };
            match next {
                Some(Ok(message)) => {
                    batch.add(index, message);
                    return Ok(Some(index));
                }
                // The request has expired or is answered.
                None => self.sources[index].waiting = None,
                Some(Err(error)) => {
                    self.sources[index].waiting = None;
                    return Err(failed(&error));
                }
            }
        }
    }

    /// Acknowledges messages and waits until the server confirms the last one of each source.
    async fn confirm(messages: &[SourceMessage]) -> Result<(), FeedError> {
        let mut last = Vec::new();
        for (index, SourceMessage { source, message }) in messages.iter().enumerate() {
            if messages[index + 1..].iter().all(|later| later.source != *source) {
                last.push(message);
            } else {
                message.ack().await.map_err(|error| failed(&error))?;
            }
        }
        for message in last {
            match timeout(ACK_TIMEOUT, message.double_ack()).await {
                Ok(acknowledged) => acknowledged.map_err(|error| failed(&error))?,
                Err(_) => return Err(failed(&"an acknowledgement was not confirmed")),
            }
        }
        Ok(())
    }
}

/// The messages of a batch.
struct BatchBuilder {
    limits: BatchLimits,
    messages: Vec<SourceMessage>,
    bytes: usize,
}

impl BatchBuilder {
    fn add(&mut self, source: usize, message: Message) {
        self.bytes += message.payload.len();
        self.messages.push(SourceMessage { source, message });
    }

    /// Returns how many further messages and bytes fit; `None` if the batch is full. A single message never fills it.
    fn room(&self) -> Option<(usize, usize)> {
        let hits = self.limits.hits.saturating_sub(self.messages.len());
        let bytes = self.limits.bytes.saturating_sub(self.bytes);
        let has_room = hits > 0 && (bytes >= BYTES_MIN || self.messages.len() <= 1);
        has_room.then_some((hits, bytes.max(BYTES_MIN)))
    }
}

impl Source {
    /// Takes the messages that the consumer has available.
    async fn take_available(&mut self, index: usize, batch: &mut BatchBuilder) -> Result<(), FeedError> {
        let fetched = self.fetch(index, batch).await;
        // The pending request is older, so its message comes before those that were fetched.
        self.look_ahead();
        if let Some(message) = self.ahead.take() {
            batch.add(index, message);
        }
        fetched
    }

    async fn fetch(&mut self, index: usize, batch: &mut BatchBuilder) -> Result<(), FeedError> {
        let Some((hits, bytes)) = batch.room() else { return Ok(()) };
        let end = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        let request = self.consumer.fetch().max_messages(hits).max_bytes(bytes).messages();
        let mut messages = timeout_at(end, request)
            .await
            .map_err(|_| failed(&"no answer"))?
            .map_err(|error| failed(&error))?;
        loop {
            match timeout_at(end, messages.next()).await {
                Ok(Some(Ok(message))) => batch.add(index, message),
                Ok(None) => return Ok(()),
                // Available messages are delivered first; a lasting failure will occur again.
                Ok(Some(Err(_))) | Err(_) if !batch.messages.is_empty() => return Ok(()),
                Ok(Some(Err(error))) => return Err(failed(&error)),
                Err(_) => return Err(failed(&"no answer")),
            }
        }
    }

    /// Takes the message that the pending request has received in the meantime, if any.
    fn look_ahead(&mut self) {
        if self.ahead.is_none()
            && let Some(next) = self.waiting.as_mut().and_then(|waiting| waiting.next().now_or_never())
        {
            self.waiting = None;
            // A lasting error will occur again with the next request.
            self.ahead = next.and_then(Result::ok);
        }
    }
}

impl Feed for NatsFeed {
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<SinkItem>, FeedError> {
        (self.batch, self.ids) = (Vec::new(), Vec::new());
        let runtime = self.runtime.clone();
        let taken = match runtime.block_on(self.take(limits, wait)) {
            Ok(taken) => taken,
            Err(error) => return Err(runtime.block_on(self.repair(error))),
        };
        let (mut items, mut done) = (Vec::new(), Vec::new());
        let mut ids = HashSet::new();
        for taken in taken {
            match read(&taken.message) {
                Ok((id, _)) if self.delivered.known.contains(&id) || ids.contains(&id) => done.push(taken),
                Ok((id, item)) => {
                    ids.insert(id.clone());
                    self.ids.push(id);
                    self.batch.push(taken);
                    items.push(item);
                }
                Err(detail) => {
                    // It stays in the stream until the stream removes it.
                    tracing::error!(subject = %taken.message.subject, detail, "message is not a hit and is skipped");
                    done.push(taken);
                }
            }
        }
        if !done.is_empty() {
            // If this fails they come again and are recognised again.
            let _ = runtime.block_on(Self::confirm(&done));
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
        self.sources.iter_mut().for_each(Source::look_ahead);
        let ahead = self.sources.iter().filter_map(|source| source.ahead.as_ref());
        self.runtime.block_on(async {
            for message in self.batch.iter().map(|taken| &taken.message).chain(ahead) {
                let _ = timeout(ACK_TIMEOUT, message.ack_with(AckKind::Progress)).await;
            }
        });
    }

    fn report(&mut self, counts: &SinkCounts) {
        let Some(context) = &self.context else { return };
        self.runtime.block_on(report::publish(context, &self.name, counts));
    }

    fn lag(&mut self) -> Result<Lag, FeedError> {
        if self.sources.is_empty() {
            return Err(failed(&"not connected"));
        }
        let mut hits = 0;
        for source in &mut self.sources {
            let info =
                self.runtime.block_on(async { timeout(REQUEST_TIMEOUT, source.consumer.get_info()).await });
            match info {
                Ok(Ok(info)) => hits += info.num_pending + info.num_ack_pending as u64,
                Ok(Err(error)) => return Err(failed(&error)),
                Err(_) => return Err(failed(&"no answer")),
            }
        }
        Ok(Lag { hits, oldest: None })
    }
}

fn failed(error: &dyn Display) -> FeedError {
    FeedError(format!("JetStream: {error}"))
}

/// Returns the id and the hit of a message.
fn read(message: &Message) -> Result<(MessageId, SinkItem), String> {
    let header = |name: &str| {
        let headers = message.headers.as_ref()?;
        headers.get(name).map(ToString::to_string)
    };
    let id = header("Nats-Msg-Id").and_then(|id| MessageId::read(&id, &message.payload));
    let id = id.ok_or("no Nats-Msg-Id of etwsieve")?;
    let version = header(VERSION_HEADER).ok_or("no version")?;
    if version != codec::HIT_VERSION.to_string() {
        return Err(format!("version {version} is not supported, expected {}", codec::HIT_VERSION));
    }
    let hit = codec::decode_hit(&message.payload).map_err(|error| error.to_string())?;
    let item =
        SinkItem { sensor: id.sensor.clone(), epoch: id.epoch, sequence: id.sequence, hit, rules_before: 0 };
    Ok((id, item))
}
