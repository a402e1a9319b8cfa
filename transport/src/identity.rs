//! Who one is: the bundle file of a sensor or a collector, and the TLS that comes of it.
//!
//! A bundle is one PEM file: certificates of its owner (the own one first), the private key, and the certificates of
//! the private authority, in this order. What stands between the blocks is ignored. Both ends speak TLS 1.3 only,
//! show a certificate, and demand one of the same authority; no public authority has a say.

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

/// Most bytes of a bundle file.
pub const BUNDLE_LEN_MAX: usize = 256 << 10;
/// Most certificates on either side of the key.
pub const CERTIFICATES_MAX: usize = 16;
/// Longest name of a certificate's owner, in bytes: that of a DNS name.
pub const NAME_LEN_MAX: usize = 253;
/// The name of every sensor on a connection without TLS, which only the loopback interface may carry.
pub const INSECURE_NAME: &str = "insecure-loopback";

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the bundle {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is longer than any bundle.
    #[error("{} is longer than {BUNDLE_LEN_MAX} bytes, so it is no bundle", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold what a bundle holds.
    #[error("{} is no bundle: {problem}; `etwsieve-collector pki issue NAME` writes one", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The first DNS name of the subject's alternative names.
    pub name: String,
    /// From when it is valid, in seconds since 1970.
    pub starts_unix: u64,
    /// Until when it is valid, in seconds since 1970.
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
    /// [`IdentityError`]. Whether the key fits the certificate is seen when a configuration is made of it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let unreadable = |source| IdentityError::Unreadable { path: path.to_owned(), source };
        let text = files::read_at_most(path, BUNDLE_LEN_MAX as u64).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// Reads the text of a bundle; `path` stands in the errors.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, IdentityError> {
        if text.len() > BUNDLE_LEN_MAX {
            return Err(IdentityError::TooLong { path: path.to_owned() });
        }
        let refuse = |problem: String| IdentityError::Content { path: path.to_owned(), problem };
        let (mut chain, mut key, mut authority) = (Vec::new(), None, Vec::new());
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|error| refuse(format!("its PEM is damaged ({error})")))?;
            match kind {
                SectionKind::Certificate => {
                    let list = if key.is_none() { &mut chain } else { &mut authority };
                    if list.len() == CERTIFICATES_MAX {
                        return Err(refuse(format!("it has more than {CERTIFICATES_MAX} certificates")));
                    }
                    list.push(CertificateDer::from(der));
                }
                SectionKind::PrivateKey if key.is_none() => {
                    key = Some(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)));
                }
                SectionKind::PrivateKey => return Err(refuse("it has two private keys".into())),
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

    /// Whose bundle it is, and until when.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// TLS for a sensor: it shows its certificate and demands one of the authority for the host it connects to.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Content`] where key and certificate do not fit, or the authority's certificate is unusable.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| self.refuse(&error))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.refuse(&error))?;
        Ok(Arc::new(config))
    }

    /// TLS for a collector: it demands a certificate of the authority. Whether that sensor is on the list and not
    /// revoked is the caller's question, with [`subject`] of the certificate that was shown.
    ///
    /// # Errors
    ///
    /// As [`client_config`](Self::client_config).
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
    /// Without the key.
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

/// What a certificate (DER) says of its owner. That it is genuine has been checked by TLS, or is not known.
///
/// # Errors
///
/// In words: no certificate, or one without a DNS name of 1 to [`NAME_LEN_MAX`] bytes.
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
    let name = dns.ok_or("it names no DNS name of its owner")?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > NAME_LEN_MAX || !is_plain {
        return Err(format!("its owner's name is not 1 to {NAME_LEN_MAX} printable bytes"));
    }
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    Ok(Subject { name, starts_unix: seconds(validity.not_before), expires_unix: seconds(validity.not_after) })
}

#[cfg(test)]
mod tests;
