//! `etwsieve-collector service`: the collector under the service manager of Windows. Elsewhere it says what does that
//! there.

use clap::Subcommand;
use std::path::PathBuf;

/// What `service` does.
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Install the service: automatic start, least-privilege account, restart after a crash.
    Install {
        /// The configuration that the service uses.
        #[arg(long, value_name = "FILE", default_value = r"C:\ProgramData\etwsieve\collector.toml")]
        config: PathBuf,
        /// Install even if ordinary accounts can change the program, its configuration or its certificates, and only warn.
        #[arg(long)]
        allow_exposed: bool,
    },
    /// Remove the service; store and configuration stay.
    Uninstall,
    /// Start the service.
    Start,
    /// Stop the service: what is in the store's hands is acknowledged.
    Stop,
    /// Show the state of the service.
    Status,
    /// What the service manager runs.
    #[command(hide = true)]
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[cfg(not(windows))]
mod system {
    use super::ServiceCommand;
    use crate::cli::{Exit, refuse};

    pub(in crate::cli) fn run(_command: &ServiceCommand) -> Exit {
        refuse(
            "`etwsieve-collector service` needs Windows, whose service manager it talks to; on Linux the systemd unit \
             transport/collector/packaging/etwsieve-collector.service runs the collector",
        )
    }
}

#[cfg(windows)]
#[path = "service/windows.rs"]
mod system;

pub(super) use system::run;
