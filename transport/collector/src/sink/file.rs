//! JSON Lines in a file, with rotation.
//!
//! What counts as delivered has been synced to the disk. The file is opened and locked for each batch (`append.rs`), so
//! several processes may write to one file, and whoever renames it (logrotate) finds the next batch in a new one. A batch
//! that fails in the middle is cut off again, and so is a line that a crash left without its end. A file that is full or
//! old is renamed to `NAME.2026-01-31T090000Z-000000.jsonl`, with a number that counts in that second; of those, the
//! newest are kept.

use super::append::{self, Append, identity, sync_folder};
use super::{Item, Outcome, Progress, Record, RecordFormat, Sink, SinkError};
use etwsieve_transport::time::{unix_now, unix_text};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes gathered before they are written.
const WRITE_LEN: usize = 1024 * 1024;

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// The field names.
    pub format: RecordFormat,
    /// A file of this many bytes is rotated before the next batch; 0: never.
    pub rotate_bytes: u64,
    /// A file is rotated this many seconds after it was begun; 0: never.
    pub rotate_seconds: u64,
    /// Most rotated files; older ones are removed. 0: all are kept.
    pub keep: usize,
}

/// The sink.
#[derive(Debug)]
pub struct JsonFile {
    settings: FileSettings,
    /// The file that was written last, and when it was begun, where its file system does not say.
    begun: Option<((u64, u64), u64)>,
}

impl JsonFile {
    /// A sink that opens its file for each batch.
    pub fn new(settings: FileSettings) -> Self {
        Self { settings, begun: None }
    }

    fn write(&mut self, batch: &[Item], progress: &mut dyn Progress) -> io::Result<()> {
        let path = self.settings.path.clone();
        let mut open = Append::open(&path, progress)?;
        if self.is_due(&open) {
            // Under the lock: another process that waits for it sees that the name is another file's. Whoever may read
            // the old file may read the new one.
            self.rotate()?;
            append::open(&path, Some(&open.metadata.permissions()))?;
            drop(open);
            open = Append::open(&path, progress)?;
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

    /// When the file was begun, in seconds since 1970.
    fn begun(&mut self, metadata: &Metadata) -> u64 {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Ok(created) = metadata.created() {
            return seconds(created);
        }
        // Not every file system knows: then it is when this process first saw the file.
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
        // Names sort by age, so a number that was given and removed in this second is not given again.
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
            // Another process that writes to the file was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }
}

impl Sink for JsonFile {
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let path = self.settings.path.display().to_string();
        self.write(batch, progress)
            .map_err(|error| SinkError::new(format!("cannot write to {path}: {error}")))?;
        Ok(vec![Outcome::Delivered; batch.len()])
    }
}

/// Appends a batch and syncs it.
fn write(file: &mut File, format: RecordFormat, batch: &[Item]) -> io::Result<()> {
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

/// The files that were rotated away from `path`, in any order.
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

/// The number of a rotated file of this time.
fn number(path: &Path, stamp: &str) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (_, number) = name.split_once(&format!(".{stamp}-"))?;
    number.split('.').next()?.parse().ok()
}

/// Name and extension of the file.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>, default: &str| {
        part.map_or_else(|| default.to_owned(), |part| part.to_string_lossy().into_owned())
    };
    (text(path.file_stem(), "hits"), text(path.extension(), "jsonl"))
}
