//! The dead-letter file: hits that the receiver will never accept, with the reason, for inspection.
//!
//! It consists of JSON Lines `{"refused_at": …, "sink": …, "reason": …, "hit": {…}}`, one for each rule; `hit` is the
//! record in the format `jsonl`. Lines are durable before the batch is acknowledged.
//!
//! Space is shared: **a sensor may use at most half of the space that the others have left**, so no number of sensors
//! can fill the file. Hits that do not fit are dropped and counted, and the sink continues.

use super::append::{Append, identity};
use super::{DeliveryContext, Record, RecordFormat, SinkError, SinkItem};
use etwsieve_transport::time::{unix_now, unix_text};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Maximum length of a reason, in bytes.
const REASON_LEN_MAX: usize = 2000;
/// Precedes the sensor's name in a line. It cannot occur earlier in the line, because quotes in a reason are escaped.
const SENSOR_MARK: &[u8] = b",\"hit\":{\"sensor\":\"";

/// A dead-letter file, which is created when it is first needed.
#[derive(Debug)]
pub struct DeadLetter {
    path: PathBuf,
    sink: String,
    len_max: u64,
    used: Used,
}

/// The space used by each sensor in the part of the file that has been read.
#[derive(Debug, Default)]
struct Used {
    /// The identity of the file.
    file: Option<(u64, u64)>,
    /// Length of the part that has been read, in bytes.
    read: u64,
    /// Total length of each sensor's lines, in bytes.
    sensors: HashMap<String, u64>,
}

/// Counts of refused hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCounts {
    /// Hits written to the file.
    pub kept: u64,
    /// Hits dropped because they did not fit.
    pub dropped: u64,
}

impl DeadLetter {
    /// Creates a dead-letter file at `path` for the sink with this name, of at most `len_max` bytes.
    pub fn new(path: PathBuf, sink: String, len_max: u64) -> Self {
        Self { path, sink, len_max, used: Used::default() }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes refused hits with the reasons and returns when they are durable. Hits that do not fit are dropped.
    ///
    /// # Errors
    ///
    /// The file cannot be written; it contains none of these hits.
    pub fn write(
        &mut self,
        refused: &[(&SinkItem, &str)],
        context: &mut dyn DeliveryContext,
    ) -> Result<DeadLetterCounts, SinkError> {
        self.append(refused, context).map_err(|error| {
            // Lines that were counted may not be in the file.
            self.used = Used::default();
            SinkError::new(format!("cannot write to the dead-letter file {}: {error}", self.path.display()))
        })
    }

    fn append(
        &mut self,
        refused: &[(&SinkItem, &str)],
        context: &mut dyn DeliveryContext,
    ) -> io::Result<DeadLetterCounts> {
        let mut open = Append::open(&self.path, context)?;
        self.used.update(&mut open)?;
        let (mut total, mut counts) = (open.len, DeadLetterCounts::default());
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
                counts.kept += 1;
            } else {
                counts.dropped += 1;
            }
        }
        if counts.kept > 0 {
            written = written.and_then(|()| open.file.sync_data());
        }
        written.inspect_err(|_| open.undo())?;
        self.used.read = total;
        Ok(counts)
    }

    /// Returns the lines of a hit; their length is bounded like that of its records.
    fn lines(&self, item: &SinkItem, reason: &str) -> Vec<u8> {
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
    /// Reads lines that other processes have added, or the whole file if it is a different one.
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

    /// Returns whether a sensor may add `len` bytes to a file of `total` bytes.
    fn has_room(&self, sensor: &str, len: u64, total: u64, len_max: u64) -> bool {
        let own = self.sensors.get(sensor).copied().unwrap_or_default();
        let left_by_others = len_max.saturating_sub(total.saturating_sub(own));
        own.saturating_add(len) <= left_by_others / 2
    }
}

/// Returns the sensor named in a line.
fn sensor_of(line: &[u8]) -> Option<&str> {
    let at = line.windows(SENSOR_MARK.len()).position(|bytes| bytes == SENSOR_MARK)?;
    let rest = &line[at + SENSOR_MARK.len()..];
    let end = rest.iter().position(|byte| *byte == b'"')?;
    str::from_utf8(&rest[..end]).ok()
}
