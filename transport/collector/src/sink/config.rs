//! The `[[sink]]` tables of a configuration.
//!
//! Unknown keys and values out of range are errors that name the sink. `docs/collector.md` describes every key.

use super::http::secret;
use super::{
    BATCH_HITS_MAX, Backoff, BatchLimits, Credentials, DeadLetter, Elastic, ElasticSettings, Feed,
    FileSettings, JsonFile, RecordFormat, Sink, SinkRunner, SinkStats, Splunk, SplunkSettings, Syslog,
    SyslogSettings,
};
use data_encoding::BASE64;
use serde::Deserialize;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of sinks in a configuration.
pub const SINKS_MAX: usize = 32;
/// Maximum length of a sink's name, in bytes.
const NAME_LEN_MAX: usize = 64;
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_mins(1);
const MIB: u64 = 1024 * 1024;
/// Range of sizes that are given in MiB.
const MB: RangeInclusive<u64> = 0..=1024 * 1024;
const SECONDS_PER_HOUR: u64 = 3600;

/// A `[[sink]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkConfig {
    /// JSON Lines in a file.
    Jsonl(JsonlConfig),
    /// Splunk's HTTP Event Collector.
    Splunk(SplunkConfig),
    /// Elasticsearch's bulk API.
    Elastic(ElasticConfig),
    /// Syslog over TLS.
    Syslog(SyslogConfig),
}

/// Keys of `type = "jsonl"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "docs/collector.md is the description of the keys")]
pub struct JsonlConfig {
    pub name: Option<String>,
    pub path: PathBuf,
    #[serde(default)]
    pub format: RecordFormat,
    #[serde(default = "rotate_mb")]
    pub rotate_mb: u64,
    #[serde(default)]
    pub rotate_hours: u64,
    #[serde(default)]
    pub keep: usize,
    #[serde(default = "batch_hits")]
    pub batch_hits: usize,
    #[serde(default = "batch_mb")]
    pub batch_mb: u64,
    pub dead_letter: Option<PathBuf>,
    #[serde(default = "dead_letter_mb")]
    pub dead_letter_mb: u64,
}

/// Keys of `type = "splunk"`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "docs/collector.md is the description of the keys")]
pub struct SplunkConfig {
    pub name: Option<String>,
    pub url: String,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub index: Option<String>,
    #[serde(default = "sourcetype")]
    pub sourcetype: String,
    #[serde(default = "yes")]
    pub acknowledge: bool,
    #[serde(default = "ack_timeout_seconds")]
    pub ack_timeout_seconds: u64,
    #[serde(default = "request_kb")]
    pub request_kb: usize,
    #[serde(default = "batch_hits")]
    pub batch_hits: usize,
    #[serde(default = "batch_mb")]
    pub batch_mb: u64,
    pub dead_letter: Option<PathBuf>,
    #[serde(default = "dead_letter_mb")]
    pub dead_letter_mb: u64,
}

/// Keys of `type = "elastic"`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "docs/collector.md is the description of the keys")]
pub struct ElasticConfig {
    pub name: Option<String>,
    pub url: String,
    pub api_key: Option<String>,
    pub api_key_file: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    #[serde(default = "index")]
    pub index: String,
    #[serde(default = "request_kb")]
    pub request_kb: usize,
    #[serde(default = "batch_hits")]
    pub batch_hits: usize,
    #[serde(default = "batch_mb")]
    pub batch_mb: u64,
    pub dead_letter: Option<PathBuf>,
    #[serde(default = "dead_letter_mb")]
    pub dead_letter_mb: u64,
}

/// Keys of `type = "syslog"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "docs/collector.md is the description of the keys")]
pub struct SyslogConfig {
    pub name: Option<String>,
    pub address: String,
    pub server_name: Option<String>,
    pub ca_file: PathBuf,
    pub bundle: Option<PathBuf>,
    #[serde(default = "facility")]
    pub facility: u8,
    #[serde(default = "enterprise")]
    pub enterprise: u32,
    #[serde(default = "message_bytes")]
    pub message_bytes: usize,
    #[serde(default = "batch_hits")]
    pub batch_hits: usize,
    #[serde(default = "batch_mb")]
    pub batch_mb: u64,
    pub dead_letter: Option<PathBuf>,
    #[serde(default = "dead_letter_mb")]
    pub dead_letter_mb: u64,
}

fn rotate_mb() -> u64 {
    100
}
fn batch_hits() -> usize {
    500
}
fn batch_mb() -> u64 {
    8
}
fn dead_letter_mb() -> u64 {
    100
}
fn sourcetype() -> String {
    "etwsieve:detection".to_owned()
}
fn yes() -> bool {
    true
}
fn ack_timeout_seconds() -> u64 {
    120
}
fn request_kb() -> usize {
    900
}
fn index() -> String {
    "logs-etwsieve.detection-default".to_owned()
}
/// Returns `local0`.
fn facility() -> u8 {
    16
}
/// Returns the number reserved for examples (RFC 5612), because etwsieve has no number.
fn enterprise() -> u32 {
    32_473
}
fn message_bytes() -> usize {
    8192
}

// Omits secrets.
impl std::fmt::Debug for SplunkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SplunkConfig")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
impl std::fmt::Debug for ElasticConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ElasticConfig")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A sink is configured incorrectly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sink {name:?}: {detail}")]
pub struct SinkConfigError {
    /// The sink.
    pub name: String,
    /// What is wrong and what is expected.
    pub detail: String,
}

/// The keys that all types of sinks have.
struct Common<'a> {
    name: Option<&'a str>,
    default_name: &'static str,
    batch_hits: usize,
    batch_mb: u64,
    dead_letter: Option<&'a Path>,
    dead_letter_mb: u64,
}

impl SinkConfig {
    /// Returns the name of the sink, under which the feed keeps its cursor. By default, the name is the type.
    pub fn name(&self) -> &str {
        let common = self.common();
        common.name.unwrap_or(common.default_name)
    }

    /// Returns a file sink with default settings, as for `--sink jsonl:PATH`.
    pub fn jsonl(path: PathBuf) -> Self {
        Self::Jsonl(JsonlConfig {
            name: None,
            path,
            format: RecordFormat::default(),
            rotate_mb: rotate_mb(),
            rotate_hours: 0,
            keep: 0,
            batch_hits: batch_hits(),
            batch_mb: batch_mb(),
            dead_letter: None,
            dead_letter_mb: dead_letter_mb(),
        })
    }

    /// Checks all values, reading the files that they name.
    ///
    /// # Errors
    ///
    /// The first value out of range, a file that cannot be read, or contradictory credentials.
    pub fn check(&self) -> Result<(), SinkConfigError> {
        self.sink(Path::new("")).map(drop)
    }

    /// Creates the sink with its runner. Paths are resolved against `folder`, including that of the dead-letter file,
    /// by default `NAME.dead.jsonl`.
    ///
    /// # Errors
    ///
    /// The same as those of [`check`](Self::check).
    pub fn runner(&self, folder: &Path, feed: Box<dyn Feed>) -> Result<SinkRunner, SinkConfigError> {
        let common = self.common();
        let name = self.name().to_owned();
        let dead_letter =
            common.dead_letter.map_or_else(|| PathBuf::from(format!("{name}.dead.jsonl")), Path::to_owned);
        Ok(SinkRunner {
            sink: self.sink(folder)?,
            feed,
            dead_letter: DeadLetter::new(folder.join(dead_letter), name.clone(), common.dead_letter_mb * MIB),
            limits: BatchLimits { hits: common.batch_hits, bytes: (common.batch_mb * MIB) as usize },
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            stats: Arc::new(SinkStats::default()),
            name,
        })
    }

    /// Returns the files that the sink writes, each with a description of the key that names it. Relative paths are
    /// resolved against `folder`.
    pub fn outputs(&self, folder: &Path) -> Vec<(String, PathBuf)> {
        let name = self.name();
        let dead = self.common().dead_letter;
        let dead = dead.map_or_else(|| PathBuf::from(format!("{name}.dead.jsonl")), Path::to_owned);
        let mut outputs = vec![(format!("dead_letter of sink {name:?}"), folder.join(dead))];
        if let Self::Jsonl(it) = self {
            outputs.push((format!("path of sink {name:?}"), folder.join(&it.path)));
        }
        outputs
    }

    fn common(&self) -> Common<'_> {
        macro_rules! common {
            ($it:expr, $default_name:literal) => {
                Common {
                    name: $it.name.as_deref(),
                    default_name: $default_name,
                    batch_hits: $it.batch_hits,
                    batch_mb: $it.batch_mb,
                    dead_letter: $it.dead_letter.as_deref(),
                    dead_letter_mb: $it.dead_letter_mb,
                }
            };
        }
        match self {
            Self::Jsonl(it) => common!(it, "jsonl"),
            Self::Splunk(it) => common!(it, "splunk"),
            Self::Elastic(it) => common!(it, "elastic"),
            Self::Syslog(it) => common!(it, "syslog"),
        }
    }

    fn sink(&self, folder: &Path) -> Result<Box<dyn Sink>, SinkConfigError> {
        self.build(folder).map_err(|detail| SinkConfigError { name: self.name().to_owned(), detail })
    }

    fn build(&self, folder: &Path) -> Result<Box<dyn Sink>, String> {
        let common = self.common();
        check_name(self.name())?;
        in_range("batch_hits", common.batch_hits as u64, 1..=BATCH_HITS_MAX as u64)?;
        in_range("batch_mb", common.batch_mb, 1..=256)?;
        in_range("dead_letter_mb", common.dead_letter_mb, 1..=*MB.end())?;
        let at = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        Ok(match self {
            Self::Jsonl(it) => {
                in_range("rotate_mb", it.rotate_mb, MB)?;
                in_range("rotate_hours", it.rotate_hours, 0..=24 * 366)?;
                Box::new(JsonFile::new(FileSettings {
                    path: folder.join(&it.path),
                    format: it.format,
                    rotate_bytes: it.rotate_mb * MIB,
                    rotate_seconds: it.rotate_hours * SECONDS_PER_HOUR,
                    keep: it.keep,
                }))
            }
            Self::Splunk(it) => {
                in_range("request_kb", it.request_kb as u64, 64..=65_536)?;
                in_range("ack_timeout_seconds", it.ack_timeout_seconds, 1..=3600)?;
                let token = secret("token", it.token.as_deref(), at(&it.token_file).as_ref())?;
                Box::new(Splunk::new(SplunkSettings {
                    url: it.url.clone(),
                    credentials: Credentials::new(format!("Splunk {token}")),
                    ca_file: at(&it.ca_file),
                    index: it.index.clone(),
                    sourcetype: it.sourcetype.clone(),
                    acknowledge: it.acknowledge,
                    ack_timeout: Duration::from_secs(it.ack_timeout_seconds),
                    request_bytes: it.request_kb * 1024,
                })?)
            }
            Self::Elastic(it) => {
                in_range("request_kb", it.request_kb as u64, 64..=65_536)?;
                Box::new(Elastic::new(ElasticSettings {
                    url: it.url.clone(),
                    credentials: it.credentials(folder)?,
                    ca_file: at(&it.ca_file),
                    index: it.index.clone(),
                    request_bytes: it.request_kb * 1024,
                })?)
            }
            Self::Syslog(it) => {
                in_range("facility", u64::from(it.facility), 0..=23)?;
                in_range("message_bytes", it.message_bytes as u64, 2048..=MIB)?;
                Box::new(Syslog::new(SyslogSettings {
                    address: it.address.clone(),
                    server_name: it.server_name.clone(),
                    ca_file: folder.join(&it.ca_file),
                    bundle: at(&it.bundle),
                    facility: it.facility,
                    enterprise: it.enterprise,
                    message_bytes: it.message_bytes,
                })?)
            }
        })
    }
}

impl ElasticConfig {
    fn credentials(&self, folder: &Path) -> Result<Option<Credentials>, String> {
        let at = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        let key = self.api_key.is_some() || self.api_key_file.is_some();
        let password = self.password.is_some() || self.password_file.is_some();
        match (key, &self.user) {
            (false, None) if !password => Ok(None),
            (true, None) if !password => {
                let key = secret("api_key", self.api_key.as_deref(), at(&self.api_key_file).as_ref())?;
                Ok(Some(Credentials::new(format!("ApiKey {key}"))))
            }
            (false, Some(user)) => {
                let password =
                    secret("password", self.password.as_deref(), at(&self.password_file).as_ref())?;
                Ok(Some(Credentials::new(format!(
                    "Basic {}",
                    BASE64.encode(format!("{user}:{password}").as_bytes())
                ))))
            }
            _ => Err("set either api_key, or user and password".to_owned()),
        }
    }
}

/// Checks all sinks of a configuration: their number, values and names.
///
/// # Errors
///
/// Those of [`SinkConfig::check`], too many sinks, or two sinks with the same name.
pub fn check_all(sinks: &[SinkConfig], folder: &Path) -> Result<(), SinkConfigError> {
    let mut names = HashSet::new();
    for (index, sink) in sinks.iter().enumerate() {
        let refuse =
            |detail: &str| SinkConfigError { name: sink.name().to_owned(), detail: detail.to_owned() };
        if index >= SINKS_MAX {
            return Err(refuse("too many sinks, the maximum is 32"));
        }
        if !names.insert(sink.name()) {
            return Err(refuse("two sinks have this name; set a different `name`"));
        }
        sink.sink(folder)?;
    }
    Ok(())
}

/// Checks a name, which becomes part of file names and of the name of a JetStream consumer.
fn check_name(name: &str) -> Result<(), String> {
    let fine = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fine { Ok(()) } else { Err("invalid name, expected 1 to 64 letters, digits, '-' and '_'".to_owned()) }
}

fn in_range(key: &str, value: u64, range: RangeInclusive<u64>) -> Result<(), String> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(format!("{key} is {value}, expected {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests;
