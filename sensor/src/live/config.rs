//! The configuration of `etwsieve watch`: a TOML file that is read once. All values are checked before anything starts.
//!
//! An unknown key is an error. [`Config::documented`] writes the file with an explanation of each key; `docs/config.md`
//! contains that text.

mod error;
mod keys;

pub use error::ConfigError;

use super::settings::{PipelineSettings, SessionSettings, SettingError, in_range};
use crate::delivery::CollectorSettings;
use crate::output::Format;
use crate::search::{ScopeChoice, ViewChoice};
use etwsieve_transport::files::read_at_most;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Path of the configuration that Windows commands use unless another one is named.
pub const DEFAULT_PATH: &str = r"C:\ProgramData\etwsieve\etwsieve.toml";
/// Maximum length of a configuration file in bytes.
pub const CONFIG_LEN_MAX: usize = 256 << 10;
/// Maximum length of the log filter in bytes.
const LOG_LEVEL_LEN_MAX: usize = 1024;
const GUARDIAN_CHECK_SECONDS: RangeInclusive<u64> = 1..=300;
const REPORT_EVERY_SECONDS: RangeInclusive<u64> = 1..=86_400;
const RESTART_DELAY_MAX_SECONDS: RangeInclusive<u64> = 1..=3600;
const RELOAD_CHECK_SECONDS: RangeInclusive<u64> = 0..=3600;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rule files, and folders that are searched for .yml and .yaml files. Empty: the built-in rule.
    pub rules: Vec<PathBuf>,
    /// Continue without invalid rules.
    pub allow_bad_rules: bool,
    /// The ETW session.
    pub session: SessionSettings,
    /// Threads and queues.
    pub pipeline: PipelineSettings,
    /// Scopes and views.
    pub search: SearchSettings,
    /// Outputs of hits.
    pub output: OutputSettings,
    /// The collector, and the spool for hits that it has not acknowledged.
    pub collector: CollectorSettings,
    /// Metrics for Prometheus.
    pub metrics: MetricsSettings,
    /// Checks of the session.
    pub guardian: GuardianSettings,
    /// Reloading of changed rules.
    pub reload: ReloadSettings,
    /// Diagnostics.
    pub log: LogSettings,
}

/// Which hits are reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Scopes whose hits are reported; at least one.
    pub scopes: Vec<ScopeChoice>,
    /// Views whose hits are reported; at least one.
    pub views: Vec<ViewChoice>,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { scopes: ScopeChoice::ALL.into(), views: ViewChoice::ALL.into() }
    }
}

/// Outputs of hits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// Format of the output.
    pub format: LineFormat,
    /// File to which hits are appended. `None`: standard output.
    pub file: Option<PathBuf>,
    /// SQLite database in which hits are stored as well.
    pub store: Option<PathBuf>,
}

/// Formats with one line of JSON per hit and rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// The field names of etwsieve.
    #[default]
    Jsonl,
    /// Elastic Common Schema.
    Ecs,
    /// Splunk's HTTP Event Collector.
    Splunk,
}

impl From<LineFormat> for Format {
    fn from(format: LineFormat) -> Self {
        match format {
            LineFormat::Jsonl => Self::Jsonl,
            LineFormat::Ecs => Self::Ecs,
            LineFormat::Splunk => Self::Splunk,
        }
    }
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Loopback address and port of the metrics server. `None`: no server.
    pub listen: Option<SocketAddr>,
}

/// Checks of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardianSettings {
    /// Seconds between two checks of the session: 1 to 300.
    pub check_seconds: u64,
    /// Seconds between two log entries with the counts: 1 to 86400.
    pub report_every_seconds: u64,
    /// Maximum pause in seconds before a restart of the session; the pause doubles up to it: 1 to 3600.
    pub restart_delay_max_seconds: u64,
}

impl Default for GuardianSettings {
    fn default() -> Self {
        Self { check_seconds: 5, report_every_seconds: 60, restart_delay_max_seconds: 300 }
    }
}

/// Reloading of changed rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadSettings {
    /// Seconds between two checks of the rule files: 1 to 3600; 0 for never.
    pub check_seconds: u64,
}

impl Default for ReloadSettings {
    fn default() -> Self {
        Self { check_seconds: 5 }
    }
}

/// Diagnostics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A level, or a filter such as `info,etwsieve::live=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

impl Config {
    /// Reads the file at `path`. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] with the file and, if known, the line, the key, and the found and expected values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
        let bytes = read_at_most(path, CONFIG_LEN_MAX as u64).map_err(unreadable)?;
        if bytes.len() > CONFIG_LEN_MAX {
            return Err(ConfigError::TooLong { path: path.into() });
        }
        let text = str::from_utf8(&bytes)
            .map_err(|error| ConfigError::NotText { path: path.into(), offset: error.valid_up_to() })?;
        let mut config = Self::parse(text, path)?;
        if let Some(folder) = path.parent() {
            config.start_paths_at(folder);
        }
        Ok(config)
    }

    /// Parses a text; errors contain `path`. Relative paths are kept.
    ///
    /// # Errors
    ///
    /// See [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // Windows editors write a byte order mark.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let config: Self = toml::from_str(text).map_err(|error| error::syntax(path, text, &error))?;
        config.validate().map_err(|setting| error::setting(path, text, setting))?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first invalid value.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.session.validate()?;
        self.pipeline.validate()?;
        self.collector.validate()?;
        if self.search.scopes.is_empty() {
            return Err(SettingError::new("search.scopes", "[]", "\"event\", \"block\", or both"));
        }
        if self.search.views.is_empty() {
            return Err(SettingError::new(
                "search.views",
                "[]",
                "\"raw\", \"normalized\", \"call\", or several of them",
            ));
        }
        if let Some(listen) = self.metrics.listen {
            let is_loopback = listen.ip().to_canonical().is_loopback();
            if !is_loopback || listen.port() == 0 {
                let expected = "a port of the loopback interface, such as 127.0.0.1:9477, because the server has neither \
                                encryption nor authentication";
                return Err(SettingError::new("metrics.listen", listen, expected));
            }
        }
        let guardian = &self.guardian;
        in_range("guardian.check_seconds", guardian.check_seconds, &GUARDIAN_CHECK_SECONDS)?;
        in_range("guardian.report_every_seconds", guardian.report_every_seconds, &REPORT_EVERY_SECONDS)?;
        in_range(
            "guardian.restart_delay_max_seconds",
            guardian.restart_delay_max_seconds,
            &RESTART_DELAY_MAX_SECONDS,
        )?;
        in_range("reload.check_seconds", self.reload.check_seconds, &RELOAD_CHECK_SECONDS)?;
        let level = &self.log.level;
        if level.len() > LOG_LEVEL_LEN_MAX {
            let expected = format!("at most {LOG_LEVEL_LEN_MAX}");
            return Err(SettingError::new("log.level", format_args!("{} bytes", level.len()), expected));
        }
        if level.is_empty() || EnvFilter::try_new(level).is_err() {
            let expected = "error, warn, info, debug, trace, or a filter such as info,etwsieve=debug";
            return Err(SettingError::new("log.level", format_args!("{level:?}"), expected));
        }
        for (key, path) in self.paths() {
            if path.as_os_str().is_empty() {
                return Err(SettingError::new(key, "\"\"", "a path"));
            }
        }
        Ok(())
    }

    /// Returns the configuration as TOML with a comment above every key. Keys without a value are commented out.
    pub fn documented(&self) -> String {
        keys::document(self)
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let output = [
            ("output.file", &self.output.file),
            ("output.store", &self.output.store),
            ("collector.bundle", &self.collector.bundle),
            ("collector.spool", &self.collector.spool),
        ];
        let rules = self.rules.iter().map(|path| ("rules", path));
        rules.chain(output.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?))))
    }

    fn start_paths_at(&mut self, folder: &Path) {
        let collector = &mut self.collector;
        let output =
            [&mut self.output.file, &mut self.output.store, &mut collector.bundle, &mut collector.spool];
        for path in self.rules.iter_mut().chain(output.into_iter().flatten()) {
            // `join` keeps absolute paths.
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests;
