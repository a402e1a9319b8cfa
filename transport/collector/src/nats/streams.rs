//! The required configuration of streams, and its repair.
//!
//! A stream that an administrator created or changed may discard acknowledged hits. Differences that are safe to repair
//! are repaired. While any other difference endangers hits, none are acknowledged.

use super::connect::MESSAGE_LEN_MAX;
use super::layout::{CONFLICTS, GAPS, LEDGER_STREAM, SINKS, STATUS, STATUS_STREAM, StreamLayout};
use super::{NatsError, NatsSettings};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use std::time::Duration;

/// Pause before a deleted stream is created again: nats-server 2.9 removes its files after answering, and would remove
/// those of a new stream of the same name.
const REMOVAL_TIME: Duration = Duration::from_secs(1);
/// Maximum size in bytes of the stream of statuses, and of the ledger.
const SIDE_STREAM_BYTES: i64 = 256 << 20;
/// Maximum number of gaps, and of conflicts, per sensor in the ledger.
const LEDGER_PER_SUBJECT_MAX: i64 = 10_000;

/// The purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Hits,
    Ledger,
    Status,
}

/// A stream with its required configuration.
#[derive(Clone, Debug)]
pub(super) struct StreamSpec {
    pub(super) role: Role,
    pub(super) config: Config,
}

/// The outcome of a check.
#[derive(Debug)]
pub(super) struct CheckOutcome {
    /// It was missing and has been created.
    pub(super) is_new: bool,
    /// Why hits must not be acknowledged; `None` if they may.
    pub(super) violation: Option<String>,
}

/// Returns the required configuration of all streams.
pub(super) fn required(settings: &NatsSettings, layout: StreamLayout) -> Vec<StreamSpec> {
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
    let hits = (0..layout.partitions()).map(|partition| StreamSpec {
        role: Role::Hits,
        config: Config {
            name: layout.stream(partition),
            description: Some("hits of etwsieve".into()),
            subjects: vec![format!("{}.*", layout.prefix(partition))],
            // Sensors keep hits that a full stream refuses. The alternative is to remove hits that no sink has
            // received.
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
    hits.chain(sides.into_iter().map(|(role, config)| StreamSpec { role, config })).collect()
}

/// Checks a stream, creates it if it is missing, and repairs it. `was_there`: a missing stream may have been deleted
/// just now.
///
/// # Errors
///
/// [`NatsError::JetStream`] if the cluster does not answer or refuses to create the stream.
pub(super) async fn check(
    context: &Context,
    required: &StreamSpec,
    was_there: bool,
) -> Result<CheckOutcome, NatsError> {
    let name = &required.config.name;
    let what = || format!("the stream {name}");
    let info = match context.get_stream(name).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                if was_there {
                    tokio::time::sleep(REMOVAL_TIME).await;
                }
                context.create_stream(&required.config).await.map_err(|error| refusal(name, &error))?;
                return Ok(CheckOutcome { is_new: true, violation: None });
            }
            _ => return Err(NatsError::jetstream(what(), super::connect::chain(&error))),
        },
    };
    let diff = ConfigDiff::of(&info.config, &required.config);
    if diff.violations.is_empty() && diff.needed.is_empty() && diff.useful.is_empty() {
        return Ok(CheckOutcome { is_new: false, violation: None });
    }
    if !diff.violations.is_empty() {
        let violation = format!("{name}: {}", diff.violations.join(", "));
        return Ok(CheckOutcome { is_new: false, violation: Some(violation) });
    }
    repair(context, name, &info, &diff).await
}

/// Applies all changes, or only the required ones if the servers refuse that.
async fn repair(
    context: &Context,
    name: &str,
    info: &Info,
    diff: &ConfigDiff,
) -> Result<CheckOutcome, NatsError> {
    let mut last = String::new();
    for with_useful in [true, false] {
        if !with_useful && diff.useful.is_empty() {
            continue;
        }
        let mut config = info.config.clone();
        let useful = if with_useful { diff.useful.as_slice() } else { &[] };
        let mut texts = Vec::new();
        for change in diff.needed.iter().chain(useful) {
            (change.apply)(&mut config, &diff.required);
            texts.push(change.text.as_str());
        }
        if texts.is_empty() {
            break;
        }
        match context.update_stream(&config).await {
            Ok(_) => {
                tracing::warn!(stream = name, "repaired: {}", texts.join(", "));
                return Ok(CheckOutcome { is_new: false, violation: None });
            }
            Err(error) => last = super::connect::chain(&error),
        }
    }
    let needed: Vec<&str> = diff.needed.iter().map(|change| change.text.as_str()).collect();
    if needed.is_empty() {
        tracing::debug!(stream = name, "cannot change the limits of the stream: {last}");
        return Ok(CheckOutcome { is_new: false, violation: None });
    }
    let violation = format!("{name}: cannot repair ({}): {last}", needed.join(", "));
    Ok(CheckOutcome { is_new: false, violation: Some(violation) })
}

/// Returns the error for a stream that cannot be created, final or transient.
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

/// The differences between a stream and its required configuration. Larger limits are not a difference.
struct ConfigDiff {
    required: Config,
    /// Differences that endanger acknowledged hits and cannot be repaired.
    violations: Vec<String>,
    /// Changes without which acknowledged hits could be lost.
    needed: Vec<Change>,
    /// Changes without which sensors would have to wait or hits could be stored twice.
    useful: Vec<Change>,
}

impl ConfigDiff {
    fn of(found: &Config, required: &Config) -> Self {
        let mut diff = Self {
            required: required.clone(),
            violations: Vec::new(),
            needed: Vec::new(),
            useful: Vec::new(),
        };
        diff.find_violations(found);
        diff.find_changes(found);
        diff
    }

    fn find_violations(&mut self, found: &Config) {
        let violations = [
            (found.storage != self.required.storage, "its storage is memory, which a restart empties"),
            (
                found.retention != self.required.retention,
                "its retention is not `limits`, so hits are removed before every sink has received them",
            ),
            (found.mirror.is_some(), "it is a mirror"),
            (found.sealed, "it is sealed"),
            (found.subject_transform.is_some(), "it changes subjects"),
        ];
        let found = violations.into_iter().filter(|(is_violation, _)| *is_violation);
        self.violations = found.map(|(_, text)| text.to_owned()).collect();
        if !self.violations.is_empty() {
            self.violations
                .push("move its hits elsewhere and delete it, and it will be created again".into());
        }
    }

    fn find_changes(&mut self, found: &Config) {
        let required = self.required.clone();
        let is_less = |found: i64, required: i64| found >= 0 && (required < 0 || found < required);
        let mut needed = |is_needed: bool, text: String, apply: fn(&mut Config, &Config)| {
            if is_needed {
                self.needed.push(Change { text, apply });
            }
        };
        needed(
            required.discard == DiscardPolicy::New && found.discard != DiscardPolicy::New,
            "discard policy old, now new".into(),
            |it, required| it.discard = required.discard,
        );
        needed(
            is_less(found.max_messages_per_subject, required.max_messages_per_subject),
            format!(
                "{} messages per subject, now {}",
                found.max_messages_per_subject, required.max_messages_per_subject
            ),
            |it, required| it.max_messages_per_subject = required.max_messages_per_subject,
        );
        let is_shorter =
            !found.max_age.is_zero() && (required.max_age.is_zero() || found.max_age < required.max_age);
        needed(
            is_shorter,
            format!("maximum age {:?}, now {:?}", found.max_age, required.max_age),
            |it, required| it.max_age = required.max_age,
        );
        needed(
            found.num_replicas < required.num_replicas,
            format!("{} replicas, now {}", found.num_replicas, required.num_replicas),
            |it, required| it.num_replicas = required.num_replicas,
        );
        needed(found.no_ack, "no acknowledgements, now with".into(), |it, _| it.no_ack = false);
        needed(
            found.max_message_size > 0 && (found.max_message_size as usize) < MESSAGE_LEN_MAX,
            format!("messages of at most {} bytes, now any", found.max_message_size),
            |it, _| it.max_message_size = -1,
        );
        needed(
            subjects(found, &required) != found.subjects,
            format!("subjects {:?}, now {:?}", found.subjects, subjects(found, &required)),
            |it, required| it.subjects = subjects(it, required),
        );
        let mut useful = |is_useful: bool, text: String, apply: fn(&mut Config, &Config)| {
            if is_useful {
                self.useful.push(Change { text, apply });
            }
        };
        useful(
            is_less(found.max_bytes, required.max_bytes),
            format!("at most {} bytes, now {}", found.max_bytes, required.max_bytes),
            |it, required| it.max_bytes = required.max_bytes,
        );
        useful(
            is_less(found.max_messages, required.max_messages),
            format!("at most {} messages, now any number", found.max_messages),
            |it, required| it.max_messages = required.max_messages,
        );
        useful(
            found.duplicate_window < required.duplicate_window,
            format!("duplicate window {:?}, now {:?}", found.duplicate_window, required.duplicate_window),
            |it, required| it.duplicate_window = required.duplicate_window,
        );
        useful(
            required.allow_direct && !found.allow_direct,
            "no direct reads, now with".into(),
            |it, required| it.allow_direct = required.allow_direct,
        );
    }
}

/// Returns the subjects that a stream should have: the required ones and existing ones that do not belong to etwsieve.
/// Subjects from an earlier release are removed, because they would prevent other streams from using them.
fn subjects(found: &Config, required: &Config) -> Vec<String> {
    let foreign = found.subjects.iter().filter(|it| !it.starts_with("etwsieve."));
    let all: Vec<String> = required.subjects.iter().chain(foreign).cloned().collect();
    let has_all = all.len() == found.subjects.len() && all.iter().all(|it| found.subjects.contains(it));
    if has_all { found.subjects.clone() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, the expected numbers of differences, and the change that causes them.
    type Row = (&'static str, [usize; 3], fn(&mut Config));

    /// Counts violations, required changes and useful changes.
    #[test]
    fn each_difference_has_its_consequence() {
        let settings = NatsSettings { replicas: 3, max_days: 2, ..NatsSettings::for_url("nats://h") };
        let required = required(&settings, StreamLayout::new(1)).swap_remove(0).config;
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
            let mut found = required.clone();
            change(&mut found);
            let diff = ConfigDiff::of(&found, &required);
            let counts = [diff.violations.len(), diff.needed.len(), diff.useful.len()];
            assert_eq!(counts, expected, "{name}");
            for change in diff.needed.iter().chain(&diff.useful) {
                (change.apply)(&mut found, &required);
            }
            let again = ConfigDiff::of(&found, &required);
            assert!(again.needed.is_empty() && again.useful.is_empty(), "{name}: repaired in one step");
        }
    }
}
