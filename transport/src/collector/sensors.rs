//! `sensors.toml`: the certificates that were issued to sensors, and whether they still count.
//!
//! `etwsieve-collector pki` writes the file, `serve` reads it, and again whenever it changes. A sensor may connect if
//! its certificate is of the private authority and in date, and the certificate's fingerprint stands here, not revoked.
//!
//! ```toml
//! [[sensor]]
//! name = "srv1.example.test"
//! serial = "4f1e…"          # hexadecimal, as in the certificate
//! fingerprint = "9c56…"     # SHA-256 of the certificate in DER, 64 hexadecimal digits in lower case
//! issued = 1795626000       # seconds since 1970
//! expires = 1827162000
//! revoked = false
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Name of the file in the folder of the authority.
pub const SENSORS_FILE: &str = "sensors.toml";
/// Most bytes of the file: room for some 100,000 certificates.
pub const SENSORS_LEN_MAX: u64 = 32 << 20;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensors {
    /// Every certificate that was issued to a sensor, in the order of issue. A sensor may have several.
    #[serde(default, rename = "sensor")]
    pub sensors: Vec<SensorCertificate>,
}

/// One certificate of a sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorCertificate {
    /// The first DNS name of the certificate: who the sensor is.
    pub name: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in DER, as [`fingerprint`] writes it.
    pub fingerprint: String,
    /// When it was issued, in seconds since 1970.
    pub issued: i64,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// Whether it counts no longer.
    #[serde(default)]
    pub revoked: bool,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SensorsError {
    /// The file cannot be read.
    #[error("cannot read the list of sensors {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is no such list.
    #[error("{path} is no list of sensors: {detail}")]
    Invalid {
        /// The file.
        path: String,
        /// What was found.
        detail: String,
    },
}

/// SHA-256 of a certificate in DER, 64 hexadecimal digits in lower case.
pub fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Sensors {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`SensorsError`]; a file of more than [`SENSORS_LEN_MAX`] bytes is no list.
    pub fn load(path: &Path) -> Result<Self, SensorsError> {
        let unreadable = |source| SensorsError::Unreadable { path: path.display().to_string(), source };
        let invalid = |detail| SensorsError::Invalid { path: path.display().to_string(), detail };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(SENSORS_LEN_MAX + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        if text.len() as u64 > SENSORS_LEN_MAX {
            return Err(invalid(format!("more than {SENSORS_LEN_MAX} bytes")));
        }
        toml::from_str(&text).map_err(|error| invalid(error.to_string()))
    }

    /// The text of the file.
    ///
    /// # Errors
    ///
    /// What the TOML writer says; a list that was made of strings and numbers gives no reason.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
