//! Bundles: certificate, private key and the authority's certificate in one PEM file.

use super::{PkiError, files};
use data_encoding::HEXLOWER;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Maximum length of a bundle, in bytes.
const BUNDLE_LEN_MAX: u64 = 1024 * 1024;

/// The credentials of one side of a connection.
#[derive(Debug)]
pub struct Bundle {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The certificate of the authority that signs the certificate of the other side.
    pub authority: CertificateDer<'static>,
}

impl Bundle {
    /// Reads a bundle. The first certificate is its own, the second that of the authority.
    ///
    /// # Errors
    ///
    /// [`PkiError::Missing`], [`PkiError::Io`], or [`PkiError::Damaged`] unless the file contains two certificates and
    /// a key.
    pub fn read(path: &Path) -> Result<Self, PkiError> {
        let text = files::read(path, BUNDLE_LEN_MAX)?;
        let damaged = |detail: &str| PkiError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let mut certificates = Vec::new();
        let mut key = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, der) = section.map_err(|error| damaged(&error.to_string()))?;
            match kind {
                SectionKind::Certificate => certificates.push(CertificateDer::from(der)),
                _ => key = key.or(PrivateKeyDer::from_pem(kind, der)),
            }
        }
        let [certificate, authority] = <[_; 2]>::try_from(certificates).map_err(|found| {
            damaged(&format!("{} certificates, expected two (its own and the authority's)", found.len()))
        })?;
        let key = key.ok_or_else(|| damaged("no private key found"))?;
        Ok(Self { certificate, key, authority })
    }
}

/// The validity period of a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: u64,
    /// Last second.
    pub until: u64,
}

/// Returns the validity period of a certificate; `None` if it cannot be parsed.
pub fn certificate_validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    Some(Validity {
        from: seconds(parsed.validity().not_before),
        until: seconds(parsed.validity().not_after),
    })
}

/// Returns the host names and addresses of a certificate.
pub(super) fn certificate_hosts(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = &parsed.subject_alternative_name().ok()??.value.general_names;
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(std::net::IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    };
    Some(names.iter().filter_map(host).collect())
}

/// Returns the SHA-256 of a certificate in lower-case hexadecimal, as in `sensors.toml`.
pub fn fingerprint(certificate: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}
