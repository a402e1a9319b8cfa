//! Hits as text: JSON Lines for programs, a table for people.

pub mod table;

use crate::stop::Stop;
use etwsieve_transport::files::PatientStdout;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::output::{ecs, jsonl, splunk};
use etwsieve_transport::printable::TerminalJson;
use std::io::{self, IsTerminal, Write};

/// How hits are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One aligned line for each rule and event, for reading.
    Table,
    /// JSON Lines, the project's own field names.
    Jsonl,
    /// JSON Lines with the names of the Elastic Common Schema.
    Ecs,
    /// JSON Lines for Splunk's HTTP Event Collector, with CIM field names.
    Splunk,
}

impl Format {
    /// A table on a terminal, JSON Lines otherwise.
    pub fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Jsonl }
    }

    /// Standard output for it. Only a table has colours, which go where they can be seen; looking for them in megabytes of
    /// JSON would take longer than writing it.
    pub fn stdout(self) -> Box<dyn Write + Send> {
        match self {
            Self::Table => Box::new(anstream::AutoStream::auto(io::stdout())),
            _ if io::stdout().is_terminal() => Box::new(TerminalJson::new(io::stdout())),
            Self::Jsonl | Self::Ecs | Self::Splunk => Box::new(io::stdout()),
        }
    }

    /// As [`stdout`](Self::stdout), but a reader that takes nothing any more does not hold up a stop.
    ///
    /// # Errors
    ///
    /// The system has no thread.
    pub fn stdout_until(self, stop: &Stop) -> io::Result<Box<dyn Write + Send>> {
        if self == Self::Table || io::stdout().is_terminal() {
            return Ok(self.stdout());
        }
        Ok(Box::new(PatientStdout::new(stop.clone())?))
    }

    /// Writes what stands above the first hit.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn header(self, out: &mut dyn Write) -> io::Result<()> {
        if self == Self::Table { table::header(out) } else { Ok(()) }
    }

    /// Writes a line for each rule of the hit.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(self, hit: &HitV1, out: &mut dyn Write) -> io::Result<()> {
        hit.rules.iter().try_for_each(|rule| match self {
            Self::Table => table::write(hit, rule, out),
            Self::Jsonl => json(&jsonl::Line::new(hit, rule), out),
            Self::Ecs => json(&ecs::document(hit, rule), out),
            Self::Splunk => json(&splunk::event(hit, rule), out),
        })
    }
}

fn json(line: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
