//! Creates, checks, repairs and removes the consumers of sinks.
//!
//! The ledger stream contains the name of every sink that has ever had a consumer. A hit is removed from its stream
//! only when all of them have received it, so a sink loses no hits if its consumer is deleted.

use super::connect::chain;
use super::layout::{LEDGER_STREAM, SINKS, StreamLayout};
use super::streams::{self, Role};
use super::{NatsError, NatsSettings};
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use futures_util::stream::StreamExt;
use std::collections::BTreeSet;
use std::time::Duration;

/// Time after which an unacknowledged message is delivered to another program.
const ACK_WAIT: Duration = Duration::from_mins(1);
/// Maximum number of unacknowledged messages of all programs.
const ACK_PENDING_MAX: i64 = 50_000;
/// The description of consumers of sinks, which distinguishes them from others.
const DESCRIPTION: &str = "a sink of etwsieve";
/// Maximum number of consumers of a stream, and of sinks, that are examined.
const CONSUMERS_MAX: usize = 1000;

/// Returns the consumer of the sink `name` on a stream of hits. Creates the consumer or the stream if it is missing,
/// and repairs a consumer that could skip hits.
///
/// # Errors
///
/// [`NatsError::JetStream`]: the cluster does not answer, or the consumer cannot be used.
pub(super) async fn ensure(
    context: &Context,
    settings: &NatsSettings,
    layout: StreamLayout,
    partition: usize,
    name: &str,
) -> Result<Consumer<Config>, NatsError> {
    let stream = ensure_stream(context, settings, layout, partition).await?;
    let what = format!("the consumer {name}");
    let failed = |detail: String| NatsError::jetstream(what.clone(), detail);
    let required = Config {
        durable_name: Some(name.to_owned()),
        description: Some(DESCRIPTION.into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: ACK_PENDING_MAX,
        filter_subject: format!("{}.*", layout.prefix(partition)),
        ..Config::default()
    };
    // The name is recorded first, so that no hit is removed that this sink has not received.
    register(context, name).await?;
    let consumer: Consumer<Config> =
        stream.get_or_create_consumer(name, required.clone()).await.map_err(|error| failed(chain(&error)))?;
    repaired(&stream, consumer, &format!("{}.", layout.prefix(partition))).await
}

/// Returns the consumer, repaired if it could skip hits.
async fn repaired(
    stream: &Stream,
    consumer: Consumer<Config>,
    prefix: &str,
) -> Result<Consumer<Config>, NatsError> {
    let info = consumer.cached_info();
    let (name, mut config) = (info.name.clone(), consumer_config(&info.config));
    let failed = |detail: String| NatsError::jetstream(format!("the consumer {name}"), detail);
    let is_ours = config.filter_subject.is_empty()
        || config.filter_subject.strip_prefix(prefix).is_some_and(|rest| rest == "*" || rest == ">");
    if config.ack_policy != AckPolicy::Explicit || !is_ours || info.config.deliver_subject.is_some() {
        let problem =
            "it does not acknowledge every hit of the stream; delete it, and it will be created again";
        return Err(failed(problem.into()));
    }
    let mut changes = Vec::new();
    if config.max_deliver > 0 {
        changes.push(format!("{} deliveries, now any number", config.max_deliver));
        config.max_deliver = -1;
    }
    if config.headers_only {
        changes.push("headers only, now whole messages".into());
        config.headers_only = false;
    }
    if changes.is_empty() {
        return Ok(consumer);
    }
    let changes = changes.join(", ");
    let updated = stream.create_consumer(config).await;
    let updated = updated.map_err(|error| failed(format!("cannot repair ({changes}): {}", chain(&error))))?;
    tracing::warn!(consumer = name, "repaired: {changes}");
    Ok(updated)
}

/// Returns the part of a configuration that applies to pull consumers.
fn consumer_config(found: &async_nats::jetstream::consumer::Config) -> Config {
    Config {
        durable_name: found.durable_name.clone(),
        description: found.description.clone(),
        deliver_policy: found.deliver_policy,
        ack_policy: found.ack_policy,
        ack_wait: found.ack_wait,
        max_deliver: found.max_deliver,
        filter_subject: found.filter_subject.clone(),
        replay_policy: found.replay_policy,
        max_waiting: found.max_waiting,
        max_ack_pending: found.max_ack_pending,
        headers_only: found.headers_only,
        num_replicas: found.num_replicas,
        ..Config::default()
    }
}

/// Returns the stream of a partition. It and the ledger are created if they are missing, and otherwise left unchanged,
/// because `drain` may have other settings than the collectors.
async fn ensure_stream(
    context: &Context,
    settings: &NatsSettings,
    layout: StreamLayout,
    partition: usize,
) -> Result<Stream, NatsError> {
    let name = layout.stream(partition);
    let mut settings = settings.clone();
    let found = context.get_stream(&name).await.ok();
    if let Some(found) = &found {
        settings.replicas = found.cached_info().config.num_replicas;
    }
    for required in streams::required(&settings, layout) {
        let is_missing = match required.role {
            Role::Hits => required.config.name == name && found.is_none(),
            Role::Ledger => context.get_stream(LEDGER_STREAM).await.is_err(),
            Role::Status => false,
        };
        if is_missing {
            streams::check(context, &required, true).await?;
        }
    }
    let what = format!("the stream {name}");
    context.get_stream(&name).await.map_err(|error| NatsError::jetstream(what, chain(&error)))
}

/// Records the name of a sink in the ledger.
pub(super) async fn register(context: &Context, name: &str) -> Result<(), NatsError> {
    let what = format!("the name of the sink {name} in {LEDGER_STREAM}");
    let failed = |error: &dyn std::error::Error| NatsError::jetstream(what.clone(), chain(error));
    let ledger = context.get_stream(LEDGER_STREAM).await.map_err(|error| failed(&error))?;
    let subject = format!("{SINKS}.{name}");
    if ledger.get_last_raw_message_by_subject(&subject).await.is_ok() {
        return Ok(());
    }
    let ack = context.publish(subject, name.to_owned().into()).await.map_err(|error| failed(&error))?;
    ack.await.map_err(|error| failed(&error))?;
    Ok(())
}

/// Returns the names of the sinks in the ledger.
pub(super) async fn registered(context: &Context) -> Result<BTreeSet<String>, NatsError> {
    let what = || format!("the sinks in {LEDGER_STREAM}");
    let ledger = context
        .get_stream(LEDGER_STREAM)
        .await
        .map_err(|error| NatsError::jetstream(what(), chain(&error)))?;
    let mut pages = ledger
        .info_with_subjects(format!("{SINKS}.*"))
        .await
        .map_err(|error| NatsError::jetstream(what(), chain(&error)))?
        .take(CONSUMERS_MAX);
    let mut found = BTreeSet::new();
    while let Some(subject) = pages.next().await {
        let (subject, _) = subject.map_err(|error| NatsError::jetstream(what(), error))?;
        found.extend(subject.strip_prefix(SINKS).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned));
    }
    Ok(found)
}

/// The state of a durable consumer of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsumerState {
    pub(super) name: String,
    /// Everything up to this sequence number of the stream is acknowledged.
    pub(super) floor: u64,
    /// Number of messages that are not acknowledged.
    pub(super) waiting: u64,
    /// Time of the last acknowledgement, in seconds since 1970; 0: never.
    pub(super) active: i64,
    /// Whether it belongs to a sink.
    pub(super) is_sink: bool,
}

/// Returns the states of all durable consumers of a stream.
///
/// # Errors
///
/// [`NatsError::JetStream`] if the state of one of them is not available.
pub(super) async fn consumers_of(stream: &Stream) -> Result<Vec<ConsumerState>, NatsError> {
    let stream_name = &stream.cached_info().config.name;
    let what = || format!("the consumers of {stream_name}");
    // The list of names is complete; the list with details omits consumers whose node is down.
    let mut names = stream.consumer_names();
    let mut found = Vec::new();
    while let Some(name) = names.next().await {
        let name = name.map_err(|error| NatsError::jetstream(what(), chain(&error)))?;
        if found.len() >= CONSUMERS_MAX {
            return Err(NatsError::jetstream(what(), format!("more than {CONSUMERS_MAX}")));
        }
        let info = stream.consumer_info(&name).await;
        let info =
            info.map_err(|error| NatsError::jetstream(format!("the consumer {name}"), chain(&error)))?;
        // Consumers without a durable name only inspect the stream.
        if info.config.durable_name.is_some() {
            found.push(ConsumerState {
                name,
                floor: info.ack_floor.stream_sequence,
                waiting: info.num_pending + info.num_ack_pending as u64,
                is_sink: info.config.description.as_deref() == Some(DESCRIPTION),
                active: match info.ack_floor.last_active {
                    Some(time) => time.unix_timestamp(),
                    None => 0,
                },
            });
        }
    }
    found.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(found)
}

/// Removes the consumers and the name of a sink that will never run again. Returns whether it existed.
///
/// # Errors
///
/// The cluster cannot be reached or refuses a request.
pub async fn forget_sink(settings: &NatsSettings, name: &str) -> Result<bool, NatsError> {
    let context = async_nats::jetstream::new(settings.client_now().await?);
    let mut is_found = false;
    for layout in StreamLayout::existing(&context).await? {
        for stream in layout.streams() {
            let Ok(stream) = context.get_stream(&stream).await else { continue };
            is_found |= stream.delete_consumer(name).await.is_ok_and(|status| status.success);
        }
    }
    let what = format!("the name of the sink {name} in {LEDGER_STREAM}");
    let ledger = context.get_stream(LEDGER_STREAM).await;
    let ledger = ledger.map_err(|error| NatsError::jetstream(what.clone(), chain(&error)))?;
    let purged = ledger.purge().filter(format!("{SINKS}.{name}")).await;
    Ok(is_found | (purged.map_err(|error| NatsError::jetstream(what, chain(&error)))?.purged > 0))
}
