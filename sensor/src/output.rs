//! Writes hits as text: JSON Lines for programs, a table for people.

pub mod table;

use crate::stop::Stop;
use etwsieve_transport::files::PatientStdout;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::output::{ecs, jsonl, splunk};
use etwsieve_transport::printable::TerminalJson;
use std::io::{self, IsTerminal, Write};

/// Output formats of hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One aligned line per rule and event.
    Table,
    /// JSON Lines with the field names of etwsieve.
    Jsonl,
    /// JSON Lines with the field names of the Elastic Common Schema.
    Ecs,
    /// JSON Lines for Splunk's HTTP Event Collector, with CIM field names.
    Splunk,
}

impl Format {
    /// Returns a table for a terminal and JSON Lines otherwise.
    pub fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Jsonl }
    }

    /// Returns standard output for this format. Only a table has colours, which are removed unless the output is a
    /// terminal; searching JSON for them would take longer than writing it.
    pub fn stdout(self) -> Box<dyn Write + Send> {
        match self {
            Self::Table => Box::new(anstream::AutoStream::auto(io::stdout())),
            _ if io::stdout().is_terminal() => Box::new(TerminalJson::new(io::stdout())),
            Self::Jsonl | Self::Ecs | Self::Splunk => Box::new(io::stdout()),
        }
    }

    /// Like [`stdout`](Self::stdout), but a reader that has stopped reading does not delay a stop.
    ///
    /// # Errors
    ///
    /// The error of the system if no thread can be started.
    pub fn stdout_until(self, stop: &Stop) -> io::Result<Box<dyn Write + Send>> {
        if self == Self::Table || io::stdout().is_terminal() {
            return Ok(self.stdout());
        }
        Ok(Box::new(PatientStdout::new(stop.clone())?))
    }

    /// Writes the header of the table; nothing for other formats.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn header(self, out: &mut dyn Write) -> io::Result<()> {
        if self == Self::Table { table::header(out) } else { Ok(()) }
    }

    /// Writes one line per rule of the hit.
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
