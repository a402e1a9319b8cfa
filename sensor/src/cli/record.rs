//! `etwsieve record`: records PowerShell's events to an .etl file.

use super::{Exit, stop_on_signal, usage_error};
use crate::live::recording::Recording;
use crate::live::settings::SessionSettings;
use crate::stop::Stop;
use crate::sys;
use clap::Args;
use etwsieve_transport::printable;
use std::path::PathBuf;
use std::time::Duration;

/// Record PowerShell's events to an .etl file that `replay` reads (Windows).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve record evidence.etl                     until Ctrl-C
  etwsieve record --seconds 600 --size-max 512 busy.etl")]
pub(super) struct RecordArgs {
    /// Stop after this many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Stop when the file has reached this size in MB.
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    size_max: u32,
    /// Also record content passed to the antimalware scanner (AMSI, event 1101).
    #[arg(long)]
    amsi: bool,
    /// Name of the session.
    #[arg(long, value_name = "NAME", default_value = "etwsieve-record")]
    session: String,
    /// File to write; it must not exist.
    #[arg(value_name = "OUT.etl")]
    path: PathBuf,
}

pub(super) fn run(args: &RecordArgs) -> Exit {
    if let Err(error) = sys::require("record") {
        return usage_error(error);
    }
    let stop = Stop::default();
    stop_on_signal(&stop);
    let settings =
        SessionSettings { name: args.session.clone(), amsi: args.amsi, ..SessionSettings::default() };
    if let Err(error) = settings.validate() {
        return usage_error(error);
    }
    let recording = Recording {
        settings: &settings,
        path: &args.path,
        size_max_mb: args.size_max,
        time_max: args.seconds.map(Duration::from_secs),
    };
    let bar = indicatif::ProgressBar::new_spinner();
    let result = sys::record(&recording, &stop, |state, len| {
        bar.set_message(format!("{len} bytes, {} events lost", state.losses.events));
        bar.tick();
    });
    bar.finish_and_clear();
    match result {
        Ok(recorded) => {
            let losses = recorded.state.losses;
            anstream::eprintln!(
                "recorded {} bytes in {:.1} s to {}; lost: {} events, {} buffers",
                recorded.len,
                recorded.time.as_secs_f64(),
                printable::path(&args.path),
                losses.events,
                losses.log_buffers,
            );
            if losses.is_lossless() { Exit::Complete } else { Exit::Damaged }
        }
        Err(error) => usage_error(error),
    }
}
