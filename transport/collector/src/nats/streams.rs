//! The streams: what they must be like, and the repair of one that is not.
//!
//! A stream that somebody else created, or changed while collectors use it, may throw hits away that were acknowledged.
//! What can be repaired without a risk is repaired. While anything else breaks the promise, nothing is acknowledged.

use super::connect::MESSAGE_LEN_MAX;
use super::layout::{CONFLICTS, GAPS, LEDGER_STREAM, Layout, SINKS, STATUS, STATUS_STREAM};
use super::{NatsError, NatsSettings};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use std::time::Duration;

/// Time that a server is given to remove the files of a deleted stream: nats-server 2.9 does so after its answer, and would
/// remove those of a new stream of the same name.
const REMOVAL_TIME: Duration = Duration::from_secs(1);
/// Maximum size of the stream of the last statuses, and of the ledger.
const SIDE_STREAM_BYTES: i64 = 256 << 20;
/// Gaps and conflicts of one sensor that the ledger keeps.
const LEDGER_PER_SUBJECT_MAX: i64 = 10_000;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Hits,
    Ledger,
    Status,
}

/// A stream as it must be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) role: Role,
    pub(super) config: Config,
}

/// The outcome of a check.
#[derive(Debug)]
pub(super) struct Checked {
    /// It was missing and has been created.
    pub(super) is_new: bool,
    /// Why it must not be used; `None`: it keeps the promise.
    pub(super) breach: Option<String>,
}

/// All streams of the collector.
pub(super) fn wanted(settings: &NatsSettings, layout: Layout) -> Vec<Wanted> {
    let common = Config {
        storage: StorageType::File,
        num_replicas: settings.replicas,
        retention: RetentionPolicy::Limits,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        allow_direct: true,
        ..Config::default()
    };
    let hits = (0..layout.partitions()).map(|partition| Wanted {
        role: Role::Hits,
        config: Config {
            name: layout.stream(partition),
            description: Some("hits of etwsieve".into()),
            subjects: vec![format!("{}.*", layout.prefix(partition))],
            // Sensors keep what a full stream refuses; the alternative is to remove hits that nobody has read.
            discard: DiscardPolicy::New,
            max_bytes: i64::try_from(settings.stream_bytes()).unwrap_or(i64::MAX),
            max_age: Duration::from_secs(settings.max_days * 86_400),
            duplicate_window: settings.duplicate_window(),
            ..common.clone()
        },
    });
    let ledger = Config {
        name: LEDGER_STREAM.into(),
        description: Some("gaps, conflicts and sinks of etwsieve".into()),
        subjects: [GAPS, CONFLICTS, SINKS].map(|prefix| format!("{prefix}.*")).into(),
        discard: DiscardPolicy::Old,
        max_bytes: SIDE_STREAM_BYTES,
        max_messages_per_subject: LEDGER_PER_SUBJECT_MAX,
        duplicate_window: settings.duplicate_window(),
        ..common.clone()
    };
    let status = Config {
        name: STATUS_STREAM.into(),
        description: Some("the last status of each sensor of etwsieve".into()),
        subjects: vec![format!("{STATUS}.*")],
        discard: DiscardPolicy::Old,
        max_bytes: SIDE_STREAM_BYTES,
        max_messages_per_subject: 1,
        duplicate_window: Duration::from_secs(1),
        ..common.clone()
    };
    let sides = [(Role::Ledger, ledger), (Role::Status, status)];
    hits.chain(sides.into_iter().map(|(role, config)| Wanted { role, config })).collect()
}

/// Checks one stream, creates it if it is missing, and repairs it. One that is missing `was_there` if it may have been
/// deleted just now.
///
/// # Errors
///
/// [`NatsError::JetStream`] if the cluster gives no answer now, or refuses to create it.
pub(super) async fn check(context: &Context, wanted: &Wanted, was_there: bool) -> Result<Checked, NatsError> {
    let name = &wanted.config.name;
    let what = || format!("the stream {name}");
    let info = match context.get_stream(name).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                if was_there {
                    tokio::time::sleep(REMOVAL_TIME).await;
                }
                context.create_stream(&wanted.config).await.map_err(|error| refusal(name, &error))?;
                return Ok(Checked { is_new: true, breach: None });
            }
            _ => return Err(NatsError::jetstream(what(), super::connect::chain(&error))),
        },
    };
    let review = Review::of(&info.config, &wanted.config);
    if review.breaches.is_empty() && review.needed.is_empty() && review.useful.is_empty() {
        return Ok(Checked { is_new: false, breach: None });
    }
    if !review.breaches.is_empty() {
        let breach = format!("{name}: {}", review.breaches.join(", "));
        return Ok(Checked { is_new: false, breach: Some(breach) });
    }
    repair(context, name, &info, &review).await
}

/// Applies the changes of a review: all, or if the servers refuse that only those that the promise needs.
async fn repair(context: &Context, name: &str, info: &Info, review: &Review) -> Result<Checked, NatsError> {
    let mut last = String::new();
    for with_useful in [true, false] {
        if !with_useful && review.useful.is_empty() {
            continue;
        }
        let mut config = info.config.clone();
        let useful = if with_useful { review.useful.as_slice() } else { &[] };
        let mut texts = Vec::new();
        for change in review.needed.iter().chain(useful) {
            (change.apply)(&mut config, &review.wanted);
            texts.push(change.text.as_str());
        }
        if texts.is_empty() {
            break;
        }
        match context.update_stream(&config).await {
            Ok(_) => {
                tracing::warn!(stream = name, "repaired: {}", texts.join(", "));
                return Ok(Checked { is_new: false, breach: None });
            }
            Err(error) => last = super::connect::chain(&error),
        }
    }
    let needed: Vec<&str> = review.needed.iter().map(|change| change.text.as_str()).collect();
    if needed.is_empty() {
        tracing::debug!(stream = name, "its limits stay as they are: {last}");
        return Ok(Checked { is_new: false, breach: None });
    }
    let breach = format!("{name}: cannot repair ({}): {last}", needed.join(", "));
    Ok(Checked { is_new: false, breach: Some(breach) })
}

/// A stream that cannot be created: for ever, or for now.
fn refusal(name: &str, error: &async_nats::jetstream::context::CreateStreamError) -> NatsError {
    if let CreateStreamErrorKind::JetStream(inner) = error.kind()
        && inner.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
    {
        return NatsError::Settings(format!(
            "the stream {name} cannot have more than one replica on a single server; set replicas = 1"
        ));
    }
    NatsError::jetstream(format!("the stream {name}"), super::connect::chain(error))
}

struct Change {
    text: String,
    apply: fn(&mut Config, &Config),
}

/// How a stream differs from the one that is wanted. Larger limits than wanted are no difference.
struct Review {
    wanted: Config,
    /// What cannot be changed and breaks the promise.
    breaches: Vec<String>,
    /// Changes without which hits that were acknowledged could be lost.
    needed: Vec<Change>,
    /// Changes without which sensors only wait, or a hit is stored twice.
    useful: Vec<Change>,
}

impl Review {
    fn of(found: &Config, wanted: &Config) -> Self {
        let mut review =
            Self { wanted: wanted.clone(), breaches: Vec::new(), needed: Vec::new(), useful: Vec::new() };
        review.find_breaches(found);
        review.find_changes(found);
        review
    }

    fn find_breaches(&mut self, found: &Config) {
        let breaches = [
            (found.storage != self.wanted.storage, "its storage is memory, which a restart empties"),
            (
                found.retention != self.wanted.retention,
                "its retention is not `limits`, so hits are removed before every sink has them",
            ),
            (found.mirror.is_some(), "it is a mirror"),
            (found.sealed, "it is sealed"),
            (found.subject_transform.is_some(), "it changes subjects"),
        ];
        let found = breaches.into_iter().filter(|(is_breach, _)| *is_breach);
        self.breaches = found.map(|(_, text)| text.to_owned()).collect();
        if !self.breaches.is_empty() {
            self.breaches
                .push("move its hits elsewhere and delete it, and it will be created correctly".into());
        }
    }

    fn find_changes(&mut self, found: &Config) {
        let wanted = self.wanted.clone();
        let is_less = |found: i64, wanted: i64| found >= 0 && (wanted < 0 || found < wanted);
        let mut needed = |is_needed: bool, text: String, apply: fn(&mut Config, &Config)| {
            if is_needed {
                self.needed.push(Change { text, apply });
            }
        };
        needed(
            wanted.discard == DiscardPolicy::New && found.discard != DiscardPolicy::New,
            "discard policy old, now new".into(),
            |it, wanted| it.discard = wanted.discard,
        );
        needed(
            is_less(found.max_messages_per_subject, wanted.max_messages_per_subject),
            format!(
                "{} messages per subject, now {}",
                found.max_messages_per_subject, wanted.max_messages_per_subject
            ),
            |it, wanted| it.max_messages_per_subject = wanted.max_messages_per_subject,
        );
        let is_shorter =
            !found.max_age.is_zero() && (wanted.max_age.is_zero() || found.max_age < wanted.max_age);
        needed(
            is_shorter,
            format!("maximum age {:?}, now {:?}", found.max_age, wanted.max_age),
            |it, wanted| it.max_age = wanted.max_age,
        );
        needed(
            found.num_replicas < wanted.num_replicas,
            format!("{} replicas, now {}", found.num_replicas, wanted.num_replicas),
            |it, wanted| it.num_replicas = wanted.num_replicas,
        );
        needed(found.no_ack, "no acknowledgements, now with".into(), |it, _| it.no_ack = false);
        needed(
            found.max_message_size > 0 && (found.max_message_size as usize) < MESSAGE_LEN_MAX,
            format!("messages of at most {} bytes, now any", found.max_message_size),
            |it, _| it.max_message_size = -1,
        );
        needed(
            subjects(found, &wanted) != found.subjects,
            format!("subjects {:?}, now {:?}", found.subjects, subjects(found, &wanted)),
            |it, wanted| it.subjects = subjects(it, wanted),
        );
        let mut useful = |is_useful: bool, text: String, apply: fn(&mut Config, &Config)| {
            if is_useful {
                self.useful.push(Change { text, apply });
            }
        };
        useful(
            is_less(found.max_bytes, wanted.max_bytes),
            format!("at most {} bytes, now {}", found.max_bytes, wanted.max_bytes),
            |it, wanted| it.max_bytes = wanted.max_bytes,
        );
        useful(
            is_less(found.max_messages, wanted.max_messages),
            format!("at most {} messages, now any number", found.max_messages),
            |it, wanted| it.max_messages = wanted.max_messages,
        );
        useful(
            found.duplicate_window < wanted.duplicate_window,
            format!("duplicate window {:?}, now {:?}", found.duplicate_window, wanted.duplicate_window),
            |it, wanted| it.duplicate_window = wanted.duplicate_window,
        );
        useful(
            wanted.allow_direct && !found.allow_direct,
            "no direct reads, now with".into(),
            |it, wanted| it.allow_direct = wanted.allow_direct,
        );
    }
}

/// The subjects that a stream gets: the wanted ones, and those of somebody else that it has. Ours that it has and should
/// not, from an earlier release, would keep other streams from having them.
fn subjects(found: &Config, wanted: &Config) -> Vec<String> {
    let foreign = found.subjects.iter().filter(|it| !it.starts_with("etwsieve."));
    let all: Vec<String> = wanted.subjects.iter().chain(foreign).cloned().collect();
    let has_all = all.len() == found.subjects.len() && all.iter().all(|it| found.subjects.contains(it));
    if has_all { found.subjects.clone() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, what follows from the difference, and how it is made.
    type Row = (&'static str, [usize; 3], fn(&mut Config));

    /// What is done about each difference: a breach, a change that is needed, one that is useful, or nothing.
    #[test]
    fn each_difference_has_its_consequence() {
        let settings = NatsSettings { replicas: 3, max_days: 2, ..NatsSettings::for_url("nats://h") };
        let wanted = wanted(&settings, Layout::new(1)).swap_remove(0).config;
        let rows: [Row; 22] = [
            ("as wanted", [0, 0, 0], |_| {}),
            ("memory", [2, 0, 0], |it| it.storage = StorageType::Memory),
            ("interest", [2, 0, 0], |it| it.retention = RetentionPolicy::Interest),
            ("work queue", [2, 0, 0], |it| it.retention = RetentionPolicy::WorkQueue),
            ("sealed", [2, 0, 0], |it| it.sealed = true),
            ("discard old", [0, 1, 0], |it| it.discard = DiscardPolicy::Old),
            ("one replica", [0, 1, 0], |it| it.num_replicas = 1),
            ("five replicas", [0, 0, 0], |it| it.num_replicas = 5),
            ("one message per subject", [0, 1, 0], |it| it.max_messages_per_subject = 1),
            ("an hour", [0, 1, 0], |it| it.max_age = Duration::from_hours(1)),
            ("a week", [0, 0, 0], |it| it.max_age = Duration::from_hours(7 * 24)),
            ("for ever", [0, 0, 0], |it| it.max_age = Duration::ZERO),
            ("no acknowledgements", [0, 1, 0], |it| it.no_ack = true),
            ("short messages", [0, 1, 0], |it| it.max_message_size = 1000),
            ("long messages", [0, 0, 0], |it| it.max_message_size = 8 << 20),
            ("2 MB", [0, 0, 1], |it| it.max_bytes = 2 << 20),
            ("no limit", [0, 0, 0], |it| it.max_bytes = -1),
            ("1000 messages", [0, 0, 1], |it| it.max_messages = 1000),
            ("duplicate window", [0, 0, 1], |it| it.duplicate_window = Duration::from_secs(1)),
            ("earlier release", [0, 1, 0], |it| {
                it.subjects = vec!["etwsieve.hits.>".into(), "etwsieve.gaps.>".into()];
            }),
            ("other subjects", [0, 1, 0], |it| it.subjects = vec!["x.>".into()]),
            ("more subjects", [0, 0, 0], |it| it.subjects.insert(0, "x.>".into())),
        ];
        for (name, expected, change) in rows {
            let mut found = wanted.clone();
            change(&mut found);
            let review = Review::of(&found, &wanted);
            let counts = [review.breaches.len(), review.needed.len(), review.useful.len()];
            assert_eq!(counts, expected, "{name}");
            for change in review.needed.iter().chain(&review.useful) {
                (change.apply)(&mut found, &wanted);
            }
            let again = Review::of(&found, &wanted);
            assert!(again.needed.is_empty() && again.useful.is_empty(), "{name}: repaired in one step");
        }
    }
}
