//! `etwsieve-collector pki`: the authority's commands.

use super::bundle::{Bundle, certificate_hosts, certificate_validity};
use super::{Authority, DAYS_MAX, PkiError, SensorName};
use etwsieve_transport::printable::{self, Printable, clip};
use etwsieve_transport::time::{unix_now, unix_text};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// Days for which a certificate is good unless said otherwise.
const DAYS: u32 = 825;
const SECONDS_PER_DAY: u64 = 86_400;
/// Longest name in a list, in characters: the names of a collector with many hosts.
const NAME_WIDTH_MAX: usize = 1000;
/// A certificate that ends within this many days is warned of.
pub const WARN_DAYS: u64 = 30;

/// Certificates: a private authority, one bundle file for each sensor.
#[derive(Debug, clap::Args)]
pub struct PkiArgs {
    /// Folder of the authority.
    #[arg(long, value_name = "DIR", default_value = "pki", global = true)]
    pki: PathBuf,
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PkiCommand {
    /// Make the authority, and the collector's bundle.
    Init {
        /// Host name or address by which sensors reach the collector; may be given several times.
        #[arg(long = "host", value_name = "NAME", required = true)]
        hosts: Vec<String>,
        /// Days for which the collector's certificate is good.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
    },
    /// Issue a certificate to a sensor: writes NAME.bundle.pem.
    Issue {
        /// The sensor's name: letters, digits, '-' and '.'.
        name: SensorName,
        /// Days for which it is good.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
        /// Issue although the sensor has a good certificate, which stays good.
        #[arg(long)]
        renew: bool,
        /// Write the bundle here.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Issue the collector's certificate anew, or one for another collector.
    Collector {
        /// Host names and addresses, unless those of the present certificate.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Days for which it is good.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
        /// Write it to a new file, for another collector.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Refuse a sensor from now on.
    Revoke {
        /// The sensor's name.
        name: SensorName,
        /// Only the certificate with this serial number, as `list` shows it.
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
    },
    /// List the certificates, and warn of those that end soon.
    List,
}

impl PkiArgs {
    /// Carries the command out. Its result goes to `out`, warnings to `warnings`.
    ///
    /// # Errors
    ///
    /// Those of the command; nothing was changed then.
    pub fn run(&self, out: &mut dyn Write, warnings: &mut dyn Write) -> Result<(), PkiError> {
        match &self.command {
            PkiCommand::Init { hosts, days } => {
                let authority = Authority::init(&self.pki, hosts, *days)?;
                writeln!(
                    out,
                    "authority   {}\ncollector   {} for {}\nregister    {}\nNow issue a bundle for each sensor: etwsieve-collector pki --pki {} issue NAME",
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
                writeln!(out, "{}  good until {}", printable::path(&issued.bundle), unix_text(issued.expires))
                    .map_err(printed)
            }
            PkiCommand::Collector { hosts, days, out: file } => {
                let issued = Authority::open(&self.pki)?.issue_collector(hosts, *days, file.as_deref())?;
                writeln!(out, "{}  good until {}", printable::path(&issued.bundle), unix_text(issued.expires))
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

/// Writes a line for each certificate at `now`, in seconds since 1970, and warns of those that want a successor.
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
            Some(left) if left < WARN_DAYS * SECONDS_PER_DAY => "ends soon",
            _ => "good",
        };
        let (name, serial) = (clip(name, NAME_WIDTH_MAX), clip(serial, NAME_WIDTH_MAX));
        writeln!(out, "{name:<40} {serial:<32} {state:<9} {}", unix_text(expires)).map_err(printed)?;
        match remedy.filter(|_| state == "ends soon" || state == "expired") {
            Some(remedy) => {
                writeln!(warnings, "warning: {name}: {}; {}", ends(expires, now), Printable(remedy))
                    .map_err(printed)
            }
            None => Ok(()),
        }
    };
    let until = |certificate: &_| certificate_validity(certificate).map_or(0, |validity| validity.until);
    let certificate = authority.certificate()?;
    line("(authority)", "", until(&certificate), false, Some("make a new authority in another folder"))?;
    match Bundle::read(&authority.collector_path()) {
        Ok(bundle) => {
            let hosts = certificate_hosts(&bundle.certificate).unwrap_or_default().join(", ");
            let name = format!("(collector) {hosts}");
            line(&name, "", until(&bundle.certificate), false, Some("issue it anew: pki collector"))?;
        }
        // Collectors may be elsewhere, each with a bundle of its own.
        Err(PkiError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let register = authority.register()?;
    // Only the last certificate of a sensor wants a successor.
    let mut last: HashMap<&str, u64> = HashMap::new();
    for entry in register.entries().iter().filter(|entry| !entry.revoked) {
        let expires = last.entry(&entry.name).or_default();
        *expires = entry.expires_unix().max(*expires);
    }
    for entry in register.entries() {
        let expires = entry.expires_unix();
        let remedy = format!("issue it anew: pki issue {} --renew", entry.name);
        let remedy = (last.get(entry.name.as_str()) == Some(&expires)).then_some(remedy.as_str());
        line(&entry.name, &entry.serial, expires, entry.revoked, remedy)?;
    }
    Ok(())
}

fn printed(source: io::Error) -> PkiError {
    PkiError::Io { path: "standard output".into(), action: "write to", source }
}

/// When something that ends at `expires` (seconds since 1970) does, for people.
fn ends(expires: u64, now: u64) -> String {
    let date = unix_text(expires);
    match expires.checked_sub(now) {
        None | Some(0) => format!("expired on {date}"),
        Some(left) => format!("ends on {date}, in {} days", left / SECONDS_PER_DAY),
    }
}
