//! `etwsieve-collector service`: the collector as a Windows service. On other systems the command refers to systemd.

use clap::Subcommand;
use std::path::PathBuf;

/// Manage the Windows service
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Install the service: automatic start, least-privilege account, restart after a crash
    Install {
        /// Configuration file of the service
        #[arg(long, value_name = "FILE", default_value = r"C:\ProgramData\etwsieve\collector.toml")]
        config: PathBuf,
        /// Only warn if ordinary accounts can change the program, its configuration or its certificates
        #[arg(long)]
        allow_exposed: bool,
    },
    /// Remove the service but keep store and configuration
    Uninstall,
    /// Start the service
    Start,
    /// Stop the service; hits being stored are acknowledged first
    Stop,
    /// Show the state of the service
    Status,
    /// Run as the service; used by the service manager
    #[command(hide = true)]
    Run {
        /// Configuration file
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
            "`etwsieve-collector service` is only available on Windows; on Linux, use the systemd unit \
             transport/collector/packaging/etwsieve-collector.service",
        )
    }
}

#[cfg(windows)]
#[path = "service/windows.rs"]
mod system;

pub(super) use system::run;
