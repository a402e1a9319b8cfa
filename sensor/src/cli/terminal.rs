//! Standard error: diagnostics through tracing, and a progress bar that they do not tear.

use crate::pipeline::Progress;
use etwsieve_transport::diagnostics::CleanFields;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Environment variable with a filter for diagnostics.
const LOG_VARIABLE: &str = "ETWSIEVE_LOG";

/// Standard error of a run. Clones share the bar.
#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    bar: Arc<OnceLock<ProgressBar>>,
}

impl Terminal {
    /// Sets tracing up: what the filter `usual` says, or more with `verbose` or by the environment.
    pub(super) fn new(verbose: u8, usual: &str) -> Self {
        let terminal = Self::default();
        let level = match verbose {
            0 => usual,
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = match std::env::var(LOG_VARIABLE) {
            Ok(text) if verbose == 0 => EnvFilter::try_new(&text).unwrap_or_else(|error| {
                super::complain(format_args!("{LOG_VARIABLE}={text:?} is ignored: {error}"));
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
        // A second program in one process (the tests) keeps the first one's.
        let _ = tracing::subscriber::set_global_default(subscriber);
        terminal
    }

    /// Shows a bar over `bytes` of input, if standard error is a terminal.
    pub(super) fn start_progress(&self, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let style = ProgressStyle::with_template(
            "{bar:30.cyan/blue} {bytes}/{total_bytes} {binary_bytes_per_sec}, {msg}, {eta} left",
        );
        let bar = ProgressBar::new(bytes);
        // The template is ours; without it the default bar does.
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let _ = self.bar.set(bar);
    }

    /// Moves the bar.
    pub(super) fn show(&self, progress: &Progress, hits: u64) {
        if let Some(bar) = self.bar.get() {
            let events = progress.events.load(Ordering::Relaxed);
            let rate = events as f64 / bar.elapsed().as_secs_f64().max(0.001);
            bar.set_position(progress.bytes.load(Ordering::Relaxed));
            bar.set_message(format!("{events} events ({rate:.0}/s), {hits} with hits"));
        }
    }

    /// Takes the bar away.
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

/// A line of diagnostics, written while the bar stands aside.
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
