//! Names of sensors, which are used in certificates, file names and the store.

use super::PkiError;
use std::fmt;
use std::str::FromStr;

/// Maximum length of a sensor's name, in bytes.
pub const SENSOR_NAME_LEN_MAX: usize = 128;
/// Maximum length of a label, in bytes (RFC 1035, section 2.3.4).
const LABEL_LEN_MAX: usize = 63;
/// The name of sensors without a certificate, which no certificate may contain.
const RESERVED: &str = "insecure-loopback";

/// The name of a sensor: lower-case ASCII letters, digits, `-` and `.`, as in a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SensorName(String);

impl SensorName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SensorName {
    type Err = PkiError;

    /// Parses a name and converts it to lower case, because names of Windows computers have capital letters.
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let name = text.to_ascii_lowercase();
        let refuse = |detail| Err(PkiError::Name { name: text.chars().take(80).collect(), detail });
        if name.is_empty() || name.len() > SENSOR_NAME_LEN_MAX {
            return refuse("expected 1 to 128 characters");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return refuse("expected only letters, digits, '-' and '.'");
        }
        if name.split('.').any(|label| label.is_empty() || label.len() > LABEL_LEN_MAX) {
            return refuse("expected 1 to 63 characters between dots");
        }
        if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
            return refuse("'-' is not allowed at the beginning or end, or next to a dot");
        }
        if name == RESERVED {
            return refuse("reserved for sensors without a certificate");
        }
        Ok(Self(name))
    }
}

impl fmt::Display for SensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(63);
        let rows: [(&str, &str, Option<&str>); 14] = [
            ("short", "a", Some("a")),
            ("host name", "srv-1.example.test", Some("srv-1.example.test")),
            ("capitals", "SRV1", Some("srv1")),
            ("digits", "10", Some("10")),
            ("longest label", &long, Some(&long)),
            ("empty", "", None),
            ("longer label", &format!("{long}a"), None),
            ("too long", &[long.as_str(); 3].join("."), None),
            ("path", "../ca", None),
            ("underscore", "a_b", None),
            ("blank", "a b", None),
            ("non-ASCII letter", "srv\u{e9}", None),
            ("hyphen at the end", "srv-.x", None),
            ("reserved", "Insecure-Loopback", None),
        ];
        for (row, text, expected) in rows {
            let name = text.parse::<SensorName>().ok();
            assert_eq!(name.as_ref().map(SensorName::as_str), expected, "{row}");
        }
    }
}
