//! An administrator who changes and deletes streams and consumers that the collectors rely on.

use crate::faults::rng::Rng;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use std::io;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(super) const STREAM: &str = "ETWSIEVE";
/// Maximum time of a request; the cluster may be electing a leader.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection with all permissions.
pub(super) struct Admin {
    pub(super) runtime: Runtime,
    pub(super) context: Context,
}

impl Admin {
    pub(super) fn connect(url: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let servers: Vec<String> = url.split(',').map(str::to_owned).collect();
        let options = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
        // The context starts a task, so it is created within the runtime.
        let context =
            runtime.block_on(async { options.connect(servers).await.map(async_nats::jetstream::new) });
        Ok(Self { context: context.map_err(io::Error::other)?, runtime })
    }

    /// Runs a request. Returns whether it succeeded in time.
    fn attempt<E>(&self, action: impl Future<Output = Result<(), E>>) -> bool {
        self.runtime.block_on(async { matches!(tokio::time::timeout(TIMEOUT, action).await, Ok(Ok(()))) })
    }

    /// Changes a setting so that the stream would lose or refuse hits.
    pub(super) fn change_stream(&self, rng: &mut Rng) -> bool {
        let changes: [fn(&mut Config); 6] = [
            |it| it.discard = DiscardPolicy::Old,
            |it| it.num_replicas = 1,
            |it| it.max_message_size = 1000,
            |it| it.no_ack = true,
            |it| it.duplicate_window = Duration::from_secs(100),
            |it| it.max_age = Duration::from_hours(1),
        ];
        let change = changes[rng.within(0..changes.len() as u64) as usize];
        self.attempt(async {
            let stream = self.context.get_stream(STREAM).await.map_err(drop)?;
            let mut config = stream.cached_info().config.clone();
            change(&mut config);
            self.context.update_stream(&config).await.map(drop).map_err(drop)
        })
    }

    /// Deletes the consumer of the drains.
    pub(super) fn delete_consumer(&self) -> bool {
        self.attempt(async {
            let stream = self.context.get_stream(STREAM).await.map_err(drop)?;
            stream.delete_consumer("file").await.map(drop).map_err(drop)
        })
    }

    /// Deletes a stream without hits.
    pub(super) fn delete_side_stream(&self, rng: &mut Rng) -> bool {
        let name = if rng.chance(50) { "ETWSIEVE-STATUS" } else { "ETWSIEVE-LEDGER" };
        self.attempt(async { self.context.delete_stream(name).await.map(drop) })
    }

    /// Deletes the stream of hits.
    pub(super) fn delete_stream(&self) {
        self.attempt(async { self.context.delete_stream(STREAM).await.map(drop) });
    }

    /// Returns when the stream of hits was created, in nanoseconds; `None` if it does not exist or the request times out.
    pub(super) fn life(&self) -> Option<i128> {
        let mut created = None;
        self.attempt(async {
            let stream = self.context.get_stream(STREAM).await.map_err(drop)?;
            created = Some(stream.cached_info().created.unix_timestamp_nanos());
            Ok::<(), ()>(())
        });
        created
    }
}
