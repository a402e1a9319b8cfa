//! A private certificate authority for sensors and collectors, in a folder of its own.
//!
//! | file | what it holds |
//! |---|---|
//! | `ca.pem` | the authority's certificate |
//! | `ca.key` | its private key; only `pki` commands read it, so it may be kept elsewhere between them |
//! | `collector.pem` | the collector's bundle |
//! | `NAME.bundle.pem` | the bundle of the sensor NAME |
//! | `sensors.toml` | every certificate issued to a sensor, and which are revoked: the collector's allow-list |
//!
//! A bundle is everything that one end needs, in this order: its certificate, its private key, the authority's
//! certificate. Keys are ECDSA P-256. **The first DNS name of a sensor's certificate is its name.** A sensor's certificate
//! is good for clients only and a collector's for servers only, so that neither passes for the other.
//!
//! Files appear whole or not at all, under their final permissions (Unix: readable for their owner alone; on Windows a
//! file gets those of its folder). Nothing that holds a key is ever overwritten without having been asked for.

mod authority;
mod bundle;
pub mod cli;
mod error;
mod files;
mod name;
mod register;

pub use authority::{Authority, DAYS_MAX, Issued};
pub use bundle::{Bundle, Validity, certificate_validity, fingerprint};
pub use error::PkiError;
pub use name::{SENSOR_NAME_LEN_MAX, SensorName};
pub use register::{Entry, REGISTER_LEN_MAX, Register, SENSORS_FILE, SENSORS_MAX};
