//! TLS 1.3 with certificates of the private authority at both ends.

use etwsieve_transport::files;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The authority's certificate in the folder of the authority.
pub const AUTHORITY_FILE: &str = "ca.pem";
/// The collector's bundle: its certificate and its key.
pub const COLLECTOR_FILE: &str = "collector.pem";
/// Most bytes of a file of certificates.
pub const PEM_LEN_MAX: u64 = 1 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; `etwsieve-collector pki init` makes it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} has {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        detail: String,
    },
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("the certificates in {} cannot be used: {detail}", path.display())]
    Refused {
        /// The folder.
        path: PathBuf,
        /// What rustls says.
        detail: String,
    },
}

/// The collector's side, from the folder that `etwsieve-collector pki init` has filled.
///
/// Sessions are never resumed, so that every connection shows its certificate, and a revoked one is noticed.
///
/// # Errors
///
/// [`TlsError`].
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
    let key = PrivateKeyDer::from_pem_slice(&read(&bundle)?)
        .map_err(|error| TlsError::Invalid { path: bundle, detail: format!("no private key: {error}") })?;
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
        .map_err(|error| invalid(format!("a certificate that cannot be read: {error}")))?;
    if certificates.is_empty() { Err(invalid("no certificate".into())) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.into(), source };
    let bytes = files::read_at_most(path, PEM_LEN_MAX).map_err(unreadable)?;
    if bytes.len() as u64 > PEM_LEN_MAX {
        let detail = format!("expected at most {PEM_LEN_MAX} bytes");
        return Err(TlsError::Invalid { path: path.into(), detail });
    }
    Ok(bytes)
}
