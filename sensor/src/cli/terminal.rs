//! Standard error: diagnostics from tracing, and a progress bar.

use crate::pipeline::Progress;
use etwsieve_transport::diagnostics::CleanFields;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Environment variable that sets the filter for diagnostics.
const LOG_VARIABLE: &str = "ETWSIEVE_LOG";

/// Standard error of a run. Clones share the progress bar.
#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    bar: Arc<OnceLock<ProgressBar>>,
}

impl Terminal {
    /// Initialises tracing with the filter `default`, or with that of `verbose` or of the environment.
    pub(super) fn new(verbose: u8, default: &str) -> Self {
        let terminal = Self::default();
        let level = match verbose {
            0 => default,
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = match std::env::var(LOG_VARIABLE) {
            Ok(text) if verbose == 0 => EnvFilter::try_new(&text).unwrap_or_else(|error| {
                super::print_error(format_args!("ignoring {LOG_VARIABLE}={text:?}: {error}"));
                EnvFilter::new(level)
            }),
            _ => EnvFilter::new(level),
        };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(terminal.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(CleanFields)
            .finish();
        // Fails if the process already has a subscriber, as in tests, which then stays.
        let _ = tracing::subscriber::set_global_default(subscriber);
        terminal
    }

    /// Shows a progress bar for `bytes` of input if standard error is a terminal.
    pub(super) fn start_progress(&self, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let style = ProgressStyle::with_template(
            "{bar:30.cyan/blue} {bytes}/{total_bytes} {binary_bytes_per_sec}, {msg}, {eta} left",
        );
        let bar = ProgressBar::new(bytes);
        // The template is valid; if not, the default style is used.
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let _ = self.bar.set(bar);
    }

    /// Updates the progress bar.
    pub(super) fn show(&self, progress: &Progress, hits: u64) {
        if let Some(bar) = self.bar.get() {
            let events = progress.events.load(Ordering::Relaxed);
            let rate = events as f64 / bar.elapsed().as_secs_f64().max(0.001);
            bar.set_position(progress.bytes.load(Ordering::Relaxed));
            bar.set_message(format!("{events} events ({rate:.0}/s), {hits} with hits"));
        }
    }

    /// Removes the progress bar.
    pub(super) fn end_progress(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines { terminal: self.clone() }
    }
}

/// Writes a line of diagnostics while the progress bar is hidden.
pub(super) struct Lines {
    terminal: Terminal,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.terminal.bar.get() {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
