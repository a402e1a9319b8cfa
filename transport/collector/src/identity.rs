//! Who is at the other end: the name in the certificate, and whether it may connect.

use crate::pki::{Entry, Register, fingerprint};
use etwsieve_transport::identity::{self, INSECURE_NAME};
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The sensor of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    /// Of its certificate; empty without TLS.
    fingerprint: String,
    /// When the certificate ends, in seconds since 1970; `None` without TLS.
    pub(super) expires: Option<i64>,
}

/// Why a certificate that the authority signed names no sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("no client certificate")]
    Missing,
    #[error("a certificate that names no sensor: {0}")]
    Unreadable(String),
}

impl Identity {
    /// A sensor on a connection without TLS.
    pub(super) fn insecure() -> Self {
        Self { name: INSECURE_NAME.into(), fingerprint: String::new(), expires: None }
    }

    /// Of the certificates that the TLS handshake has verified, the sensor's own first.
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Result<Self, IdentityError> {
        let der = certificates.and_then(<[_]>::first).ok_or(IdentityError::Missing)?;
        let subject = identity::subject(der).map_err(IdentityError::Unreadable)?;
        Ok(Self {
            // DNS names differ by nothing in the case of their letters.
            name: subject.name.to_ascii_lowercase().into(),
            fingerprint: fingerprint(der),
            expires: i64::try_from(subject.expires_unix).ok(),
        })
    }

    /// Whether it was proved by a certificate.
    pub(super) fn is_certified(&self) -> bool {
        !self.fingerprint.is_empty()
    }

    /// Whether the certificate has ended meanwhile.
    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.expires.is_some_and(|expires| expires < now)
    }
}

/// Who may connect.
#[derive(Debug)]
pub(super) enum Allowed {
    /// Anybody, without TLS on the loopback interface.
    Anybody,
    /// Those on the list, by fingerprint.
    Listed(HashMap<String, Entry>),
}

impl Allowed {
    pub(super) fn listed(register: &Register) -> Self {
        let by_fingerprint = |entry: &Entry| (entry.fingerprint.clone(), entry.clone());
        Self::Listed(register.entries().iter().map(by_fingerprint).collect())
    }

    /// Why the sensor may not connect; `None` if it may.
    pub(super) fn refusal(&self, identity: &Identity) -> Option<&'static str> {
        match self {
            Self::Anybody => None,
            Self::Listed(sensors) => match sensors.get(&identity.fingerprint) {
                None => Some("its certificate is not on the list of sensors"),
                Some(sensor) if sensor.revoked => Some("its certificate was revoked"),
                Some(sensor) if !sensor.name.eq_ignore_ascii_case(&identity.name) => {
                    Some("its certificate is on the list under another name")
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
        let sensor = |name: &str, fingerprint: &str, revoked| Entry {
            name: name.into(),
            serial: "01".into(),
            fingerprint: fingerprint.into(),
            issued: String::new(),
            expires: String::new(),
            revoked,
        };
        let entries = vec![sensor("a", "aa", false), sensor("b", "bb", true), sensor("b", "b2", false)];
        let allowed = Allowed::listed(&Register::new("sensors.toml", entries));
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
            let identity = Identity { name: name.into(), fingerprint: fingerprint.into(), expires: None };
            assert_eq!(allowed.refusal(&identity).is_none(), may, "{name} {fingerprint}");
        }
        assert_eq!(Allowed::Anybody.refusal(&Identity::insecure()), None);
    }
}
