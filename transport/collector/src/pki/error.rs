//! Errors of the authority.

use etwsieve_transport::printable;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command of the authority failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name is not valid for a sensor.
    #[error("invalid sensor name {name:?}: {detail}")]
    Name {
        /// The beginning of the name.
        name: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// A host is neither a host name nor an address.
    #[error("invalid host {host:?}: expected a host name or an IP address")]
    Host {
        /// The host.
        host: String,
    },
    /// The certificate of a collector needs a host.
    #[error("no host; pass at least one host name or address of the collector with --host")]
    NoHost,
    /// A file of the authority exists already.
    #[error(
        "{} already exists; use another folder, or remove the file if a previous init was interrupted",
        printable::path(path)
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A bundle would overwrite another file.
    #[error(
        "{} exists and is not a bundle of {name} from this authority; choose another file with --out",
        printable::path(path)
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// The sensor, or the collector.
        name: String,
    },
    /// A bundle would have the name of one of the authority's files.
    #[error(
        "{} is reserved for a file of the authority; choose another file with --out",
        printable::path(path)
    )]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// A file of the authority is missing.
    #[error(
        "{} does not exist; create the authority with `pki init`, or restore the file",
        printable::path(path)
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The sensor already has a valid certificate.
    #[error("{name} already has a certificate valid until {expires}; pass --renew to issue another one")]
    Known {
        /// The sensor.
        name: String,
        /// When it expires.
        expires: String,
    },
    /// The sensor has no such certificate.
    #[error("{name} has no certificate in {}", printable::path(path))]
    Unknown {
        /// The sensor.
        name: String,
        /// The list of sensors.
        path: PathBuf,
    },
    /// The list of sensors is full.
    #[error("{} is full: it contains {max} certificates", printable::path(path))]
    Full {
        /// The list of sensors.
        path: PathBuf,
        /// The maximum number of certificates.
        max: usize,
    },
    /// A file has unexpected contents.
    #[error("{}: {detail}", printable::path(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The authority has expired.
    #[error(
        "the authority in {} expired on {expires}; create a new one with `pki init` in another folder",
        printable::path(path)
    )]
    Expired {
        /// Its certificate.
        path: PathBuf,
        /// When it expired.
        expires: String,
    },
    /// The system reports an error.
    #[error("cannot {action} {}: {source}", printable::path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A certificate cannot be created.
    #[error("cannot create the certificate of {name}: {source}")]
    Certificate {
        /// The names in the certificate.
        name: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// The system provides no random numbers.
    #[error("cannot get random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Adds the path and action to an error of the system.
pub(super) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, PkiError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, PkiError> {
        self.map_err(|source| PkiError::Io { path: path.to_owned(), action, source })
    }
}
