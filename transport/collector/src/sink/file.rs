//! Writes JSON Lines to a file, with rotation.
//!
//! A delivered batch is synced to the disk. The file is opened and locked for each batch (`append.rs`), so several
//! processes may write to one file, and after a rename (logrotate) the next batch goes to a new file. A batch that
//! fails is removed from the file, and so is an incomplete line after a crash. A file that is too large or too old is
//! renamed to `NAME.2026-01-31T090000Z-000000.jsonl`, with a number that counts within the second; only the newest of
//! these files are kept.

use super::append::{self, Append, identity, sync_folder};
use super::{DeliveryContext, Outcome, Record, RecordFormat, Sink, SinkError, SinkItem};
use etwsieve_transport::time::{unix_now, unix_text};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Number of bytes that are buffered before they are written.
const WRITE_LEN: usize = 1024 * 1024;

/// Settings of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// The format of the records.
    pub format: RecordFormat,
    /// Length in bytes from which the file is rotated before the next batch; 0: never.
    pub rotate_bytes: u64,
    /// Age in seconds from which the file is rotated; 0: never.
    pub rotate_seconds: u64,
    /// Maximum number of rotated files; older ones are removed. 0: all are kept.
    pub keep: usize,
}

/// A sink for a file.
#[derive(Debug)]
pub struct JsonFile {
    settings: FileSettings,
    /// The identity and creation time of the file, if the file system does not store it.
    begun: Option<((u64, u64), u64)>,
}

impl JsonFile {
    /// Creates a sink.
    pub fn new(settings: FileSettings) -> Self {
        Self { settings, begun: None }
    }

    fn write(&mut self, batch: &[SinkItem], context: &mut dyn DeliveryContext) -> io::Result<()> {
        let path = self.settings.path.clone();
        let mut open = Append::open(&path, context)?;
        if self.is_due(&open) {
            // Under the lock, so that a process that waits for it notices that the file was replaced. The new file gets
            // the permissions of the old one.
            self.rotate()?;
            append::open(&path, Some(&open.metadata.permissions()))?;
            drop(open);
            open = Append::open(&path, context)?;
        }
        write(&mut open.file, self.settings.format, batch).inspect_err(|_| open.undo())
    }

    fn is_due(&mut self, open: &Append) -> bool {
        let begun = self.begun(&open.metadata);
        let full = self.settings.rotate_bytes > 0 && open.len >= self.settings.rotate_bytes;
        let old = self.settings.rotate_seconds > 0
            && unix_now().saturating_sub(begun) >= self.settings.rotate_seconds;
        open.len > 0 && (full || old)
    }

    /// Returns when the file was created, in seconds since 1970.
    fn begun(&mut self, metadata: &Metadata) -> u64 {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Ok(created) = metadata.created() {
            return seconds(created);
        }
        // Not every file system stores it; then the time when this process first saw the file is used.
        let identity = identity(metadata);
        match self.begun {
            Some((known, begun)) if known == identity => begun,
            _ => {
                let begun = metadata.modified().map_or(0, seconds);
                self.begun = Some((identity, begun));
                begun
            }
        }
    }

    fn rotate(&self) -> io::Result<()> {
        let path = &self.settings.path;
        let (stem, extension) = parts(path);
        let stamp = unix_text(unix_now()).replace(':', "");
        // Names sort by age, so a number must not be reused within the second.
        let taken = rotated_files(path)?.into_iter().filter_map(|name| number(&name, &stamp)).max();
        let number = taken.map_or(0, |number| number + 1);
        let free = path.with_file_name(format!("{stem}.{stamp}-{number:06}.{extension}"));
        fs::rename(path, free)?;
        sync_folder(path)?;
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        if self.settings.keep == 0 {
            return Ok(());
        }
        let mut rotated = rotated_files(&self.settings.path)?;
        rotated.sort();
        let surplus = rotated.len().saturating_sub(self.settings.keep);
        rotated[..surplus].iter().try_for_each(|path| match fs::remove_file(path) {
            // Another process has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }
}

impl Sink for JsonFile {
    fn deliver(
        &mut self,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError> {
        let path = self.settings.path.display().to_string();
        self.write(batch, context)
            .map_err(|error| SinkError::new(format!("cannot write to {path}: {error}")))?;
        Ok(vec![Outcome::Delivered; batch.len()])
    }
}

/// Appends a batch and syncs it.
fn write(file: &mut File, format: RecordFormat, batch: &[SinkItem]) -> io::Result<()> {
    let mut lines = Vec::new();
    for record in batch.iter().flat_map(Record::of) {
        record.append(format, &mut lines);
        lines.push(b'\n');
        if lines.len() >= WRITE_LEN {
            file.write_all(&lines)?;
            lines.clear();
        }
    }
    file.write_all(&lines)?;
    file.sync_data()
}

/// Returns the rotated files of `path`, in any order.
fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, extension) = parts(path);
    let (prefix, suffix) = (format!("{stem}."), format!(".{extension}"));
    let is_stamp = |text: &str| {
        text.len() >= 18
            && text.as_bytes()[4] == b'-'
            && text.as_bytes()[10] == b'T'
            && text.as_bytes()[17] == b'Z'
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(&suffix));
        if stamp.is_some_and(is_stamp) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Returns the number of a rotated file with this time stamp.
fn number(path: &Path, stamp: &str) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (_, number) = name.split_once(&format!(".{stamp}-"))?;
    number.split('.').next()?.parse().ok()
}

/// Returns name and extension of the file.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>, default: &str| {
        part.map_or_else(|| default.to_owned(), |part| part.to_string_lossy().into_owned())
    };
    (text(path.file_stem(), "hits"), text(path.extension(), "jsonl"))
}
