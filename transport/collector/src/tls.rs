//! The server side of mutual TLS 1.3 with certificates of the private authority.

use etwsieve_transport::files;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File name of the authority's certificate.
pub const AUTHORITY_FILE: &str = "ca.pem";
/// File name of the collector's bundle: its certificate and private key.
pub const COLLECTOR_FILE: &str = "collector.pem";
/// Maximum length of a certificate file, in bytes.
pub const PEM_LEN_MAX: u64 = 1 << 20;

/// Why TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; `etwsieve-collector pki init` creates it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file has unexpected contents.
    #[error("{}: {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem.
        detail: String,
    },
    /// Certificate and key do not match, or are of an unsupported kind.
    #[error("the certificates in {} cannot be used: {detail}", path.display())]
    Refused {
        /// The folder.
        path: PathBuf,
        /// The error of rustls.
        detail: String,
    },
}

/// Returns the TLS configuration of the server, from the folder that `etwsieve-collector pki init` created.
///
/// Sessions are never resumed, so that every connection presents its certificate and a revoked one is noticed.
///
/// # Errors
///
/// A file is missing or invalid, or rustls refuses certificate and key.
pub fn server_config(folder: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |detail: String| TlsError::Refused { path: folder.into(), detail };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&folder.join(AUTHORITY_FILE))? {
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|error: VerifierBuilderError| refused(error.to_string()))?;
    let bundle = folder.join(COLLECTOR_FILE);
    let chain = certificates(&bundle)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&bundle)?).map_err(|error| TlsError::Invalid {
        path: bundle,
        detail: format!("no private key found: {error}"),
    })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| refused(error.to_string()))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let invalid = |detail| TlsError::Invalid { path: path.into(), detail };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(format!("invalid certificate: {error}")))?;
    if certificates.is_empty() { Err(invalid("no certificate found".into())) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.into(), source };
    let bytes = files::read_at_most(path, PEM_LEN_MAX).map_err(unreadable)?;
    if bytes.len() as u64 > PEM_LEN_MAX {
        let detail = format!("longer than {PEM_LEN_MAX} bytes");
        return Err(TlsError::Invalid { path: path.into(), detail });
    }
    Ok(bytes)
}
