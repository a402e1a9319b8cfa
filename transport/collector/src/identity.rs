//! The identity of a sensor, from its certificate, and the list of those that may connect.

use crate::pki::{CertificateEntry, Register, fingerprint};
use etwsieve_transport::identity::{self, INSECURE_NAME};
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The sensor of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SensorIdentity {
    pub(super) name: Arc<str>,
    /// The fingerprint of its certificate; empty without TLS.
    fingerprint: String,
    /// When the certificate expires, in seconds since 1970; `None` without TLS.
    pub(super) expires: Option<i64>,
}

/// Why a sensor cannot be identified after a successful handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("no client certificate")]
    Missing,
    #[error("the certificate does not name a sensor: {0}")]
    Unreadable(String),
}

impl SensorIdentity {
    /// Returns the identity of a sensor on a connection without TLS.
    pub(super) fn insecure() -> Self {
        Self { name: INSECURE_NAME.into(), fingerprint: String::new(), expires: None }
    }

    /// Returns the identity in the certificates that the TLS handshake verified; the sensor's own is first.
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Result<Self, IdentityError> {
        let der = certificates.and_then(<[_]>::first).ok_or(IdentityError::Missing)?;
        let subject = identity::subject(der).map_err(IdentityError::Unreadable)?;
        Ok(Self {
            // DNS names are case-insensitive.
            name: subject.name.to_ascii_lowercase().into(),
            fingerprint: fingerprint(der),
            expires: i64::try_from(subject.expires_unix).ok(),
        })
    }

    /// Returns whether the identity is proved by a certificate.
    pub(super) fn is_certified(&self) -> bool {
        !self.fingerprint.is_empty()
    }

    /// Returns whether the certificate has expired since the handshake.
    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.expires.is_some_and(|expires| expires < now)
    }
}

/// The sensors that may connect.
#[derive(Debug)]
pub(super) enum AllowList {
    /// Any sensor, without TLS, on a loopback address.
    Anybody,
    /// The certificates on the list, by fingerprint.
    Listed(HashMap<String, CertificateEntry>),
}

impl AllowList {
    pub(super) fn listed(register: &Register) -> Self {
        let by_fingerprint = |entry: &CertificateEntry| (entry.fingerprint.clone(), entry.clone());
        Self::Listed(register.entries().iter().map(by_fingerprint).collect())
    }

    /// Returns why the sensor may not connect; `None` if it may.
    pub(super) fn refusal(&self, identity: &SensorIdentity) -> Option<&'static str> {
        match self {
            Self::Anybody => None,
            Self::Listed(sensors) => match sensors.get(&identity.fingerprint) {
                None => Some("the certificate is not on the list of sensors"),
                Some(sensor) if sensor.revoked => Some("the certificate is revoked"),
                Some(sensor) if !sensor.name.eq_ignore_ascii_case(&identity.name) => {
                    Some("the certificate is on the list under another name")
                }
                Some(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_decides() {
        let sensor = |name: &str, fingerprint: &str, revoked| CertificateEntry {
            name: name.into(),
            serial: "01".into(),
            fingerprint: fingerprint.into(),
            issued: String::new(),
            expires: String::new(),
            revoked,
        };
        let entries = vec![sensor("a", "aa", false), sensor("b", "bb", true), sensor("b", "b2", false)];
        let allowed = AllowList::listed(&Register::new("sensors.toml", entries));
        // Name, fingerprint, whether it may connect.
        let rows = [
            ("a", "aa", true),
            ("a", "bb", false),
            ("b", "bb", false),
            ("b", "b2", true),
            ("a", "b2", false),
            ("a", "cc", false),
            ("a", "", false),
        ];
        for (name, fingerprint, may) in rows {
            let identity =
                SensorIdentity { name: name.into(), fingerprint: fingerprint.into(), expires: None };
            assert_eq!(allowed.refusal(&identity).is_none(), may, "{name} {fingerprint}");
        }
        assert_eq!(AllowList::Anybody.refusal(&SensorIdentity::insecure()), None);
    }
}
