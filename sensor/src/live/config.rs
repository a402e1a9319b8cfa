//! The configuration of `etwsieve watch`: a TOML file, read once, every value checked before anything starts.
//!
//! A key that nobody knows is an error, not a wish that is silently ignored. [`Config::documented`] writes the file
//! with each key explained; `docs/config.md` shows that text.

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

/// Where the service looks for its configuration on Windows.
pub const DEFAULT_PATH: &str = r"C:\ProgramData\etwsieve\etwsieve.toml";
/// Most bytes of a configuration file.
pub const CONFIG_LEN_MAX: usize = 256 << 10;
/// Most bytes of the log filter.
const LOG_LEVEL_LEN_MAX: usize = 1024;
const GUARDIAN_CHECK_SECONDS: RangeInclusive<u64> = 1..=300;
const REPORT_EVERY_SECONDS: RangeInclusive<u64> = 1..=86_400;
const RESTART_DELAY_MAX_SECONDS: RangeInclusive<u64> = 1..=3600;
const RELOAD_CHECK_SECONDS: RangeInclusive<u64> = 0..=3600;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rule files, and folders that are searched for .yml and .yaml. Empty: the built-in rule.
    pub rules: Vec<PathBuf>,
    /// Whether to go on without the rules that cannot be understood.
    pub allow_bad_rules: bool,
    /// The ETW session.
    pub session: SessionSettings,
    /// Threads and queues.
    pub pipeline: PipelineSettings,
    /// What is searched.
    pub search: SearchSettings,
    /// Where hits go.
    pub output: OutputSettings,
    /// The collector, and the spool before it.
    pub collector: CollectorSettings,
    /// Counts for Prometheus.
    pub metrics: MetricsSettings,
    /// The watch over the session.
    pub guardian: GuardianSettings,
    /// Changed rules.
    pub reload: ReloadSettings,
    /// Diagnostics.
    pub log: LogSettings,
}

/// What is searched, and in which forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// The scopes of which hits are reported; at least one.
    pub scopes: Vec<ScopeChoice>,
    /// The views of which hits are reported; at least one.
    pub views: Vec<ViewChoice>,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { scopes: ScopeChoice::ALL.into(), views: ViewChoice::ALL.into() }
    }
}

/// Where hits go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// How a hit is written.
    pub format: LineFormat,
    /// The file that hits are appended to. `None`: standard output.
    pub file: Option<PathBuf>,
    /// The SQLite database that also keeps the hits.
    pub store: Option<PathBuf>,
}

/// The formats that are a line of JSON for each hit and rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// The project's own field names.
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

/// Counts for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Loopback address and port to serve them on. `None`: they are not served.
    pub listen: Option<SocketAddr>,
}

/// The watch over the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardianSettings {
    /// Seconds between two looks at the session: 1 to 300.
    pub check_seconds: u64,
    /// Seconds between two reports of the counts in the log: 1 to 86400.
    pub report_every_seconds: u64,
    /// Longest pause in seconds before the session is started again; it doubles up to this: 1 to 3600.
    pub restart_delay_max_seconds: u64,
}

impl Default for GuardianSettings {
    fn default() -> Self {
        Self { check_seconds: 5, report_every_seconds: 60, restart_delay_max_seconds: 300 }
    }
}

/// Changed rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadSettings {
    /// Seconds between two looks at the rule files: 1 to 3600; 0 for never.
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
    /// Reads the file at `path`. Relative paths in it start at its folder, wherever the process was started.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the file and, as far as it has them, line, key, what was found and expected.
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

    /// Reads a text; `path` stands in the errors. Relative paths stay as they are.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // Editors on Windows put a mark in front of UTF-8.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let config: Self = toml::from_str(text).map_err(|error| error::syntax(path, text, &error))?;
        config.validate().map_err(|setting| error::setting(path, text, setting))?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is refused.
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
                let expected = "a port of the loopback interface, such as 127.0.0.1:9477: the server has neither \
                                encryption nor authentication, so other machines must not reach it";
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

    /// The configuration as TOML, with a comment above every key. What is not set stands there as a comment.
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
            // An absolute path replaces the folder.
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests;
