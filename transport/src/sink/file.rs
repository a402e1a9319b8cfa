//! JSON Lines in a file, with rotation.
//!
//! What counts as delivered has been synced to the disk. A batch that fails in the middle is cut off again, and so is a
//! line that a crash left without its end, so that every line is whole. A file that is full or old is renamed to
//! `NAME.2026-01-31T090000Z-000000.jsonl`, with a number that counts in that second; of those, the newest are kept.

use super::{Item, Outcome, Progress, Record, RecordFormat, Sink, SinkError};
use crate::private_file;
use crate::time::{unix_now, unix_text};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes gathered before they are written.
const WRITE_LEN: usize = 1024 * 1024;
/// Bytes read at a time when the end of the last whole line is looked for.
const TAIL_LEN: u64 = 64 * 1024;

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
    /// Closed after an error: what is in it is looked at again.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// When the file was begun, in seconds since 1970.
    begun: u64,
}

impl JsonFile {
    /// A sink that opens its file with the first batch.
    pub fn new(settings: FileSettings) -> Self {
        Self { settings, open: None }
    }

    fn write(&mut self, batch: &[Item]) -> io::Result<()> {
        let mut open = match self.open.take() {
            // Moved away or removed by somebody else: begin another one.
            Some(open) if self.settings.path.metadata().is_ok_and(|seen| seen.len() == open.len) => open,
            _ => self.open_file()?,
        };
        if self.is_due(&open) {
            drop(open);
            self.rotate()?;
            open = self.open_file()?;
        }
        match append(&mut open, self.settings.format, batch) {
            Ok(()) => {
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                // If this fails too, the next look at the file finds the end of its last whole line; whole lines of
                // this batch stay then, and come twice.
                let _ = open.file.set_len(open.len);
                Err(error)
            }
        }
    }

    fn is_due(&self, open: &Open) -> bool {
        let full = self.settings.rotate_bytes > 0 && open.len >= self.settings.rotate_bytes;
        let old = self.settings.rotate_seconds > 0
            && unix_now().saturating_sub(open.begun) >= self.settings.rotate_seconds;
        open.len > 0 && (full || old)
    }

    fn open_file(&self) -> io::Result<Open> {
        let path = &self.settings.path;
        let mut options = private_file::options();
        options.read(true).append(true);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(path)?;
                sync_folder(path)?;
                file
            }
            other => other?,
        };
        let metadata = file.metadata()?;
        let len = mend(&mut file, metadata.len())?;
        // Not every file system knows when a file was made.
        let begun = metadata.created().or_else(|_| metadata.modified()).unwrap_or(std::time::UNIX_EPOCH);
        let begun = begun.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Open { file, len, begun })
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
        rotated[..surplus].iter().try_for_each(fs::remove_file)
    }
}

impl Sink for JsonFile {
    fn deliver(&mut self, batch: &[Item], _: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let path = self.settings.path.display().to_string();
        self.write(batch).map_err(|error| SinkError::new(format!("cannot write to {path}: {error}")))?;
        Ok(vec![Outcome::Delivered; batch.len()])
    }
}

/// Appends a batch and syncs it. On an error, `open.len` is where the batch began.
fn append(open: &mut Open, format: RecordFormat, batch: &[Item]) -> io::Result<()> {
    let mut lines = Vec::new();
    let mut len = open.len;
    for record in batch.iter().flat_map(Record::of) {
        record.append(format, &mut lines);
        lines.push(b'\n');
        if lines.len() >= WRITE_LEN {
            open.file.write_all(&lines)?;
            len += lines.len() as u64;
            lines.clear();
        }
    }
    open.file.write_all(&lines)?;
    len += lines.len() as u64;
    open.file.sync_data()?;
    open.len = len;
    Ok(())
}

/// Makes the file end with a whole line, and returns its length. A beginning of a record is cut off (it was never
/// acknowledged, so it comes again); anything else is somebody else's, and gets an end of line.
fn mend(file: &mut File, len: u64) -> io::Result<u64> {
    let mut start = len;
    let mut tail: Vec<u8> = Vec::new();
    while start > 0 {
        let step = TAIL_LEN.min(start);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        let mut part = vec![0; step as usize];
        file.read_exact(&mut part)?;
        if let Some(end) = part.iter().rposition(|byte| *byte == b'\n') {
            let whole = start + end as u64 + 1;
            let first = part.get(end + 1).or(tail.first());
            return match first {
                None => Ok(len),
                Some(b'{') => file.set_len(whole).map(|()| whole),
                Some(_) => file.write_all(b"\n").map(|()| len + 1),
            };
        }
        // Only its first byte is of interest, and how long it is follows from `start`.
        tail = part[..1].to_vec();
    }
    match tail.first() {
        None => Ok(0),
        Some(b'{') => file.set_len(0).map(|()| 0),
        Some(_) => file.write_all(b"\n").map(|()| len + 1),
    }
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

/// A new name is durable when its folder is; other systems than Unix have no such call.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
