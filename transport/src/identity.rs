//! The identity of a sensor or collector: its bundle file, and the TLS configuration made from it.
//!
//! A bundle is a PEM file with the certificates of its owner (its own first), the private key, and the certificates of
//! the private authority, in this order. Text between the blocks is ignored. Both sides use TLS 1.3 only, present a
//! certificate, and require one that is issued by the same authority. Public authorities are not trusted.

use crate::files;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Maximum size of a bundle file, in bytes.
pub const BUNDLE_LEN_MAX: usize = 256 << 10;
/// Maximum number of certificates before the key, and after it.
pub const CERTIFICATES_MAX: usize = 16;
/// Maximum length of a name in a certificate, in bytes; the limit for DNS names.
pub const NAME_LEN_MAX: usize = 253;
/// The name of every sensor that connects without TLS, which is allowed on the loopback interface only.
pub const INSECURE_NAME: &str = "insecure-loopback";

/// A bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the bundle {}: {source}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is too long for a bundle.
    #[error("{} is not a bundle: longer than {BUNDLE_LEN_MAX} bytes", path.display())]
    TooLong {
        /// Path of the file.
        path: PathBuf,
    },
    /// The contents are not a bundle.
    #[error("{} is not a valid bundle: {problem}; create one with `etwsieve-collector pki issue NAME`", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
        /// Description of the problem.
        problem: String,
    },
}

/// The owner and validity of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The first DNS name of the subject alternative names.
    pub name: String,
    /// Start of validity, in seconds since 1970.
    pub starts_unix: u64,
    /// End of validity, in seconds since 1970.
    pub expires_unix: u64,
}

/// A bundle that was read.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: Vec<CertificateDer<'static>>,
    subject: Subject,
    path: PathBuf,
}

impl Identity {
    /// Reads a bundle file.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]. A key that does not belong to the certificate is detected later, by the functions that create
    /// a TLS configuration.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let unreadable = |source| IdentityError::Unreadable { path: path.to_owned(), source };
        let text = files::read_at_most(path, BUNDLE_LEN_MAX as u64).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// Parses the text of a bundle. Errors mention `path`.
    ///
    /// # Errors
    ///
    /// The same as for [`load`](Self::load).
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, IdentityError> {
        if text.len() > BUNDLE_LEN_MAX {
            return Err(IdentityError::TooLong { path: path.to_owned() });
        }
        let refuse = |problem: String| IdentityError::Content { path: path.to_owned(), problem };
        let (mut chain, mut key, mut authority) = (Vec::new(), None, Vec::new());
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|error| refuse(format!("the PEM is damaged ({error})")))?;
            match kind {
                SectionKind::Certificate => {
                    let list = if key.is_none() { &mut chain } else { &mut authority };
                    if list.len() == CERTIFICATES_MAX {
                        return Err(refuse(format!("more than {CERTIFICATES_MAX} certificates")));
                    }
                    list.push(CertificateDer::from(der));
                }
                SectionKind::PrivateKey if key.is_none() => {
                    key = Some(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)));
                }
                SectionKind::PrivateKey => return Err(refuse("two private keys".into())),
                _ => {}
            }
        }
        let missing = |what: &str| {
            refuse(format!(
                "{what} is missing (expected: certificate, private key, certificate of the authority)"
            ))
        };
        let key = key.ok_or_else(|| missing("the private key"))?;
        let own = chain.first().ok_or_else(|| missing("the certificate before the key"))?;
        if authority.is_empty() {
            return Err(missing("the authority's certificate behind the key"));
        }
        let subject =
            subject(own).map_err(|problem| refuse(format!("its certificate is unusable: {problem}")))?;
        Ok(Self { chain, key, authority, subject, path: path.to_owned() })
    }

    /// Returns the owner and validity of the bundle.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the TLS configuration of a sensor. It presents the sensor's certificate and requires the collector's to
    /// be issued by the authority for the host name that the sensor connects to.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Content`] if the key does not belong to the certificate, or the authority's certificate is
    /// unusable.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| self.refuse(&error))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.refuse(&error))?;
        Ok(Arc::new(config))
    }

    /// Returns the TLS configuration of a collector. It requires a certificate issued by the authority. The caller must
    /// check, with the [`subject`] of that certificate, that the sensor is registered and not revoked.
    ///
    /// # Errors
    ///
    /// The same as for [`client_config`](Self::client_config).
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider())
            .build()
            .map_err(|error| self.refuse(&error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| self.refuse(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.refuse(&error))?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.authority {
            roots.add(certificate.clone()).map_err(|error| self.refuse(&error))?;
        }
        Ok(roots)
    }

    fn refuse(&self, error: &dyn fmt::Display) -> IdentityError {
        IdentityError::Content { path: self.path.clone(), problem: error.to_string() }
    }
}

impl fmt::Debug for Identity {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("subject", &self.subject)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads owner and validity from a certificate (DER). This function does not verify the certificate.
///
/// # Errors
///
/// A description of the problem: not a certificate, or no DNS name of 1 to [`NAME_LEN_MAX`] bytes.
pub fn subject(der: &[u8]) -> Result<Subject, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let alternative =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        });
    let dns = alternative.into_iter().flat_map(|names| &names.general_names).find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let name = dns.ok_or("no DNS name in the subject alternative names")?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > NAME_LEN_MAX || !is_plain {
        return Err(format!("the DNS name is not 1 to {NAME_LEN_MAX} printable bytes"));
    }
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    Ok(Subject { name, starts_unix: seconds(validity.not_before), expires_unix: seconds(validity.not_after) })
}

#[cfg(test)]
mod tests;
