//! `sensors.toml`: every certificate issued to a sensor. The collector lets in what is listed and not revoked.
//!
//! ```toml
//! [[sensor]]
//! name = "srv1.example.test"
//! serial = "5e0c9d…"          # of the certificate, hexadecimal
//! fingerprint = "3fa1…"       # SHA-256 of the certificate (DER), hexadecimal
//! issued = "2026-01-31T09:00:00Z"
//! expires = "2028-05-05T09:00:00Z"
//! revoked = false
//! ```
//!
//! A sensor has several entries while an old certificate and its successor are both good. The file is written as a
//! whole and renamed into place: who reads it while it changes sees the old one or the new one.

use super::{PkiError, files};
use etwsieve_transport::time::parse_unix;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file in the authority's folder.
pub const SENSORS_FILE: &str = "sensors.toml";
/// Longest register, in bytes.
pub const REGISTER_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Most certificates in a register.
pub const SENSORS_MAX: usize = 100_000;

const HEAD: &str = "# Certificates of sensors, written by `etwsieve-collector pki`. The collector reads it again when it changes.\n\n";

/// A certificate that was issued to a sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The sensor.
    pub name: String,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate's DER, lower-case hexadecimal.
    pub fingerprint: String,
    /// When it was issued: RFC 3339.
    pub issued: String,
    /// When it ends: RFC 3339.
    pub expires: String,
    /// Whether the collector refuses it.
    #[serde(default)]
    pub revoked: bool,
}

impl Entry {
    /// When it ends, in seconds since 1970. Checked when the register was read.
    pub fn expires_unix(&self) -> u64 {
        parse_unix(&self.expires).unwrap_or_default()
    }

    /// Whether the collector lets it in at `now`, in seconds since 1970.
    pub fn is_good(&self, now: u64) -> bool {
        !self.revoked && now < self.expires_unix()
    }
}

/// The register, as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    sensor: Vec<Entry>,
}

impl Register {
    /// Reads a register, as a rule `sensors.toml`.
    ///
    /// # Errors
    ///
    /// [`PkiError::Missing`], [`PkiError::Io`], and [`PkiError::Damaged`] with the place. Whoever re-reads a register
    /// keeps the last good one then.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PkiError> {
        let path = path.as_ref();
        let damaged = |detail: String| PkiError::Damaged { path: path.to_owned(), detail };
        let document: Document = toml::from_str(&files::read(path, REGISTER_LEN_MAX)?)
            .map_err(|error| damaged(error.to_string()))?;
        if document.sensor.len() > SENSORS_MAX {
            return Err(damaged(format!("more than {SENSORS_MAX} certificates")));
        }
        for entry in &document.sensor {
            let at = |what: &str| damaged(format!("{what} of {:?}, serial {:?}", entry.name, entry.serial));
            if entry.fingerprint.len() != 64 || !entry.fingerprint.bytes().all(is_lower_hex) {
                return Err(at("the fingerprint is not 64 lower-case hexadecimal digits: that"));
            }
            if parse_unix(&entry.issued).is_none() || parse_unix(&entry.expires).is_none() {
                return Err(at("a time is not like 2026-01-31T09:00:00Z: that"));
            }
        }
        Ok(Self { path: path.to_owned(), entries: document.sensor })
    }

    /// A register that [`save`](Self::save) will write to `path`.
    pub fn new(path: impl Into<PathBuf>, entries: Vec<Entry>) -> Self {
        Self { path: path.into(), entries }
    }

    /// All certificates, in the order of their issue.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a certificate.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), PkiError> {
        if self.entries.len() >= SENSORS_MAX {
            return Err(PkiError::Full { path: self.path.clone(), max: SENSORS_MAX });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Marks every certificate of a sensor, or the one with the serial number, and returns how many were good until now.
    pub(super) fn revoke(&mut self, name: &str, serial: Option<&str>) -> Result<usize, PkiError> {
        let (mut found, mut revoked) = (false, 0);
        for entry in &mut self.entries {
            if entry.name == name && serial.is_none_or(|serial| entry.serial == serial) {
                found = true;
                revoked += usize::from(!entry.revoked);
                entry.revoked = true;
            }
        }
        if found {
            Ok(revoked)
        } else {
            Err(PkiError::Unknown { name: name.to_owned(), path: self.path.clone() })
        }
    }

    /// Writes the register in one step.
    ///
    /// # Errors
    ///
    /// [`PkiError::Io`], with the register as it was.
    pub fn save(&self) -> Result<(), PkiError> {
        files::replace(&self.path, &self.text()?)
    }

    /// The register as it is written.
    pub(super) fn text(&self) -> Result<String, PkiError> {
        let document = Document { sensor: self.entries.clone() };
        let text = toml::to_string(&document)
            .map_err(|error| PkiError::Damaged { path: self.path.clone(), detail: error.to_string() })?;
        Ok(format!("{HEAD}{text}"))
    }

    /// Removes the certificate with this serial number.
    pub(super) fn remove(&mut self, serial: &str) {
        self.entries.retain(|entry| entry.serial != serial);
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}
