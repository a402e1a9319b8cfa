//! The consumers of sinks: created, checked, repaired and forgotten.
//!
//! The ledger keeps the name of every sink that has ever had a consumer. A hit is removed from its stream only when all of
//! them have taken it, so a consumer that somebody deletes costs its sink nothing.

use super::connect::chain;
use super::layout::{LEDGER_STREAM, Layout, SINKS};
use super::streams::{self, Role};
use super::{NatsError, NatsSettings};
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use futures_util::stream::StreamExt;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a message may be out without an answer before it is given to another program.
const ACK_WAIT: Duration = Duration::from_mins(1);
/// Messages that may be out in all programs together.
const ACK_PENDING_MAX: i64 = 50_000;
/// The description of our consumers, by which they are told from others.
const DESCRIPTION: &str = "a sink of etwsieve";
/// Maximum number of consumers of a stream, and of sinks, that are looked through.
const CONSUMERS_MAX: usize = 1000;

/// The consumer of the sink `name` on one stream of hits: created if it is missing, repaired if it could skip hits.
///
/// Call it again whenever the consumer gives no answer; a stream that is missing is created too.
///
/// # Errors
///
/// [`NatsError::JetStream`]: the cluster gives no answer now, or the consumer cannot be used.
pub(super) async fn ensure(
    context: &Context,
    settings: &NatsSettings,
    layout: Layout,
    partition: usize,
    name: &str,
) -> Result<Consumer<Config>, NatsError> {
    let stream = ensure_stream(context, settings, layout, partition).await?;
    let what = format!("the consumer {name}");
    let failed = |detail: String| NatsError::jetstream(what.clone(), detail);
    let wanted = Config {
        durable_name: Some(name.to_owned()),
        description: Some(DESCRIPTION.into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: ACK_PENDING_MAX,
        filter_subject: format!("{}.*", layout.prefix(partition)),
        ..Config::default()
    };
    // The name is written first: from then on nothing is removed that this sink has not taken.
    register(context, name).await?;
    let consumer: Consumer<Config> =
        stream.get_or_create_consumer(name, wanted.clone()).await.map_err(|error| failed(chain(&error)))?;
    repaired(&stream, consumer, &format!("{}.", layout.prefix(partition))).await
}

/// The consumer, changed if it could skip hits.
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
            "it does not acknowledge each hit of the stream; delete it, and it will be created correctly";
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

/// What of a configuration a pull consumer has.
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

/// The stream of a partition. It and the ledger are created if they are missing, and left as they are otherwise: a drain
/// may know less of the cluster than its collectors.
async fn ensure_stream(
    context: &Context,
    settings: &NatsSettings,
    layout: Layout,
    partition: usize,
) -> Result<Stream, NatsError> {
    let name = layout.stream(partition);
    let mut settings = settings.clone();
    let found = context.get_stream(&name).await.ok();
    if let Some(found) = &found {
        settings.replicas = found.cached_info().config.num_replicas;
    }
    for wanted in streams::wanted(&settings, layout) {
        let is_missing = match wanted.role {
            Role::Hits => wanted.config.name == name && found.is_none(),
            Role::Ledger => context.get_stream(LEDGER_STREAM).await.is_err(),
            Role::Status => false,
        };
        if is_missing {
            streams::check(context, &wanted, true).await?;
        }
    }
    let what = format!("the stream {name}");
    context.get_stream(&name).await.map_err(|error| NatsError::jetstream(what, chain(&error)))
}

/// Notes in the ledger that a sink exists.
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

/// The sinks of the ledger.
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

/// A durable consumer of one stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) name: String,
    /// Everything up to this sequence number of the stream is taken.
    pub(super) floor: u64,
    /// Messages that are not taken.
    pub(super) waiting: u64,
    /// When it took something last, in seconds since 1970; 0: never.
    pub(super) active: i64,
    /// Whether it is one of our sinks.
    pub(super) is_sink: bool,
}

/// All durable consumers of a stream.
///
/// # Errors
///
/// [`NatsError::JetStream`] if one of them cannot be asked now: what it has taken is not known then.
pub(super) async fn readers(stream: &Stream) -> Result<Vec<Reader>, NatsError> {
    let stream_name = &stream.cached_info().config.name;
    let what = || format!("the consumers of {stream_name}");
    // The names come from the cluster's own records; the list with details omits those whose node is away.
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
        // Those without a durable name are somebody's look at the stream.
        if info.config.durable_name.is_some() {
            found.push(Reader {
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

/// Removes a sink that will never run again: its consumers and its name. Returns whether there was one.
///
/// # Errors
///
/// [`NatsError`].
pub async fn forget_sink(settings: &NatsSettings, name: &str) -> Result<bool, NatsError> {
    let context = async_nats::jetstream::new(settings.client_now().await?);
    let mut is_found = false;
    for layout in Layout::existing(&context).await? {
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
