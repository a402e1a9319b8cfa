//! A durable pull consumer as the feed of a sink. Several programs with the same sink share its work.
//!
//! A message is acknowledged when its hit was delivered. The last acknowledgement of a batch is itself confirmed by the
//! server, which takes acknowledgements of one connection in order, so it speaks for those before it. What was delivered
//! and comes again all the same (an acknowledgement was lost, the consumer was made again, or the stream has it twice) is
//! known again by its id, as far as this program remembers; after a restart, or with several programs, its reader tells by
//! sensor, epoch and sequence number.
//!
//! A consumer or stream that is missing is created again; a cluster that cannot be reached is tried until it can.

use super::layout::Layout;
use super::{ACK_TIMEOUT, MessageId, NatsError, NatsSettings, VERSION_HEADER, consumers, report};
use crate::sink::{BatchLimits, Feed, FeedError, Item, Lag, SinkCounts};
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

/// Fewest bytes asked for: the longest message must fit.
const BYTES_MIN: usize = 2 * 1024 * 1024;
/// Ids of delivered messages that are remembered.
const REMEMBERED: usize = 200_000;
/// How long the servers may take for what they can do at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request for the next message waits on the server before it is made again.
const WAITING_EXPIRES: Duration = Duration::from_secs(30);
/// Time between a consumer or stream being found missing and its creation.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may take before the sink says that there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);

/// The feed. It blocks, on any thread that is not one of the runtime's.
pub struct NatsFeed {
    runtime: Handle,
    settings: NatsSettings,
    name: String,
    /// `None`: not connected yet.
    context: Option<Context>,
    /// One for each stream of hits.
    sources: Vec<Source>,
    /// The source that is asked first, so that none waits for the others.
    first: usize,
    batch: Vec<Taken>,
    ids: Vec<MessageId>,
    delivered: Remembered,
}

/// A consumer of one stream.
struct Source {
    consumer: Consumer<Config>,
    /// A request for one message that is pending on the server.
    waiting: Option<Batch>,
    /// A message that it received while the sink was busy.
    ahead: Option<Message>,
}

/// A message, and the source that it came from.
struct Taken {
    source: usize,
    message: Message,
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
        let mut feed = Self::unconnected(settings, name);
        feed.open(false).await?;
        Ok(feed)
    }

    /// As [`connect`](Self::connect), but a cluster that cannot be used now is tried again with each
    /// [`next`](Feed::next).
    ///
    /// # Errors
    ///
    /// Settings that can never work.
    pub async fn start(settings: &NatsSettings, name: &str) -> Result<Self, NatsError> {
        let mut feed = Self::unconnected(settings, name);
        match timeout(REQUEST_TIMEOUT, feed.open(true)).await {
            Ok(Err(error)) if error.is_final() || matches!(error, NatsError::Payload { .. }) => {
                return Err(error);
            }
            Ok(Err(error)) => tracing::warn!(sink = name, "not connected yet: {error}"),
            Err(_) => tracing::warn!(sink = name, "not connected yet: no answer"),
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
            delivered: Remembered::default(),
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
        let mut layouts = Layout::existing(&context).await?;
        if layouts.is_empty() {
            layouts.push(Layout::new(self.settings.partitions));
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

    /// Creates missing consumers and streams again after a source has failed. Returns the error to report.
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
        // The server may still be removing its files.
        tokio::time::sleep(REPAIR_PAUSE).await;
        // From the beginning of the stream: what this program delivered lately is known again, and nothing is left out.
        match timeout(CONNECT_TIMEOUT, self.open(true)).await {
            Ok(Ok(())) => {
                tracing::warn!(
                    sink = self.name,
                    "the consumer was deleted and has been made again; hits that are still in the stream may come twice"
                );
                FeedError(format!(
                    "JetStream: the consumer {} was deleted; it has been made again",
                    self.name
                ))
            }
            Ok(Err(error)) => FeedError(format!("JetStream: the consumer {} is missing: {error}", self.name)),
            Err(_) => {
                FeedError(format!("JetStream: the consumer {} is missing, and there is no answer", self.name))
            }
        }
    }

    /// Takes the available messages, or else waits for the first one and takes those that came with it.
    async fn take(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<Taken>, FeedError> {
        if self.sources.is_empty() {
            match timeout(CONNECT_TIMEOUT, self.open(true)).await {
                Ok(opened) => opened.map_err(|error| FeedError(error.to_string()))?,
                Err(_) => return Err(failed(&"no answer")),
            }
        }
        let mut batch = Batched { limits, messages: Vec::new(), bytes: 0 };
        let count = self.sources.len();
        self.first = (self.first + 1) % count;
        for number in 0..count {
            let index = (self.first + number) % count;
            self.sources[index].take_what_is_there(index, &mut batch).await?;
        }
        if batch.messages.is_empty()
            && let Some(index) = self.wait(wait, &mut batch).await?
        {
            self.sources[index].take_what_is_there(index, &mut batch).await?;
        }
        // In the order of the stream.
        batch.messages.sort_by_key(|taken| {
            let sequence = taken.message.info().map_or(u64::MAX, |info| info.stream_sequence);
            (taken.source, sequence)
        });
        Ok(batch.messages)
    }

    /// Waits until a source has a message, and returns its index.
    async fn wait(&mut self, wait: Duration, batch: &mut Batched) -> Result<Option<usize>, FeedError> {
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
                // It has expired, or has given its message.
                None => self.sources[index].waiting = None,
                Some(Err(error)) => {
                    self.sources[index].waiting = None;
                    return Err(failed(&error));
                }
            }
        }
    }

    /// Acknowledges messages, and waits for the server to confirm the last one of each source.
    async fn confirm(messages: &[Taken]) -> Result<(), FeedError> {
        let mut last = Vec::new();
        for (index, Taken { source, message }) in messages.iter().enumerate() {
            if messages[index + 1..].iter().all(|later| later.source != *source) {
                last.push(message);
            } else {
                message.ack().await.map_err(|error| failed(&error))?;
            }
        }
        for message in last {
            match timeout(ACK_TIMEOUT, message.double_ack()).await {
                Ok(acknowledged) => acknowledged.map_err(|error| failed(&error))?,
                Err(_) => return Err(failed(&"no answer to an acknowledgement")),
            }
        }
        Ok(())
    }
}

/// Messages for one batch.
struct Batched {
    limits: BatchLimits,
    messages: Vec<Taken>,
    bytes: usize,
}

impl Batched {
    fn add(&mut self, source: usize, message: Message) {
        self.bytes += message.payload.len();
        self.messages.push(Taken { source, message });
    }

    /// Returns the number of further messages and bytes; `None` if the batch is full. A single message never fills it.
    fn room(&self) -> Option<(usize, usize)> {
        let hits = self.limits.hits.saturating_sub(self.messages.len());
        let bytes = self.limits.bytes.saturating_sub(self.bytes);
        let has_room = hits > 0 && (bytes >= BYTES_MIN || self.messages.len() <= 1);
        has_room.then_some((hits, bytes.max(BYTES_MIN)))
    }
}

impl Source {
    /// Takes the messages that the consumer has available.
    async fn take_what_is_there(&mut self, index: usize, batch: &mut Batched) -> Result<(), FeedError> {
        let fetched = self.fetch(index, batch).await;
        // The waiting request is older, so what it was given comes before what was fetched.
        self.look_ahead();
        if let Some(message) = self.ahead.take() {
            batch.add(index, message);
        }
        fetched
    }

    async fn fetch(&mut self, index: usize, batch: &mut Batched) -> Result<(), FeedError> {
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
                // What there is is delivered first; if it was not a passing failure it comes again.
                Ok(Some(Err(_))) | Err(_) if !batch.messages.is_empty() => return Ok(()),
                Ok(Some(Err(error))) => return Err(failed(&error)),
                Err(_) => return Err(failed(&"no answer")),
            }
        }
    }

    /// Takes the message that the waiting request has received in the meantime, if any.
    fn look_ahead(&mut self) {
        if self.ahead.is_none()
            && let Some(next) = self.waiting.as_mut().and_then(|waiting| waiting.next().now_or_never())
        {
            self.waiting = None;
            // An error shows itself again with the next request.
            self.ahead = next.and_then(Result::ok);
        }
    }
}

impl Feed for NatsFeed {
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<Item>, FeedError> {
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
                    // It stays in the stream until that removes it.
                    tracing::error!(subject = %taken.message.subject, detail, "a message is no hit, and is passed over");
                    done.push(taken);
                }
            }
        }
        if !done.is_empty() {
            // If this fails they come again, and are known again.
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
    let item =
        Item { sensor: id.sensor.clone(), epoch: id.epoch, sequence: id.sequence, hit, rules_before: 0 };
    Ok((id, item))
}
