//! An audit: reads every message of the stream and finds hits that were stored twice.

use super::admin::{Admin, STREAM};
use super::{DUPLICATE_WINDOW, Key};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull::Config};
use async_nats::jetstream::context::Context;
use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Number of hits that are in the stream more than once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeated {
    pub(super) doubled: u64,
    pub(super) late: u64,
}

/// The place of a message: creation time of its stream, sequence number, and time of storing in seconds since 1970.
type Place = (i64, u64, i64);

#[derive(Default)]
struct Seen {
    places: Mutex<HashMap<Key, Vec<Place>>>,
    is_ending: AtomicBool,
    /// True if all messages have been read.
    is_done: AtomicBool,
}

/// The task of the audit.
pub(super) struct Audit {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Audit {
    pub(super) fn start(admin: &Admin) -> Self {
        let seen = Arc::<Seen>::default();
        let task = admin.runtime.spawn(read(admin.context.clone(), Arc::clone(&seen)));
        Self { seen, task }
    }

    /// Reads the remaining messages, for at most `limit`.
    pub(super) fn finish(&self, limit: Duration) -> Repeated {
        self.seen.is_ending.store(true, Ordering::Release);
        let begun = Instant::now();
        while !self.seen.is_done.load(Ordering::Acquire) && begun.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.task.abort();
        let mut repeated = Repeated::default();
        for places in self.seen.places.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for (index, (life, _, time)) in places.iter().enumerate() {
                // Compared with the previous one in the same stream; a stream that was created again is another one.
                let before = places[..index].iter().rev().find(|(other, _, _)| other == life);
                if let Some((_, _, first)) = before {
                    let is_late = time - first > DUPLICATE_WINDOW as i64 - 25;
                    repeated.late += u64::from(is_late);
                    repeated.doubled += u64::from(!is_late);
                }
            }
        }
        repeated
    }
}

async fn read(context: Context, seen: Arc<Seen>) {
    loop {
        if let Some((consumer, life)) = consumer(&context).await {
            while let Some(count) = read_batch(&consumer, life, &seen).await {
                if count == 0 && seen.is_ending.load(Ordering::Acquire) {
                    seen.is_done.store(true, Ordering::Release);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Creates a consumer that acknowledges nothing and starts at the oldest message.
async fn consumer(context: &Context) -> Option<(Consumer<Config>, i64)> {
    let stream = context.get_stream(STREAM).await.ok()?;
    let config = Config { ack_policy: AckPolicy::None, ..Config::default() };
    let life = stream.cached_info().created.unix_timestamp_nanos() as i64;
    Some((stream.create_consumer(config).await.ok()?, life))
}

/// Reads some messages and returns their number; `None` if the consumer no longer exists.
async fn read_batch(consumer: &Consumer<Config>, life: i64, seen: &Seen) -> Option<usize> {
    let request = consumer.batch().max_messages(500).expires(Duration::from_secs(1));
    let mut messages = request.messages().await.ok()?;
    let mut count = 0;
    while let Some(message) = messages.next().await {
        let Ok(message) = message else { return None };
        let info = message.info().ok()?;
        let id = message.headers.as_ref()?.get("Nats-Msg-Id")?.as_str().to_owned();
        let mut parts = id.split('/').skip(1);
        let epoch = u128::from_str_radix(parts.next()?, 16).ok()?;
        let key = (epoch, parts.next()?.parse().ok()?);
        let place = (life, info.stream_sequence, info.published.unix_timestamp());
        let mut places = seen.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = places.entry(key).or_default();
        if !known.iter().any(|other| (other.0, other.1) == (place.0, place.1)) {
            known.push(place);
        }
        count += 1;
    }
    // An empty answer may come from a consumer that has been deleted.
    if count == 0 && consumer.get_info().await.is_err() {
        return None;
    }
    Some(count)
}
