//! `etwsieve-collector pki`: the commands of the authority.

use super::bundle::{Bundle, certificate_hosts, certificate_validity};
use super::{Authority, DAYS_MAX, PkiError, SensorName};
use etwsieve_transport::printable::{self, Printable, clip};
use etwsieve_transport::time::{unix_now, unix_text};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// Default validity of a certificate in days.
const DAYS: u32 = 825;
const SECONDS_PER_DAY: u64 = 86_400;
/// Maximum length of a name in a list, in characters. A collector may have many hosts.
const NAME_WIDTH_MAX: usize = 1000;
/// Certificates that expire within this many days cause a warning.
pub const WARN_DAYS: u64 = 30;

/// Manage the private certificate authority and the certificates of sensors
#[derive(Debug, clap::Args)]
pub struct PkiArgs {
    /// Folder of the authority
    #[arg(long, value_name = "DIR", default_value = "pki", global = true)]
    pki: PathBuf,
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PkiCommand {
    /// Create the authority and the bundle of the collector
    Init {
        /// Host name or address of the collector; repeatable
        #[arg(long = "host", value_name = "NAME", required = true)]
        hosts: Vec<String>,
        /// Validity of the collector's certificate in days
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
    },
    /// Issue a certificate to a sensor and write its bundle
    Issue {
        /// Name of the sensor: letters, digits, '-' and '.'
        name: SensorName,
        /// Validity in days
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
        /// Issue even if the sensor has a valid certificate, which stays valid
        #[arg(long)]
        renew: bool,
        /// Path of the bundle [default: NAME.bundle.pem in the folder of the authority]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Issue a new certificate for the collector, or one for another collector
    Collector {
        /// Host name or address of the collector; repeatable [default: those of the current certificate]
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Validity in days
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
        /// Write a bundle for another collector to this new file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke the certificates of a sensor
    Revoke {
        /// Name of the sensor
        name: SensorName,
        /// Revoke only the certificate with this serial number, as shown by `list`
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
    },
    /// List all certificates and warn about those that expire soon
    List,
}

impl PkiArgs {
    /// Executes the command and writes its result to `out` and warnings to `warnings`.
    ///
    /// # Errors
    ///
    /// The command failed and changed nothing, or its result cannot be written.
    pub fn run(&self, out: &mut dyn Write, warnings: &mut dyn Write) -> Result<(), PkiError> {
        match &self.command {
            PkiCommand::Init { hosts, days } => {
                let authority = Authority::init(&self.pki, hosts, *days)?;
                writeln!(
                    out,
                    "authority   {}\ncollector   {} for {}\nregister    {}\nNext, issue a bundle for each sensor: etwsieve-collector pki --pki {} issue NAME",
                    printable::path(&authority.certificate_path()),
                    printable::path(&authority.collector_path()),
                    Printable(hosts.join(", ")),
                    printable::path(&authority.register_path()),
                    printable::path(&self.pki),
                )
                .map_err(printed)
            }
            PkiCommand::Issue { name, days, renew, out: file } => {
                let issued = Authority::open(&self.pki)?.issue(name, *days, *renew, file.as_deref())?;
                writeln!(
                    out,
                    "{}  valid until {}",
                    printable::path(&issued.bundle),
                    unix_text(issued.expires)
                )
                .map_err(printed)
            }
            PkiCommand::Collector { hosts, days, out: file } => {
                let issued = Authority::open(&self.pki)?.issue_collector(hosts, *days, file.as_deref())?;
                writeln!(
                    out,
                    "{}  valid until {}",
                    printable::path(&issued.bundle),
                    unix_text(issued.expires)
                )
                .map_err(printed)
            }
            PkiCommand::Revoke { name, serial } => {
                let revoked = Authority::open(&self.pki)?.revoke(name, serial.as_deref())?;
                writeln!(out, "{name}: {revoked} certificates revoked").map_err(printed)
            }
            PkiCommand::List => list(&Authority::open(&self.pki)?, unix_now(), out, warnings),
        }
    }
}

/// Writes a line for each certificate, and warnings for those that must be renewed. `now` is in seconds since 1970.
fn list(
    authority: &Authority,
    now: u64,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<(), PkiError> {
    let mut line = |name: &str, serial: &str, expires: u64, revoked: bool, remedy: Option<&str>| {
        let state = match expires.checked_sub(now) {
            _ if revoked => "revoked",
            None | Some(0) => "expired",
            Some(left) if left < WARN_DAYS * SECONDS_PER_DAY => "expiring",
            _ => "valid",
        };
        let (name, serial) = (clip(name, NAME_WIDTH_MAX), clip(serial, NAME_WIDTH_MAX));
        writeln!(out, "{name:<40} {serial:<32} {state:<9} {}", unix_text(expires)).map_err(printed)?;
        match remedy.filter(|_| state == "expiring" || state == "expired") {
            Some(remedy) => {
                writeln!(warnings, "warning: {name}: {}; {}", ends(expires, now), Printable(remedy))
                    .map_err(printed)
            }
            None => Ok(()),
        }
    };
    let until = |certificate: &_| certificate_validity(certificate).map_or(0, |validity| validity.until);
    let certificate = authority.certificate()?;
    line("(authority)", "", until(&certificate), false, Some("create a new authority in another folder"))?;
    match Bundle::read(&authority.collector_path()) {
        Ok(bundle) => {
            let hosts = certificate_hosts(&bundle.certificate).unwrap_or_default().join(", ");
            let name = format!("(collector) {hosts}");
            line(&name, "", until(&bundle.certificate), false, Some("renew it with: pki collector"))?;
        }
        // Collectors may run elsewhere with their own bundles.
        Err(PkiError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let register = authority.register()?;
    // Only the last certificate of a sensor must be renewed.
    let mut last: HashMap<&str, u64> = HashMap::new();
    for entry in register.entries().iter().filter(|entry| !entry.revoked) {
        let expires = last.entry(&entry.name).or_default();
        *expires = entry.expires_unix().max(*expires);
    }
    for entry in register.entries() {
        let expires = entry.expires_unix();
        let remedy = format!("renew it with: pki issue {} --renew", entry.name);
        let remedy = (last.get(entry.name.as_str()) == Some(&expires)).then_some(remedy.as_str());
        line(&entry.name, &entry.serial, expires, entry.revoked, remedy)?;
    }
    Ok(())
}

fn printed(source: io::Error) -> PkiError {
    PkiError::Io { path: "standard output".into(), action: "write to", source }
}

/// Describes when a certificate expires; times are in seconds since 1970.
fn ends(expires: u64, now: u64) -> String {
    let date = unix_text(expires);
    match expires.checked_sub(now) {
        None | Some(0) => format!("expired on {date}"),
        Some(left) => format!("expires on {date}, in {} days", left / SECONDS_PER_DAY),
    }
}
