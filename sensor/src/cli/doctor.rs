//! `etwsieve doctor`: checks whether the sensor would receive events.

use super::{Exit, after_writing, usage_error};
use crate::live::doctor::Status;
use crate::live::policy::Edition;
use crate::sys;
use clap::Args;
use etwsieve_transport::printable::Printable;
use std::io::{self, Write};

/// Check whether the sensor would receive events on this machine, and explain why not (Windows).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve doctor
  etwsieve doctor --canary                         starts PowerShell and waits for its script block
Exit codes: 0 the sensor would receive script blocks; 1 something is missing; 2 wrong usage.")]
pub(super) struct DoctorArgs {
    /// Start PowerShell with a script block that contains a random word, and report whether and when it arrives.
    #[arg(long)]
    canary: bool,
    /// Name of the sensor's session.
    #[arg(long, value_name = "NAME", default_value = "etwsieve")]
    session: String,
}

pub(super) fn run(args: &DoctorArgs) -> Exit {
    if let Err(error) = sys::require("doctor") {
        return usage_error(error);
    }
    let mut findings = sys::examine(&args.session);
    if args.canary {
        findings.extend(sys::canary(Edition::WindowsPowerShell));
        findings.extend(sys::canary(Edition::PowerShell7));
    }
    let mut out = anstream::AutoStream::auto(io::stdout());
    let written = findings.iter().try_for_each(|finding| {
        let mark = match finding.status {
            Status::Good => "\x1b[32m ok \x1b[0m",
            Status::Warning => "\x1b[33mwarn\x1b[0m",
            Status::Bad => "\x1b[31mBAD \x1b[0m",
        };
        writeln!(out, "{mark} {}: {}", Printable(finding.subject), Printable(&finding.text))
    });
    let worst = findings.iter().map(|finding| finding.status).max();
    let exit = if worst == Some(Status::Bad) { Exit::Damaged } else { Exit::Complete };
    after_writing(written, exit)
}
