//! Hits on their way to a collector: what is set becomes a spool and a sender.

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

/// Most megabytes (of 1,048,576 bytes) of a spool.
const SPOOL_MAX_MB: RangeInclusive<u64> = 4..=1 << 20;
/// Name of the spool in a folder.
const SPOOL_NAME: &str = "spool.db";

/// The collector and the spool before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorSettings {
    /// HOST:PORT of collectors, at most 16. Empty: hits are not sent.
    pub addresses: Vec<String>,
    /// The order in which they are tried.
    pub order: CollectorOrder,
    /// The sensor's bundle file.
    pub bundle: Option<PathBuf>,
    /// The spool's file, or a folder for it.
    pub spool: Option<PathBuf>,
    /// Most megabytes of the spool: 4 to 1048576.
    pub spool_max_mb: u64,
    /// What is kept when the spool is full.
    pub spool_keep: SpoolKeep,
    /// Whether to send without TLS, to addresses of this machine only.
    pub insecure_loopback: bool,
}

/// The order in which collectors are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CollectorOrder {
    /// An order of its own for each sensor, so that sensors are spread evenly.
    #[default]
    Shuffled,
    /// As listed, the preferred one first.
    Listed,
}

/// What is kept when the spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpoolKeep {
    /// The hits that came first.
    #[default]
    Oldest,
    /// The hits that came last.
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
    /// A value.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The sender.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// Nobody said where the spool is, and the system has no usual place.
    #[error("no place for the spool: name one with --spool FILE")]
    NoPlace,
}

/// Who sends: it decides where the spool is unless that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The live sensor.
    Watch,
    /// A replay, which may run beside it.
    Replay,
}

impl CollectorSettings {
    /// Whether hits are sent at all.
    pub fn is_set(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is refused.
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
                let expected = "127.0.0.1, [::1] or localhost with insecure_loopback: without TLS hits stay on this machine";
                return Err(SettingError::new(KEY, other, expected));
            }
            if self.bundle.is_some() {
                return Err(SettingError::new(
                    "collector.insecure_loopback",
                    true,
                    "false where a bundle is given",
                ));
            }
        } else if self.bundle.is_none() {
            let expected = "the file that `etwsieve-collector pki issue NAME` wrote (or, for a first try on this machine, \
                            insecure_loopback)";
            return Err(SettingError::new("collector.bundle", "nothing", expected));
        }
        Ok(addresses)
    }

    /// Opens the spool and starts the sender; `None` if hits are not sent. `store` is the database of hits, beside
    /// which the spool is put unless a place for it was named.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`]. That no collector can be reached is none.
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
            path: self.spool_path(role, store).ok_or(DeliveryError::NoPlace)?,
            bytes_max: self.spool_max_mb << 20,
            keep: match self.spool_keep {
                SpoolKeep::Oldest => Keep::Oldest,
                SpoolKeep::Newest => Keep::Newest,
            },
        };
        let spool = Spool::open(settings, now_ms())?;
        tracing::info!("hits wait in the spool {}", spool.path().display());
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

    /// Where the spool is.
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
        // Each is set on one kind of system only, so none has to be told from the other.
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

/// The counts for a summary: name and value, as `docs/wire.md` names them.
pub fn summary(counts: &SenderCounts) -> Map<String, Value> {
    counts.named(now_ms()).into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// One line for people.
pub fn line(counts: &SenderCounts) -> String {
    format!(
        "collector: {} hits acknowledged, {} given up, {} in the spool ({} bytes)",
        counts.spool.acknowledged,
        counts.dropped(),
        counts.spool.hits,
        counts.spool.bytes
    )
}

/// What the machine calls itself, or nothing.
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
    fn values_meet_their_ranges() {
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
    fn the_spool_has_a_place() {
        let mut settings = CollectorSettings::default();
        let store = Some(Path::new("hits.db"));
        assert_eq!(settings.spool_path(Role::Replay, store).unwrap(), Path::new("hits.db-spool"));
        settings.spool = Some("x/".into());
        assert_eq!(settings.spool_path(Role::Watch, store).unwrap(), Path::new("x/spool.db"));
        settings.spool = Some("x/y.db".into());
        assert_eq!(settings.spool_path(Role::Watch, None).unwrap(), Path::new("x/y.db"));
    }
}
