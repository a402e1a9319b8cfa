//! Checks that no output of a collector overwrites its configuration, a certificate, or another output.

use crate::config::Config;
use crate::pki::SENSORS_FILE;
use crate::tls::{AUTHORITY_FILE, COLLECTOR_FILE};
use etwsieve_transport::files::{ClaimError, Claims};
use std::path::Path;

/// Checks the outputs of `config`, which was read from `config_path`.
///
/// # Errors
///
/// An output would overwrite an input or another output. The error names the option or key of the output.
pub fn check_outputs(config: &Config, config_path: Option<&Path>) -> Result<(), ClaimError> {
    let mut claims = Claims::default();
    if let Some(path) = config_path {
        claims.input(path);
    }
    if let Some(folder) = &config.pki {
        // The key exists only where certificates are issued.
        for name in [AUTHORITY_FILE, COLLECTOR_FILE, SENSORS_FILE, "ca.key"] {
            claims.input(&folder.join(name));
        }
    }
    if config.nats().is_none() {
        claims.database("store", Path::new(&config.store))?;
    }
    for sink in &config.sink {
        for (key, path) in sink.outputs(&config.folder) {
            claims.output(&key, &path)?;
        }
    }
    Ok(())
}
