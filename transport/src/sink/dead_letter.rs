//! The dead-letter file: hits that the other side will never take, with its reason, so that a person can look.
//!
//! JSON Lines: `{"refused_at": …, "sink": …, "reason": …, "hit": {…}}`, a line for each rule, `hit` being the record in the
//! project's own field names. A line is durable before the hit counts as done with. At its size limit the file takes no
//! more, and the sink waits until somebody has looked and moved it away: nothing is thrown out silently.

use super::{Item, Record, RecordFormat, SinkError};
use crate::private_file;
use crate::time::{unix_now, unix_text};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Longest reason that is kept, in bytes.
const REASON_LEN_MAX: usize = 2000;

/// A dead-letter file. It is made when it is first needed.
#[derive(Debug)]
pub struct DeadLetter {
    path: PathBuf,
    sink: String,
    len_max: u64,
}

impl DeadLetter {
    /// A file at `path` for the sink of this name, of at most about `len_max` bytes.
    pub fn new(path: PathBuf, sink: String, len_max: u64) -> Self {
        Self { path, sink, len_max }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes hits with the reasons why they were refused, and returns when they are durable.
    ///
    /// # Errors
    ///
    /// The file is full, or cannot be written; some of the lines may be there.
    pub fn write(&self, refused: &[(&Item, &str)]) -> Result<(), SinkError> {
        let failed = |what: &str, error: std::io::Error| {
            SinkError::new(format!("cannot {what} the dead-letter file {}: {error}", self.path.display()))
        };
        let mut file = private_file::append(&self.path).map_err(|error| failed("open", error))?;
        let len = file.metadata().map_err(|error| failed("read", error))?.len();
        if len >= self.len_max {
            return Err(SinkError::new(format!(
                "the dead-letter file {} has reached {} bytes: look into it, and move it away",
                self.path.display(),
                self.len_max
            )));
        }
        for (item, reason) in refused {
            let reason = &reason[..reason.floor_char_boundary(REASON_LEN_MAX)];
            for record in Record::of(item) {
                let mut line = Vec::new();
                let head = serde_json::json!({ "refused_at": unix_text(unix_now()), "sink": self.sink, "reason": reason });
                line.extend(head.to_string().trim_end_matches('}').as_bytes());
                line.extend(b",\"hit\":");
                record.append(RecordFormat::Jsonl, &mut line);
                line.extend(b"}\n");
                file.write_all(&line).map_err(|error| failed("write", error))?;
            }
        }
        file.sync_data().map_err(|error| failed("sync", error))
    }
}
