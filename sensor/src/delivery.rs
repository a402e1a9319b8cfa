//! Sends hits to a collector: opens the spool and starts the sender according to the settings.

use crate::live::settings::{SettingError, in_range};
use etwsieve_transport::sender::{
    Address, COLLECTORS_MAX, HitSender, MoreCounts, Order, SenderCounts, SenderError, SenderSettings,
};
use etwsieve_transport::spool::{BYTES_MAX, Keep, Spool, SpoolError, SpoolSettings};
use etwsieve_transport::wire::message::NAME_LEN_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Size limits of a spool in MB (1,048,576 bytes).
const SPOOL_MAX_MB: RangeInclusive<u64> = 4..=1 << 20;
/// File name of the spool in a folder.
const SPOOL_NAME: &str = "spool.db";

/// Settings of the collector and of the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorSettings {
    /// HOST:PORT of collectors, at most 16. Empty: hits are not sent.
    pub addresses: Vec<String>,
    /// Order in which collectors are tried.
    pub order: CollectorOrder,
    /// Bundle file of the sensor.
    pub bundle: Option<PathBuf>,
    /// Spool file, or a folder for it.
    pub spool: Option<PathBuf>,
    /// Maximum size of the spool in MB: 4 to 1048576.
    pub spool_max_mb: u64,
    /// Hits that a full spool keeps.
    pub spool_keep: SpoolKeep,
    /// Whether to send without TLS. Allowed for addresses of this machine only.
    pub insecure_loopback: bool,
}

/// The order in which collectors are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CollectorOrder {
    /// A different order on each sensor, which distributes sensors evenly.
    #[default]
    Shuffled,
    /// The order of the list, the preferred collector first.
    Listed,
}

/// The hits that a full spool keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpoolKeep {
    /// The oldest hits.
    #[default]
    Oldest,
    /// The newest hits.
    Newest,
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            order: CollectorOrder::default(),
            bundle: None,
            spool: None,
            spool_max_mb: BYTES_MAX >> 20,
            spool_keep: SpoolKeep::default(),
            insecure_loopback: false,
        }
    }
}

/// Why hits cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A setting is invalid.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The sender cannot start.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// No path was set for the spool, and the system has no default folder.
    #[error("no folder for the spool: name a file with --spool")]
    NoSpoolFolder,
}

/// The command that sends hits. It determines the default path of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The live sensor.
    Watch,
    /// A replay, which may run at the same time.
    Replay,
}

impl CollectorSettings {
    /// Returns whether hits are sent.
    pub fn is_set(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first invalid value.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.parse().map(drop)?;
        in_range("collector.spool_max_mb", self.spool_max_mb, &SPOOL_MAX_MB)
    }

    fn parse(&self) -> Result<Vec<Address>, SettingError> {
        const KEY: &str = "collector.addresses";
        if self.addresses.len() > COLLECTORS_MAX {
            let found = format_args!("{} addresses", self.addresses.len()).to_string();
            return Err(SettingError::new(KEY, found, format!("at most {COLLECTORS_MAX}")));
        }
        let parse = |text: &String| {
            let address: Result<Address, _> = text.parse();
            address.map_err(|_| {
                SettingError::new(
                    KEY,
                    format_args!("{text:?}"),
                    "HOST:PORT, such as \"collector.example:6514\"",
                )
            })
        };
        let addresses: Vec<Address> = self.addresses.iter().map(parse).collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Ok(addresses);
        }
        if self.insecure_loopback {
            if let Some(other) = addresses.iter().find(|address| !address.is_loopback()) {
                let expected = "127.0.0.1, [::1] or localhost, because insecure_loopback sends without TLS";
                return Err(SettingError::new(KEY, other, expected));
            }
            if self.bundle.is_some() {
                return Err(SettingError::new(
                    "collector.insecure_loopback",
                    true,
                    "false, because a bundle is set",
                ));
            }
        } else if self.bundle.is_none() {
            let expected = "a file from `etwsieve-collector pki issue NAME` (or insecure_loopback for a first test on this \
                            machine)";
            return Err(SettingError::new("collector.bundle", "nothing", expected));
        }
        Ok(addresses)
    }

    /// Opens the spool and starts the sender; `None` if hits are not sent. `store` is the database of hits; by default
    /// the spool is next to it.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`]. A collector that cannot be reached is not an error.
    pub fn start(
        &self,
        role: Role,
        store: Option<&Path>,
        computer: &str,
        more_counts: MoreCounts,
    ) -> Result<Option<HitSender>, DeliveryError> {
        self.validate()?;
        let collectors = self.parse()?;
        if collectors.is_empty() {
            return Ok(None);
        }
        let settings = SpoolSettings {
            path: self.spool_path(role, store).ok_or(DeliveryError::NoSpoolFolder)?,
            bytes_max: self.spool_max_mb << 20,
            keep: match self.spool_keep {
                SpoolKeep::Oldest => Keep::Oldest,
                SpoolKeep::Newest => Keep::Newest,
            },
        };
        let spool = Spool::open(settings, now_ms())?;
        tracing::info!("spooling hits in {}", spool.path().display());
        let computer = computer[..computer.floor_char_boundary(NAME_LEN_MAX)].to_owned();
        let settings = SenderSettings {
            collectors,
            order: match self.order {
                CollectorOrder::Shuffled => Order::Shuffled,
                CollectorOrder::Listed => Order::Listed,
            },
            bundle: self.bundle.clone(),
            software: concat!("etwsieve ", env!("CARGO_PKG_VERSION")).to_owned(),
            computer,
            more_counts,
        };
        Ok(Some(HitSender::start(settings, spool)?))
    }

    /// Returns the path of the spool; `None` if no path is set and the system has no default folder.
    pub(crate) fn spool_path(&self, role: Role, store: Option<&Path>) -> Option<PathBuf> {
        if let Some(path) = &self.spool {
            let ends_in_separator =
                path.as_os_str().as_encoded_bytes().last().is_some_and(|last| b"/\\".contains(last));
            return Some(if path.is_dir() || ends_in_separator {
                path.join(SPOOL_NAME)
            } else {
                path.clone()
            });
        }
        if let Some(store) = store {
            let mut name = store.as_os_str().to_owned();
            name.push("-spool");
            return Some(name.into());
        }
        // Each of these variables exists on one kind of system only.
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || {
            folder("LOCALAPPDATA")
                .or_else(|| folder("XDG_STATE_HOME"))
                .or_else(|| Some(folder("HOME")?.join(".local/state")))
        };
        Some(match role {
            Role::Watch => folder("ProgramData").or_else(user)?.join("etwsieve").join(SPOOL_NAME),
            Role::Replay => user()?.join("etwsieve").join("replay-spool.db"),
        })
    }
}

/// Returns the counts for a summary under the names of `docs/wire.md`.
pub fn named_counts(counts: &SenderCounts) -> Map<String, Value> {
    counts.named(now_ms()).into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// Formats the counts as one line for people.
pub fn summary_line(counts: &SenderCounts) -> String {
    format!(
        "collector: {} hits acknowledged, {} dropped, {} in the spool ({} bytes)",
        counts.spool.acknowledged,
        counts.dropped(),
        counts.spool.hits,
        counts.spool.bytes
    )
}

/// Returns the name of the machine, or an empty string.
pub fn computer_name() -> String {
    env::var("COMPUTERNAME")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{CollectorSettings, Role};
    use std::path::Path;

    #[test]
    fn settings_are_checked_against_their_ranges() {
        type Row = (&'static str, fn(&mut CollectorSettings), Option<&'static str>);
        let rows: [Row; 9] = [
            ("a bundle", |_| {}, None),
            ("nothing is sent", |s| (s.addresses, s.bundle) = (vec![], None), None),
            ("no bundle", |s| s.bundle = None, Some("collector.bundle")),
            ("no port", |s| s.addresses.push("host".into()), Some("collector.addresses")),
            ("too many", |s| s.addresses = vec!["a:1".into(); 17], Some("collector.addresses")),
            (
                "both",
                |s| (s.insecure_loopback, s.addresses) = (true, vec!["[::1]:1".into()]),
                Some("collector.insecure_loopback"),
            ),
            ("insecure", |s| (s.insecure_loopback, s.bundle) = (true, None), Some("collector.addresses")),
            ("smallest", |s| s.spool_max_mb = 4, None),
            ("too small", |s| s.spool_max_mb = 3, Some("collector.spool_max_mb")),
        ];
        for (name, change, refused) in rows {
            let mut settings = CollectorSettings {
                addresses: vec!["collector.example:6514".into()],
                bundle: Some("ws01.pem".into()),
                ..CollectorSettings::default()
            };
            change(&mut settings);
            assert_eq!(settings.validate().err().map(|error| error.key), refused, "{name}");
        }
    }

    #[test]
    fn the_path_of_the_spool_follows_the_settings() {
        let mut settings = CollectorSettings::default();
        let store = Some(Path::new("hits.db"));
        assert_eq!(settings.spool_path(Role::Replay, store).unwrap(), Path::new("hits.db-spool"));
        settings.spool = Some("x/".into());
        assert_eq!(settings.spool_path(Role::Watch, store).unwrap(), Path::new("x/spool.db"));
        settings.spool = Some("x/y.db".into());
        assert_eq!(settings.spool_path(Role::Watch, None).unwrap(), Path::new("x/y.db"));
    }
}
