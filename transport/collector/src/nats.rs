//! The JetStream back end: stateless collectors in front of a cluster of nats-servers.
//!
//! Every hit is a message with the subject `etwsieve.hits.SENSOR` and the encoded hit as its payload. Gaps have the
//! subject `etwsieve.gaps.SENSOR` and the last status of each sensor `etwsieve.status.SENSOR`, in separate streams.
//! Dots in a sensor's name become `_`, which no name contains.
//!
//! `Nats-Msg-Id` is `SENSOR/EPOCH/SEQUENCE`, so the stream recognises a repetition even if the sensor has switched to
//! another collector. **A frame is acknowledged to the sensor only after its PubAck**, which the cluster sends once
//! most replicas have the message. A repetition is compared with the stored message. If the contents differ, a copy of
//! the sensor is running; both hits are stored, the second one under an id with a hash. A stream remembers ids for its
//! duplicate window. A hit that is repeated later is stored again, and consumers recognise it by sensor, epoch and
//! sequence number.
//!
//! `maintenance` checks the configuration of the streams and removes hits that every sink has received. nats-server syncs
//! its files every two minutes unless `sync_interval: always` is set; without that, a power failure of most replicas at
//! once loses acknowledged hits.

mod connect;
mod consumers;
mod feed;
mod id;
mod layout;
mod maintenance;
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
pub use maintenance::StreamLevel;
pub use register::{BUCKET, POLL_EVERY, Pushed, push_register};
pub use settings::{NatsSettings, PARTITIONS_MAX};
pub use status::status;

use crate::backend::{Appended, Backend, BackendError, Entry, EntryError, Heartbeat, Id};
use crate::server::RegisterUpdates;
use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context, ContextBuilder};
use etwsieve_transport::metrics::Text;
use etwsieve_transport::wire;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use layout::StreamLayout;
use maintenance::{StreamHealth, StreamMaintenance};
use publish::{PublishBatch, Publisher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Maximum number of messages of a batch that wait for their PubAck at a time.
const WINDOW: usize = 512;
/// Time limit for the PubAck of one publication.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for storing a batch. Twice this is less than the 30 s that a sensor waits for its ACK, because a frame
/// may have to wait for the previous batch.
const APPEND_TIMEOUT: Duration = Duration::from_secs(12);
/// Header with the version of the encoded hit.
const VERSION_HEADER: &str = "Etwsieve-Version";
/// Header with the sensor's name, for messages whose id does not contain it.
const SENSOR_HEADER: &str = "Etwsieve-Sensor";

/// The JetStream back end.
#[derive(Debug)]
pub struct NatsBackend {
    publisher: Arc<Publisher>,
    stopped: Arc<AtomicBool>,
    maintaining: JoinHandle<()>,
}

impl Drop for NatsBackend {
    fn drop(&mut self) {
        self.maintaining.abort();
    }
}

impl NatsBackend {
    /// Connects, checks the streams and creates missing ones. Retries until the cluster answers.
    ///
    /// # Errors
    ///
    /// Only errors for which [`NatsError::is_final`] holds: invalid settings, a login that is refused repeatedly, or a
    /// cluster with another number of partitions.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        let client = settings.client().await?;
        let context =
            ContextBuilder::new().ack_timeout(ACK_TIMEOUT).max_ack_inflight(16 * WINDOW).build(client);
        let layout = settings.layout(&context).await?;
        let maintenance = StreamMaintenance::start(context.clone(), settings.clone(), layout).await?;
        let publisher = Arc::new(Publisher { context, layout, health: maintenance.health() });
        Ok(Self { publisher, stopped: Arc::default(), maintaining: tokio::spawn(maintenance.run()) })
    }

    /// Watches the list of sensors in the cluster if the settings name a bucket for it.
    ///
    /// # Errors
    ///
    /// The same as those of [`connect`](Self::connect).
    pub async fn follow_register(
        &self,
        settings: &NatsSettings,
    ) -> Result<Option<RegisterUpdates>, NatsError> {
        match &settings.register {
            Some(bucket) => {
                register::follow(self.publisher.context.clone(), settings, bucket).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Returns a function that adds the state of the streams to a scrape.
    pub fn renderer(&self) -> impl Fn(&mut Text) + Send + Sync + use<> {
        let health: Arc<StreamHealth> = Arc::clone(&self.publisher.health);
        move |text| health.render(text)
    }
}

impl NatsSettings {
    /// Returns the layout of the settings; fails if the cluster has another one.
    async fn layout(&self, context: &Context) -> Result<StreamLayout, NatsError> {
        let layout = StreamLayout::new(self.partitions);
        let mut retry = connect::ConnectRetry::default();
        let existing = loop {
            match StreamLayout::existing(context).await {
                Ok(existing) => break existing,
                Err(error) => retry.wait(error).await?,
            }
        };
        match existing.iter().find(|other| **other != layout) {
            None => Ok(layout),
            Some(other) => Err(NatsError::Settings(format!(
                "partitions is {}, but the cluster has {} ({}); to change it, stop all collectors, let \
                 `drain --once` finish, delete these streams, and start with the new number",
                layout.partitions(),
                other.partitions(),
                other.streams().join(", ")
            ))),
        }
    }
}

impl Backend for NatsBackend {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let (publisher, stopped) = (Arc::clone(&self.publisher), Arc::clone(&self.stopped));
        Box::pin(async move {
            if stopped.load(Ordering::Acquire) {
                return Err(BackendError::Stopped);
            }
            let len = batch.len();
            let progress = Arc::new(PublishBatch::new(Instant::now() + APPEND_TIMEOUT));
            // Messages are sent in order; their PubAcks are awaited together.
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
            // Continues after a failure, which concerns only one entry.
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

    /// Publishes without waiting for PubAcks, because the next status replaces this one within seconds.
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

    /// Returns 0: the number is not known without reading the stream.
    fn durable(&self, _: Arc<str>, _: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        Box::pin(async { Ok(0) })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.stopped.store(true, Ordering::Release);
        self.maintaining.abort();
        let client = self.publisher.context.client();
        Box::pin(async move {
            if let Err(error) = client.flush().await {
                tracing::warn!(%error, "cannot flush the connection to NATS");
            }
        })
    }
}
