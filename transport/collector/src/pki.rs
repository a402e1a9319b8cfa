//! A private certificate authority for sensors and collectors, in one folder.
//!
//! | file | contents |
//! |---|---|
//! | `ca.pem` | the authority's certificate |
//! | `ca.key` | its private key; only `pki` commands read it, so it may be stored elsewhere in between |
//! | `collector.pem` | the collector's bundle |
//! | `NAME.bundle.pem` | the bundle of the sensor NAME |
//! | `sensors.toml` | all certificates issued to sensors, and which are revoked: the collector's allow-list |
//!
//! A bundle contains everything that one side needs, in this order: its certificate, its private key, the authority's
//! certificate. Keys are ECDSA P-256. **The first DNS name of a sensor's certificate is the name of the sensor.** A
//! sensor's certificate is valid for clients only and a collector's for servers only, so neither can impersonate the
//! other.
//!
//! Files are written atomically with their final permissions (on Unix, only the owner can read them; on Windows they
//! inherit those of the folder). Files with keys are overwritten only on request.

mod authority;
mod bundle;
pub mod cli;
mod error;
mod files;
mod name;
mod register;

pub use authority::{Authority, DAYS_MAX, IssuedBundle};
pub use bundle::{Bundle, Validity, certificate_validity, fingerprint};
pub use error::PkiError;
pub use name::{SENSOR_NAME_LEN_MAX, SensorName};
pub use register::{CertificateEntry, REGISTER_LEN_MAX, Register, SENSORS_FILE, SENSORS_MAX};
