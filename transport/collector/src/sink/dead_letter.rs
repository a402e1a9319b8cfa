//! The dead-letter file: hits that the other side will never take, with its reason, so that a person can look.
//!
//! JSON Lines: `{"refused_at": …, "sink": …, "reason": …, "hit": {…}}`, a line for each rule, `hit` being the record in the
//! project's own field names. A line is durable before the hit counts as done with.
//!
//! Space is checked before anything is written, and shared: **a sensor may use at most half of what the others have left**, so
//! no number of sensors can fill the file. What does not fit is dropped and counted, and the sink continues.

use super::append::{Append, identity};
use super::{Item, Progress, Record, RecordFormat, SinkError};
use etwsieve_transport::time::{unix_now, unix_text};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Longest reason that is kept, in bytes.
const REASON_LEN_MAX: usize = 2000;
/// Precedes the sensor's name in a line. It cannot appear earlier in the line, because quotes in a reason are escaped.
const SENSOR_MARK: &[u8] = b",\"hit\":{\"sensor\":\"";

/// A dead-letter file. It is made when it is first needed.
#[derive(Debug)]
pub struct DeadLetter {
    path: PathBuf,
    sink: String,
    len_max: u64,
    used: Used,
}

/// Contents of the file, as far as it has been read.
#[derive(Debug, Default)]
struct Used {
    /// The file that was read.
    file: Option<(u64, u64)>,
    /// How far.
    read: u64,
    /// Bytes of each sensor's lines.
    sensors: HashMap<String, u64>,
}

/// Counts of refused hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buried {
    /// Hits that are in the file.
    pub kept: u64,
    /// Hits that did not fit.
    pub dropped: u64,
}

impl DeadLetter {
    /// A file at `path` for the sink of this name, of at most `len_max` bytes.
    pub fn new(path: PathBuf, sink: String, len_max: u64) -> Self {
        Self { path, sink, len_max, used: Used::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes hits with the reasons why they were refused, and returns when they are durable. Hits that do not fit are
    /// omitted and counted.
    ///
    /// # Errors
    ///
    /// The file cannot be written; nothing of these hits is in it.
    pub fn write(
        &mut self,
        refused: &[(&Item, &str)],
        progress: &mut dyn Progress,
    ) -> Result<Buried, SinkError> {
        self.append(refused, progress).map_err(|error| {
            // What was counted may not be there.
            self.used = Used::default();
            SinkError::new(format!("cannot write to the dead-letter file {}: {error}", self.path.display()))
        })
    }

    fn append(&mut self, refused: &[(&Item, &str)], progress: &mut dyn Progress) -> io::Result<Buried> {
        let mut open = Append::open(&self.path, progress)?;
        self.used.update(&mut open)?;
        let (mut total, mut buried) = (open.len, Buried::default());
        let mut write = |lines: &[u8]| open.file.write_all(lines);
        let mut written = Ok(());
        for (item, reason) in refused {
            let lines = self.lines(item, reason);
            let len = lines.len() as u64;
            if self.used.has_room(&item.sensor, len, total, self.len_max) {
                written = write(&lines);
                if written.is_err() {
                    break;
                }
                self.used.add(&item.sensor, len);
                total += len;
                buried.kept += 1;
            } else {
                buried.dropped += 1;
            }
        }
        if buried.kept > 0 {
            written = written.and_then(|()| open.file.sync_data());
        }
        written.inspect_err(|_| open.undo())?;
        self.used.read = total;
        Ok(buried)
    }

    /// The lines of a hit; their length is bounded as that of its records is.
    fn lines(&self, item: &Item, reason: &str) -> Vec<u8> {
        let reason = &reason[..reason.floor_char_boundary(REASON_LEN_MAX)];
        let head =
            serde_json::json!({ "refused_at": unix_text(unix_now()), "sink": self.sink, "reason": reason });
        let head = head.to_string();
        let mut lines = Vec::new();
        for record in Record::of(item) {
            lines.extend(head.trim_end_matches('}').as_bytes());
            lines.extend(b",\"hit\":");
            record.append(RecordFormat::Jsonl, &mut lines);
            lines.extend(b"}\n");
        }
        lines
    }
}

impl Used {
    /// Reads what another process has added, or all of a file that is new.
    fn update(&mut self, open: &mut Append) -> io::Result<()> {
        let file = Some(identity(&open.metadata));
        if file != self.file || open.len < self.read {
            *self = Self { file, ..Self::default() };
        }
        if open.len == self.read {
            return Ok(());
        }
        open.file.seek(SeekFrom::Start(self.read))?;
        let mut reader = BufReader::with_capacity(1 << 20, &open.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let len = reader.read_until(b'\n', &mut line)?;
            if len == 0 {
                break;
            }
            if let Some(sensor) = sensor_of(&line) {
                self.add(sensor, len as u64);
            }
            self.read += len as u64;
        }
        Ok(())
    }

    fn add(&mut self, sensor: &str, len: u64) {
        match self.sensors.get_mut(sensor) {
            Some(used) => *used += len,
            None => _ = self.sensors.insert(sensor.to_owned(), len),
        }
    }

    /// Whether a sensor may add `len` bytes to a file of `total`.
    fn has_room(&self, sensor: &str, len: u64, total: u64, len_max: u64) -> bool {
        let own = self.sensors.get(sensor).copied().unwrap_or_default();
        let left_by_others = len_max.saturating_sub(total.saturating_sub(own));
        own.saturating_add(len) <= left_by_others / 2
    }
}

/// The sensor that a line is about.
fn sensor_of(line: &[u8]) -> Option<&str> {
    let at = line.windows(SENSOR_MARK.len()).position(|bytes| bytes == SENSOR_MARK)?;
    let rest = &line[at + SENSOR_MARK.len()..];
    let end = rest.iter().position(|byte| *byte == b'"')?;
    str::from_utf8(&rest[..end]).ok()
}
