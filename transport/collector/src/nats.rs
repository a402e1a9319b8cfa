//! JetStream as the store: stateless collectors in front of a cluster of nats-servers.
//!
//! Every hit is one message, `etwsieve.hits.SENSOR`, whose payload is the encoded hit. Gaps are `etwsieve.gaps.SENSOR`,
//! and the last status of each sensor is `etwsieve.status.SENSOR`, in streams of their own. Dots in a sensor's name become
//! `_`, which no name contains. `Nats-Msg-Id` is `SENSOR/EPOCH/SEQUENCE`: the stream recognises a repetition, so a sensor may
//! change between collectors, and **what is acknowledged to it has a PubAck**, which the cluster sends once most replicas
//! have the message. A repetition is compared with what is stored; if its contents differ, both are kept, the second
//! under an id with a hash: somebody runs a copy of that sensor. Ids are remembered for the duplicate window; what is
//! repeated later is stored again, and its readers tell by sensor, epoch and sequence number.
//!
//! `keeper` checks that the streams keep the promise and removes what every sink has taken. nats-server syncs its files
//! every two minutes unless `sync_interval: always` is set: without it, a loss of power of most replicas at once loses
//! hits that were acknowledged.

mod connect;
mod consumers;
mod feed;
mod id;
mod keeper;
mod layout;
mod publish;
mod register;
mod report;
mod settings;
mod status;
mod streams;

pub use connect::NatsError;
pub use consumers::forget_sink;
pub use feed::NatsFeed;
pub use id::MessageId;
pub use keeper::StreamLevel;
pub use register::{BUCKET, POLL_EVERY, Pushed, push_register};
pub use settings::{NatsSettings, PARTITIONS_MAX};
pub use status::status;

use crate::backend::{Appended, Backend, BackendError, Entry, EntryError, Heartbeat, Id};
use crate::server::Issued;
use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context, ContextBuilder};
use etwsieve_transport::metrics::Text;
use etwsieve_transport::wire;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keeper::{Findings, Keeper};
use layout::Layout;
use publish::{Batch, Publisher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Messages of one batch that wait for their PubAck at a time.
const WINDOW: usize = 512;
/// How long one publication waits for its PubAck.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch is tried before the sensors are told to come back. Twice this is less than the 30 s that a sensor waits
/// for its ACK: a frame may have to wait for the batch before its own.
const APPEND_TIMEOUT: Duration = Duration::from_secs(12);
/// Header with the version of the hit's struct.
const VERSION_HEADER: &str = "Etwsieve-Version";
/// Header with the sensor's name, of messages whose id does not contain it.
const SENSOR_HEADER: &str = "Etwsieve-Sensor";

/// The backend.
#[derive(Debug)]
pub struct Nats {
    publisher: Arc<Publisher>,
    stopped: Arc<AtomicBool>,
    keeping: JoinHandle<()>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl Nats {
    /// Connects, and checks and creates the streams. Waits, with pauses and log lines, until the cluster answers.
    ///
    /// # Errors
    ///
    /// [`NatsError::is_final`] ones: wrong settings, a login that is refused again and again, or a cluster that is
    /// divided into another number of partitions.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        let client = settings.client().await?;
        let context =
            ContextBuilder::new().ack_timeout(ACK_TIMEOUT).max_ack_inflight(16 * WINDOW).build(client);
        let layout = settings.layout(&context).await?;
        let keeper = Keeper::start(context.clone(), settings.clone(), layout).await?;
        let publisher = Arc::new(Publisher { context, layout, findings: keeper.findings() });
        Ok(Self { publisher, stopped: Arc::default(), keeping: tokio::spawn(keeper.run()) })
    }

    /// Follows the register of sensors in the cluster, if the settings name a bucket for it.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn follow_register(&self, settings: &NatsSettings) -> Result<Option<Issued>, NatsError> {
        match &settings.register {
            Some(bucket) => {
                register::follow(self.publisher.context.clone(), settings, bucket).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Adds the levels of the streams to each scrape of the metrics.
    pub fn renderer(&self) -> impl Fn(&mut Text) + Send + Sync + use<> {
        let findings: Arc<Findings> = Arc::clone(&self.publisher.findings);
        move |text| findings.render(text)
    }
}

impl NatsSettings {
    /// The layout of the settings, unless the cluster has another one.
    async fn layout(&self, context: &Context) -> Result<Layout, NatsError> {
        let layout = Layout::new(self.partitions);
        let mut patience = connect::Patience::default();
        let existing = loop {
            match Layout::existing(context).await {
                Ok(existing) => break existing,
                Err(error) => patience.wait(error).await?,
            }
        };
        match existing.iter().find(|other| **other != layout) {
            None => Ok(layout),
            Some(other) => Err(NatsError::Settings(format!(
                "partitions is {}, but the cluster is divided into {} ({}); to change it, stop all collectors, let \
                 `drain --once` finish, delete these streams, and start with the new number",
                layout.partitions(),
                other.partitions(),
                other.streams().join(", ")
            ))),
        }
    }
}

impl Backend for Nats {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let (publisher, stopped) = (Arc::clone(&self.publisher), Arc::clone(&self.stopped));
        Box::pin(async move {
            if stopped.load(Ordering::Acquire) {
                return Err(BackendError::Stopped);
            }
            let len = batch.len();
            let progress = Arc::new(Batch::new(Instant::now() + APPEND_TIMEOUT));
            // Sent one after the other, in their order; the PubAcks are waited for together.
            let begun = stream::iter(batch).then({
                let (publisher, progress) = (Arc::clone(&publisher), Arc::clone(&progress));
                move |entry| {
                    let (publisher, progress) = (Arc::clone(&publisher), Arc::clone(&progress));
                    async move { publisher.begin(entry, &progress).await }
                }
            });
            let finish = move |begun| {
                let (publisher, progress) = (Arc::clone(&publisher), Arc::clone(&progress));
                async move { publisher.finish(begun, &progress).await }
            };
            let mut acks = std::pin::pin!(begun.map(finish).buffered(WINDOW).enumerate());
            let mut appended = Appended::default();
            // To the end even after a failure: it concerns one entry, and the others are stored.
            while let Some((index, stored)) = acks.next().await {
                match stored {
                    Ok(stored) => stored.count(&mut appended),
                    Err(error) => appended.errors.push((index, error)),
                }
            }
            let is_failure = |error: &(usize, EntryError)| matches!(error.1, EntryError::Failed(_));
            match appended.errors.first() {
                Some((_, EntryError::Failed(first)))
                    if appended.errors.len() == len && appended.errors.iter().all(is_failure) =>
                {
                    Err(first.clone())
                }
                _ => Ok(appended),
            }
        })
    }

    /// Without PubAcks: the next status of a sensor replaces this one within seconds.
    fn record_heartbeats(&self, heartbeats: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>> {
        let client = self.publisher.context.client();
        Box::pin(async move {
            for Heartbeat { sensor, status } in heartbeats {
                let mut payload = Vec::new();
                wire::encode_message(&status, &mut payload)
                    .map_err(|error| BackendError::Failed(error.to_string()))?;
                let mut headers = HeaderMap::new();
                headers.insert(SENSOR_HEADER, &*sensor);
                let subject = format!("{}.{}", layout::STATUS, id::subject_token(&sensor));
                let published = client.publish_with_headers(subject, headers, payload.into()).await;
                published.map_err(|error| BackendError::Overload(error.to_string()))?;
            }
            Ok(())
        })
    }

    /// Not known without reading the stream: 0.
    fn durable(&self, _: Arc<str>, _: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        Box::pin(async { Ok(0) })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.stopped.store(true, Ordering::Release);
        self.keeping.abort();
        let client = self.publisher.context.client();
        Box::pin(async move {
            if let Err(error) = client.flush().await {
                tracing::warn!(%error, "the connection to NATS was not closed in order");
            }
        })
    }
}
