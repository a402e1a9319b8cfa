//! What can go wrong with the authority, in terms of what to do about it.

use etwsieve_transport::printable;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command of the authority was not carried out; nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Not a name for a sensor.
    #[error("{name:?} is no name for a sensor: {detail}")]
    Name {
        /// What was given, its beginning.
        name: String,
        /// Why.
        detail: &'static str,
    },
    /// Neither a host name nor an address.
    #[error("{host:?} is neither a host name nor an IP address")]
    Host {
        /// What was given.
        host: String,
    },
    /// An authority needs to know where sensors connect to.
    #[error("name at least one host name or address of the collector: --host NAME")]
    NoHost,
    /// There is something already.
    #[error(
        "{} exists and is left as it is; name another folder, or remove it if an init was interrupted",
        printable::path(path)
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A bundle would take the place of something else.
    #[error(
        "{} exists and is not a bundle of {name} from this authority; name another file with --out",
        printable::path(path)
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// The sensor, or the collector.
        name: String,
    },
    /// A bundle would take a name that the authority itself uses.
    #[error("{} is the name of a file of the authority; name another file with --out", printable::path(path))]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// No authority in the folder.
    #[error(
        "{} is not there; make the authority with `pki init`, or put the file back",
        printable::path(path)
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A certificate for this name is in use.
    #[error("{name} has a certificate until {expires}; --renew issues another one")]
    Known {
        /// The sensor.
        name: String,
        /// When it expires.
        expires: String,
    },
    /// No certificate for this name.
    #[error("{name} has no certificate in {}", printable::path(path))]
    Unknown {
        /// The sensor.
        name: String,
        /// The register.
        path: PathBuf,
    },
    /// The register has no room.
    #[error("{} holds {max} certificates and takes no more", printable::path(path))]
    Full {
        /// The register.
        path: PathBuf,
        /// How many it may hold.
        max: usize,
    },
    /// A file does not hold what it should.
    #[error("{}: {detail}", printable::path(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The authority is at its end.
    #[error(
        "the authority in {} expired on {expires}; make a new one with `pki init` in another folder",
        printable::path(path)
    )]
    Expired {
        /// Its certificate.
        path: PathBuf,
        /// When.
        expires: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", printable::path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// No certificate could be made.
    #[error("cannot make the certificate of {name}: {source}")]
    Certificate {
        /// Whose.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Gives errors of the system their place.
pub(super) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, PkiError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, PkiError> {
        self.map_err(|source| PkiError::Io { path: path.to_owned(), action, source })
    }
}
