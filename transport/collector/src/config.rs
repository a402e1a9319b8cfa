//! The configuration of `etwsieve-collector serve` and `drain`: a TOML file that is read once and checked before
//! anything starts.
//!
//! Unknown keys are errors. `config/default.toml` documents every key; `config print` writes it.

use crate::nats::{NatsSettings, PARTITIONS_MAX};
use crate::server::{Security, ServerSettings};
use crate::sink::config::{SinkConfig, check_all};
use crate::sqlite::SqliteOptions;
use etwsieve_transport::files;
use serde::Deserialize;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;

/// The default configuration, with a comment for every key.
pub const DEFAULT_TOML: &str = include_str!("config/default.toml");
/// Maximum length of a configuration file, in bytes.
pub const CONFIG_LEN_MAX: u64 = 256 << 10;
const SECONDS_PER_DAY: u64 = 86_400;

/// The configuration of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/default.toml describes the keys")]
pub struct Config {
    pub listen: SocketAddr,
    pub store: String,
    pub pki: Option<PathBuf>,
    pub insecure_loopback: bool,
    pub limits: LimitsConfig,
    pub retention: RetentionConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub nats: NatsSettings,
    pub sink: Vec<SinkConfig>,
    /// The folder of the file, against which relative paths of sinks are resolved.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Table `[limits]`: limits of connections and the queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/default.toml describes the keys")]
pub struct LimitsConfig {
    pub window: u32,
    pub quiet_seconds: u32,
    pub handshake_seconds: u64,
    pub handshakes_max: usize,
    pub handshakes_per_address_max: usize,
    pub connections_max: u64,
    pub connections_per_sensor_max: usize,
    pub frames_per_second: u64,
    pub kb_per_second: u64,
    pub queue_frames: usize,
    pub queue_mb: usize,
    pub batch_frames: usize,
}

/// Table `[retention]`: how long hits are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/default.toml describes the keys")]
pub struct RetentionConfig {
    pub days: u64,
    pub size_mb: u64,
}

/// Table `[metrics]`: the Prometheus endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/default.toml describes the keys")]
pub struct MetricsConfig {
    pub listen: Option<SocketAddr>,
}

/// Table `[log]`: diagnostics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/default.toml describes the keys")]
pub struct LogConfig {
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9514)),
            store: "etwsieve-collector.db".into(),
            pki: None,
            insecure_loopback: false,
            limits: LimitsConfig::default(),
            retention: RetentionConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            nats: NatsSettings::default(),
            sink: Vec::new(),
            folder: PathBuf::new(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            window: 512,
            quiet_seconds: 60,
            handshake_seconds: 10,
            handshakes_max: 4096,
            handshakes_per_address_max: 1024,
            connections_max: 20_000,
            connections_per_sensor_max: 8,
            frames_per_second: 0,
            kb_per_second: 0,
            queue_frames: 8192,
            queue_mb: 64,
            batch_frames: 256,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; `etwsieve-collector config print` prints a template", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The text is not TOML, or a key or value is invalid.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, starting at 1.
        line: usize,
        /// The value that was found and what was expected.
        problem: String,
    },
    /// Settings contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// An invalid value: its key, the value that was found and what was expected.
type InvalidValue = (&'static str, String);

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it are resolved against its folder.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a key or value is invalid.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text_at_most(path, CONFIG_LEN_MAX)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        if text.len() as u64 > CONFIG_LEN_MAX {
            let problem = format!("longer than {CONFIG_LEN_MAX} bytes");
            return Err(ConfigError::Invalid { path: path.into(), line: 1, problem });
        }
        let mut config = Self::parse(&text, path)?;
        if let Some(folder) = path.parent() {
            // An absolute path replaces the folder.
            let at = |path: &mut Option<PathBuf>| {
                if let Some(path) = path {
                    *path = folder.join(&*path);
                }
            };
            at(&mut config.pki);
            config.nats.files_mut().into_iter().for_each(at);
            folder.clone_into(&mut config.folder);
            if !config.store.contains("://") {
                config.store = folder.join(&config.store).to_string_lossy().into_owned();
            }
        }
        // Not in `parse`, because this opens the files that sinks name.
        check_all(&config.sink, &config.folder).map_err(|error| ConfigError::Invalid {
            path: path.into(),
            line: line_of_sink(&text, config.sink.iter().position(|sink| sink.name() == error.name)),
            problem: error.to_string(),
        })?;
        Ok(config)
    }

    /// Parses and checks a configuration. `path` is only used in errors; relative paths are not resolved.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // Editors on Windows write a byte order mark.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let invalid = |offset: usize, problem| {
            let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
            ConfigError::Invalid { path: path.into(), line, problem }
        };
        let config: Self = toml::from_str(text).map_err(|error| {
            invalid(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        config
            .check()
            .map_err(|(key, problem)| invalid(offset_of(text, key), format!("{key} is {problem}")))?;
        Ok(config)
    }

    /// Checks every value.
    fn check(&self) -> Result<(), InvalidValue> {
        let LimitsConfig {
            window,
            quiet_seconds,
            handshake_seconds,
            handshakes_max,
            handshakes_per_address_max,
            connections_max,
            connections_per_sensor_max,
            frames_per_second,
            kb_per_second,
            queue_frames,
            queue_mb,
            batch_frames,
        } = self.limits;
        in_range("limits.window", u64::from(window), 1..=65_536)?;
        in_range("limits.quiet_seconds", u64::from(quiet_seconds), 3..=3600)?;
        in_range("limits.handshake_seconds", handshake_seconds, 1..=60)?;
        in_range("limits.handshakes_max", handshakes_max as u64, 1..=1_000_000)?;
        in_range("limits.handshakes_per_address_max", handshakes_per_address_max as u64, 1..=1_000_000)?;
        in_range("limits.connections_max", connections_max, 1..=1_000_000)?;
        in_range("limits.connections_per_sensor_max", connections_per_sensor_max as u64, 1..=1_000_000)?;
        in_range("limits.frames_per_second", frames_per_second, 0..=1_000_000)?;
        in_range("limits.kb_per_second", kb_per_second, 0..=1 << 20)?;
        in_range("limits.queue_frames", queue_frames as u64, 16..=1 << 20)?;
        in_range("limits.queue_mb", queue_mb as u64, 2..=65_536)?;
        in_range("limits.batch_frames", batch_frames as u64, 1..=8192)?;
        in_range("retention.days", self.retention.days, 0..=36_500)?;
        in_range("retention.size_mb", self.retention.size_mb, 0..=1 << 30)?;
        if let Some(listen) = self.metrics.listen
            && (!listen.ip().to_canonical().is_loopback() || listen.port() == 0)
        {
            let expected = "expected a loopback address such as 127.0.0.1:9478, because metrics are neither \
                            encrypted nor authenticated";
            return Err(("metrics.listen", format!("{listen}, {expected}")));
        }
        if self.store.is_empty() {
            return Err(("store", "\"\", expected a path".into()));
        }
        if self.store.contains("://") && self.nats().is_none() {
            return Err(("store", "not supported, expected a path or nats://HOST:PORT".into()));
        }
        in_range("nats.replicas", self.nats.replicas as u64, 1..=5)?;
        in_range("nats.partitions", self.nats.partitions as u64, 1..=PARTITIONS_MAX as u64)?;
        in_range("nats.max_gb", self.nats.max_gb, 1..=1 << 20)?;
        in_range("nats.max_days", self.nats.max_days, 0..=36_500)?;
        in_range("nats.duplicate_window_seconds", self.nats.duplicate_window_seconds, 1..=86_400)?;
        if let Some(bucket) = &self.nats.register {
            let is_name = |name: &str| {
                (1..=64).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            if !is_name(bucket) {
                let expected = "expected a bucket name of letters, digits, - and _";
                return Err(("nats.register", format!("{bucket:?}, {expected}")));
            }
        }
        let level = &self.log.level;
        if level.is_empty() || level.len() > 1024 || EnvFilter::try_new(level).is_err() {
            let expected =
                "expected error, warn, info, debug, trace, or a filter such as info,etwsieve_collector=debug";
            return Err(("log.level", format!("{level:?}, {expected}")));
        }
        Ok(())
    }

    /// Returns the settings of the cluster if the store is a cluster, not a file.
    pub fn nats(&self) -> Option<NatsSettings> {
        let is_url = ["nats://", "tls://"].iter().any(|scheme| self.store.starts_with(scheme));
        is_url.then(|| NatsSettings {
            servers: vec![self.store.clone()],
            sinks: self.sink.iter().map(|sink| sink.name().to_owned()).collect(),
            ..self.nats.clone()
        })
    }

    /// Returns the settings of the server.
    pub fn settings(&self) -> ServerSettings {
        let limits = &self.limits;
        ServerSettings {
            window: limits.window,
            quiet_ms: limits.quiet_seconds.saturating_mul(1000),
            handshake_time: Duration::from_secs(limits.handshake_seconds),
            hello_time: Duration::from_secs(limits.handshake_seconds),
            handshakes_max: limits.handshakes_max,
            handshakes_per_address_max: limits.handshakes_per_address_max,
            connections_max: limits.connections_max,
            connections_per_sensor_max: limits.connections_per_sensor_max,
            frames_per_second: limits.frames_per_second,
            bytes_per_second: limits.kb_per_second << 10,
            queue_frames: limits.queue_frames,
            queue_bytes: limits.queue_mb << 20,
            batch_frames: limits.batch_frames,
            ..ServerSettings::default()
        }
    }

    /// Returns the options of the embedded store.
    pub fn options(&self) -> SqliteOptions {
        SqliteOptions {
            retention_age: Duration::from_secs(self.retention.days * SECONDS_PER_DAY),
            retention_bytes: self.retention.size_mb << 20,
            sinks: Some(self.sink.iter().map(|sink| sink.name().to_owned()).collect()),
            ..SqliteOptions::default()
        }
    }

    /// Returns how sensors are authenticated.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Contradiction`] if neither `pki` nor `insecure_loopback` is set, or both.
    pub fn security(&self) -> Result<Security, ConfigError> {
        match (&self.pki, self.insecure_loopback) {
            (Some(folder), false) => Ok(Security::Pki(folder.clone())),
            (None, true) => Ok(Security::InsecureLoopback),
            (Some(_), true) => Err(ConfigError::Contradiction(
                "pki and insecure_loopback exclude each other; remove one of them",
            )),
            (None, false) => Err(ConfigError::Contradiction(
                "no certificates; create them with `etwsieve-collector pki init` and pass their folder with --pki, or \
                 pass --insecure-loopback for a first try on this machine",
            )),
        }
    }
}

fn in_range(key: &'static str, found: u64, range: RangeInclusive<u64>) -> Result<(), InvalidValue> {
    if range.contains(&found) {
        return Ok(());
    }
    Err((key, expected(found, range.start(), range.end())))
}

fn expected(found: u64, start: impl Display, end: impl Display) -> String {
    format!("{found}, expected {start} to {end}")
}

/// Returns the offset of the value of a key; 0 if the key is not set.
fn offset_of(text: &str, wanted: &str) -> usize {
    let (section, name) = wanted.split_once('.').unwrap_or(("", wanted));
    let (table, _) = DeTable::parse_recoverable(text);
    for (key, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(inner) if key.get_ref() == section => {
                for (key, value) in inner {
                    if key.get_ref() == name {
                        return value.span().start;
                    }
                }
            }
            _ if section.is_empty() && key.get_ref() == name => return value.span().start,
            _ => {}
        }
    }
    0
}

/// Returns the line of the table `[[sink]]` with this index; 1 if it is not found.
fn line_of_sink(text: &str, index: Option<usize>) -> usize {
    let mut tables = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("[[sink]]"));
    tables.nth(index.unwrap_or(0)).map_or(1, |(line, _)| line + 1)
}

#[cfg(test)]
mod tests;
