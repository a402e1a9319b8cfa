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
//! issued = "2026-01-31T09:00:00Z"
//! expires = "2028-05-05T09:00:00Z"
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
    /// When it was issued: RFC 3339, in UTC.
    pub issued: String,
    /// When it ends.
    pub expires: String,
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
}

impl SensorCertificate {
    /// When it ends, in seconds since 1970; `None` if the text is no time.
    pub fn expires_unix(&self) -> Option<i64> {
        parse_unix(&self.expires)
    }
}

/// Reads `2026-01-31T09:00:00Z` as seconds since 1970.
fn parse_unix(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let signs = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':'), (19, 'Z')];
    if text.len() != 20 || !text.is_ascii() || signs.iter().any(|(at, sign)| !text[*at..].starts_with(*sign))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970-01-01 in years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let rows = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-25T19:00:00Z", Some(1_795_633_200)),
            ("2026-11-25T19:00:00+", None),
            ("2026-13-25T19:00:00Z", None),
            ("2026-11-25 19:00:00Z", None),
            ("+026-11-25T19:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_unix(text), expected, "{text}");
        }
    }
}
