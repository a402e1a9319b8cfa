//! `sensors.toml`: all certificates issued to sensors. The collector admits those that are listed and not revoked.
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
//! A sensor has several entries while an old and a renewed certificate are both valid. The file is replaced atomically,
//! so readers see either the old or the new version.

use super::{PkiError, files};
use etwsieve_transport::time::parse_unix;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// File name of the list in the folder of the authority.
pub const SENSORS_FILE: &str = "sensors.toml";
/// Maximum length of the file, in bytes.
pub const REGISTER_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Maximum number of certificates in the list.
pub const SENSORS_MAX: usize = 100_000;

const HEAD: &str = "# Certificates of sensors, written by `etwsieve-collector pki`. The collector reloads this file when it changes.\n\n";

/// A certificate issued to a sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateEntry {
    /// The sensor.
    pub name: String,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate's DER, lower-case hexadecimal.
    pub fingerprint: String,
    /// When it was issued, as RFC 3339.
    pub issued: String,
    /// When it expires, as RFC 3339.
    pub expires: String,
    /// Whether the collector refuses it.
    #[serde(default)]
    pub revoked: bool,
}

impl CertificateEntry {
    /// Returns when it expires, in seconds since 1970.
    pub fn expires_unix(&self) -> u64 {
        parse_unix(&self.expires).unwrap_or_default()
    }

    /// Returns whether it is valid at `now`, in seconds since 1970.
    pub fn is_good(&self, now: u64) -> bool {
        !self.revoked && now < self.expires_unix()
    }
}

/// The list of certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    path: PathBuf,
    entries: Vec<CertificateEntry>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    sensor: Vec<CertificateEntry>,
}

impl Register {
    /// Reads the list from a file, usually `sensors.toml`.
    ///
    /// # Errors
    ///
    /// [`PkiError::Missing`], [`PkiError::Io`], or [`PkiError::Damaged`], which names the invalid entry.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PkiError> {
        let path = path.as_ref();
        let damaged = |detail: String| PkiError::Damaged { path: path.to_owned(), detail };
        let document: Document = toml::from_str(&files::read(path, REGISTER_LEN_MAX)?)
            .map_err(|error| damaged(error.to_string()))?;
        if document.sensor.len() > SENSORS_MAX {
            return Err(damaged(format!("more than {SENSORS_MAX} certificates")));
        }
        for entry in &document.sensor {
            let at =
                |what: &str| damaged(format!("sensor {:?}, serial {:?}: {what}", entry.name, entry.serial));
            if entry.fingerprint.len() != 64 || !entry.fingerprint.bytes().all(is_lower_hex) {
                return Err(at("the fingerprint is not 64 lower-case hexadecimal digits"));
            }
            if parse_unix(&entry.issued).is_none() || parse_unix(&entry.expires).is_none() {
                return Err(at("invalid time, expected a value such as 2026-01-31T09:00:00Z"));
            }
        }
        Ok(Self { path: path.to_owned(), entries: document.sensor })
    }

    /// Creates a list that [`save`](Self::save) will write to `path`.
    pub fn new(path: impl Into<PathBuf>, entries: Vec<CertificateEntry>) -> Self {
        Self { path: path.into(), entries }
    }

    /// Returns all certificates in the order in which they were issued.
    pub fn entries(&self) -> &[CertificateEntry] {
        &self.entries
    }

    /// Adds a certificate.
    pub(super) fn add(&mut self, entry: CertificateEntry) -> Result<(), PkiError> {
        if self.entries.len() >= SENSORS_MAX {
            return Err(PkiError::Full { path: self.path.clone(), max: SENSORS_MAX });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Revokes all certificates of a sensor, or the one with the serial number, and returns how many were not yet
    /// revoked.
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

    /// Writes the list atomically.
    ///
    /// # Errors
    ///
    /// [`PkiError::Io`]; the file is unchanged.
    pub fn save(&self) -> Result<(), PkiError> {
        files::replace(&self.path, &self.text()?)
    }

    /// Returns the contents of the file.
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
