//! Opening a spool in any state: takes the lock, checks what the file is, and repairs damage.
//!
//! Nothing that an administrator may want to inspect is deleted, and no manual step is needed: a damaged file is
//! renamed to `NAME.damaged-SECONDS`. The last [`DAMAGED_KEPT_MAX`] of those are kept.

use super::db::{Db, SCHEMA_VERSION, Totals, key, split_key};
use super::read::is_data;
use super::refused::RefusedNumbers;
use super::tail::{Body, Row, Tail};
use super::{APPLICATION_ID, Epoch, Spool, SpoolCounts, SpoolError, SpoolSettings, is_damage};
use crate::files::{FileKind, open_regular};
use crate::private_file;
use crate::wire::message::GapReason;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Number of damaged spools that are kept.
pub const DAMAGED_KEPT_MAX: usize = 3;
/// Maximum time to wait for the lock, and the polling interval.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// A transaction that copies readable rows ends after this number of rows, or this size in bytes.
const SALVAGE_ROWS: usize = 256;
const SALVAGE_BYTES: u64 = 4 << 20;
const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";
/// Contents of the lock file, as an explanation.
const LOCK_TEXT: &[u8] = b"Lock of an etwsieve spool. It stays here.\n";

pub(super) fn open(mut settings: SpoolSettings, now_ms: u64) -> Result<Spool, SpoolError> {
    let path = settings.path.clone();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SpoolError::Io { path, source }
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private_file::create_folder(folder).map_err(io(folder))?;
    }
    // Checked before links are resolved, so that the error has the path that the user gave.
    refuse_other_kind(&path)?;
    // Resolve links, so that a damaged spool is renamed in its own folder.
    let path = crate::lock::follow(&path).map_err(io(&path))?;
    settings.path.clone_from(&path);
    // The lock depends on the resolved path, so that a spool has one lock under all its names.
    let resolved = crate::lock::resolve(&path).map_err(io(&path))?;
    let lock_path = with_suffix(&resolved, "-lock");
    // If the lock file exists, the file was a spool. Otherwise it must look like one, or be new.
    refuse_other_kind(&lock_path)?;
    if !lock_path.exists() {
        refuse_foreign(&path)?;
    }
    let mut lock = private_file::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(io(&lock_path))?;
    take_lock(&lock).map_err(|error| match error {
        TryLockError::WouldBlock => SpoolError::InUse { path: path.clone() },
        TryLockError::Error(source) => io(&lock_path)(source),
    })?;
    // The text is optional: it is omitted on a full disk, and an existing file is not overwritten.
    if lock.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        let _ = lock.write_all(LOCK_TEXT);
    }
    let (mut instance, mut epoch) = ([0; 16], [0; 16]);
    getrandom::fill(&mut instance)?;
    getrandom::fill(&mut epoch)?;
    let mut spool = Spool {
        settings,
        db: None,
        instance,
        epochs: VecDeque::new(),
        tail: Tail::default(),
        totals: Totals::default(),
        is_stuck: false,
        read_through: 0,
        refused: RefusedNumbers::default(),
        counts: SpoolCounts::default(),
        _lock: lock,
    };
    match spool.load() {
        Ok(()) => {}
        Err(LoadError::Sqlite(error)) if is_damage(&error) => {
            tracing::error!("the spool {} is damaged: {error}", path.display());
            spool.repair(now_ms);
        }
        Err(LoadError::Unsound) => spool.repair(now_ms),
        Err(LoadError::Refused(error)) => return Err(error),
        Err(LoadError::Sqlite(error)) => match spool.failed(error) {
            // A new spool on a full disk: keep hits in memory until there is room.
            SpoolError::Full { .. } => tracing::error!("no room left for the spool {}", path.display()),
            error => return Err(error),
        },
    }
    let last_id = spool.epochs.back().map_or(0, |epoch| epoch.id);
    let stored = spool.db.as_ref().and_then(|db| db.last_epoch_id().ok()).unwrap_or(0);
    spool.epochs.push_back(Epoch::new(last_id.max(stored) + 1, epoch));
    Ok(spool)
}

/// The reason why a file cannot be loaded.
enum LoadError {
    Sqlite(rusqlite::Error),
    /// The structure of the file is damaged.
    Unsound,
    Refused(SpoolError),
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Takes the lock. Waits a moment for a process that is just exiting: an earlier sensor, or a child process that
/// inherited the lock and has not started its program yet.
fn take_lock(lock: &File) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_TIMEOUT => thread::sleep(LOCK_RETRY),
            result => return result,
        }
    }
}

/// Rejects pipes, devices and folders without opening them.
fn refuse_other_kind(path: &Path) -> Result<(), SpoolError> {
    match FileKind::of(path) {
        Ok(FileKind::Regular) | Err(_) => Ok(()),
        Ok(kind) => Err(SpoolError::NotASpool { path: path.to_owned(), detail: format!("it is {kind}") }),
    }
}

/// Rejects a file that is not a spool, before anything is written.
fn refuse_foreign(path: &Path) -> Result<(), SpoolError> {
    let mut header = Vec::new();
    let read = open_regular(path).and_then(|file| file.take(100).read_to_end(&mut header));
    if read.is_err() || header.is_empty() {
        return Ok(());
    }
    let foreign = |detail: &str| SpoolError::NotASpool { path: path.to_owned(), detail: detail.into() };
    if !header.starts_with(SQLITE_HEADER) {
        return Err(foreign("not a SQLite database"));
    }
    // Bytes 68 to 71 of the header are the application id, big-endian (sqlite.org/fileformat2.html).
    let application =
        header.get(68..72).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
    if application != 0 && application != APPLICATION_ID {
        return Err(foreign("a SQLite database of another program"));
    }
    Ok(())
}

impl Spool {
    /// Loads epochs and totals from the file.
    fn load(&mut self) -> Result<(), LoadError> {
        let path = self.settings.path.clone();
        let db = Db::open(&path)?;
        let (application, version, _) = db.marks()?;
        if application != APPLICATION_ID {
            return Err(LoadError::Unsound);
        }
        if version > SCHEMA_VERSION {
            return Err(LoadError::Refused(SpoolError::Newer {
                path,
                found: version,
                supported: SCHEMA_VERSION,
            }));
        }
        if version != SCHEMA_VERSION || !db.is_sound()? {
            return Err(LoadError::Unsound);
        }
        let epochs = db.epochs()?;
        let totals = db.totals()?;
        self.adopt(db)?;
        self.totals = totals;
        self.epochs = epochs
            .into_iter()
            .filter(|row| row.acked < row.last)
            .map(|row| Epoch {
                acked: row.acked,
                acked_stored: row.acked,
                last: row.last,
                is_stored: true,
                ..Epoch::new(row.id, row.epoch)
            })
            .collect();
        Ok(())
    }

    /// Uses a database as the spool's file, and reads or writes the spool's random number.
    fn adopt(&mut self, mut db: Db) -> Result<(), rusqlite::Error> {
        if let Some(instance) = db.instance()? {
            self.instance = instance;
        } else {
            let instance = self.instance;
            db.write(|writer| writer.set_instance(&instance))?;
        }
        self.db = Some(db);
        Ok(())
    }

    /// Opens the file after an earlier attempt failed.
    pub(super) fn reopen(&mut self) -> Result<(), rusqlite::Error> {
        let db = Db::open(&self.settings.path)?;
        self.totals = db.totals()?;
        self.adopt(db)?;
        for epoch in &mut self.epochs {
            epoch.is_stored = false;
            epoch.acked_stored = 0;
        }
        Ok(())
    }

    /// Renames a damaged file, creates a new one, and copies the readable contents of the old one. The unreadable part
    /// becomes gaps. If no new file can be created, hits stay in memory.
    pub(super) fn repair(&mut self, now_ms: u64) {
        self.db = None;
        self.counts.repairs += 1;
        self.totals = Totals::default();
        let renamed = match rename_damaged(&self.settings.path, now_ms / 1000) {
            Ok(renamed) => renamed,
            Err(error) => {
                tracing::error!("cannot rename the damaged spool {}: {error}", self.settings.path.display());
                return;
            }
        };
        let mut saved = Saved::default();
        let old = Db::open_damaged(&renamed).ok();
        if let Some(old) = &old {
            if let Ok(Some(instance)) = old.instance() {
                self.instance = instance;
            }
            // When the spool is being opened, only the old file knows the epochs.
            if self.epochs.is_empty() {
                self.epochs = old
                    .readable_epochs()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|row| Epoch { acked: row.acked, last: row.last, ..Epoch::new(row.id, row.epoch) })
                    .collect();
            }
        }
        for epoch in &mut self.epochs {
            epoch.is_stored = false;
            epoch.acked_stored = 0;
        }
        if let Err(error) = self.create_replacement(old.as_ref(), &mut saved, now_ms) {
            tracing::error!("cannot create a new spool {}: {error}", self.settings.path.display());
        }
        self.counts.dropped[GapReason::SpoolDamaged as usize] += saved.lost;
        tracing::error!(
            saved = saved.hits,
            lost = saved.lost,
            "the spool was damaged; it was renamed to {} and replaced",
            renamed.display()
        );
    }

    fn create_replacement(
        &mut self,
        old: Option<&Db>,
        saved: &mut Saved,
        now_ms: u64,
    ) -> Result<(), rusqlite::Error> {
        let db = Db::open(&self.settings.path)?;
        self.adopt(db)?;
        let Some(db) = &mut self.db else { return Ok(()) };
        let mut totals = Totals::default();
        for epoch in &self.epochs {
            // Rows in memory are not lost.
            let in_memory = self.tail.rows().iter().find(|row| row.id == epoch.id).map(|row| row.first - 1);
            let last = in_memory.unwrap_or(epoch.last);
            if epoch.acked >= last {
                continue;
            }
            db.write(|writer| writer.set_epoch(epoch.id, &epoch.epoch, epoch.acked))?;
            let mut next = epoch.acked + 1;
            // Read from both ends, so that a damaged page in the middle hides only its own rows.
            let mut from_end = Vec::new();
            if let Some(old) = old {
                next = save(old, db, epoch.id, (next, last), &mut totals, saved)?;
                collect_from_end(old, epoch.id, (next, last), &mut from_end);
            }
            let end = from_end.first().map_or(last, |row: &Row| row.first - 1);
            if end >= next {
                saved.lost += end - next + 1;
                db.write(|writer| {
                    writer.add_gap(epoch.id, (next, end), GapReason::SpoolDamaged, now_ms, &mut totals)
                })?;
            }
            write_rows(db, &from_end, &mut totals, saved)?;
        }
        self.totals = totals;
        for epoch in &mut self.epochs {
            epoch.is_stored = epoch.acked < epoch.last;
            epoch.acked_stored = epoch.acked;
        }
        Ok(())
    }
}

/// The contents copied from a damaged spool.
#[derive(Default)]
struct Saved {
    hits: u64,
    lost: u64,
}

/// Copies consecutive rows in ascending order and returns the first missing number.
fn save(
    old: &Db,
    new: &mut Db,
    id: u32,
    (first, last): (u64, u64),
    totals: &mut Totals,
    saved: &mut Saved,
) -> Result<u64, rusqlite::Error> {
    let mut next = first;
    loop {
        let (mut rows, mut bytes, mut is_whole) = (Vec::new(), 0, false);
        let start = old.start_for(id, next).unwrap_or_else(|_| key(id, next));
        let read = old.rows(start, key(id, last), true, |row| {
            let Some(row) = sound(&row, last) else { return ControlFlow::Break(()) };
            if row.last < next {
                return ControlFlow::Continue(());
            }
            if row.first > next {
                return ControlFlow::Break(());
            }
            let row = Row { first: next, ..row };
            next = row.last + 1;
            bytes += row.cost();
            rows.push(row);
            if rows.len() >= SALVAGE_ROWS || bytes >= SALVAGE_BYTES {
                is_whole = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        write_rows(new, &rows, totals, saved)?;
        if read.is_err() || !is_whole {
            return Ok(next);
        }
    }
}

/// Collects consecutive rows in descending order, starting at the last number, as many as fit in one transaction. The
/// result is in ascending order.
fn collect_from_end(old: &Db, id: u32, (first, last): (u64, u64), rows: &mut Vec<Row>) {
    let (mut end, mut bytes) = (last, 0);
    // An error ends the walk. The rows before it are valid.
    let _ = old.rows(key(id, first), key(id, last), false, |row| match sound(&row, last) {
        Some(row) if row.last == end && bytes < SALVAGE_BYTES => {
            end = row.first - 1;
            bytes += row.cost();
            rows.push(row);
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    });
    rows.reverse();
}

fn write_rows(
    db: &mut Db,
    rows: &[Row],
    totals: &mut Totals,
    saved: &mut Saved,
) -> Result<(), rusqlite::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    db.write(|writer| {
        for row in rows {
            match &row.body {
                Body::Hit(frame) => {
                    saved.hits += 1;
                    writer.add_hit(key(row.id, row.first), row.time, frame, totals)?;
                }
                Body::Gap(reason) => {
                    writer.add_gap(row.id, (row.first, row.last), *reason, row.time, totals)?;
                }
            }
        }
        Ok(())
    })
}

/// Returns the row if it is valid.
fn sound(row: &super::db::RowRef<'_>, last: u64) -> Option<Row> {
    let (id, first) = split_key(row.key);
    if first == 0 || row.last < first || row.last > last {
        return None;
    }
    let body = match (row.reason, row.frame) {
        (Some(reason), _) => Body::Gap(reason),
        (None, Some(frame)) if row.last == first && is_data(frame, first) => Body::Hit(frame.to_vec()),
        _ => return None,
    };
    Some(Row { id, first, last: row.last, time: row.time, body })
}

/// Renames the file and its log, and returns the new path. Deletes the oldest of the earlier damaged spools.
fn rename_damaged(path: &Path, seconds: u64) -> std::io::Result<PathBuf> {
    let mut number = 0;
    let renamed = loop {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let renamed = with_suffix(path, &format!(".damaged-{seconds}{suffix}"));
        if !renamed.exists() {
            break renamed;
        }
        number += 1;
    };
    let log = with_suffix(path, "-wal");
    if log.exists() {
        fs::rename(&log, with_suffix(&renamed, "-wal"))?;
    }
    if path.exists() {
        fs::rename(path, &renamed)?;
    }
    forget_old(path);
    Ok(renamed)
}

fn forget_old(path: &Path) {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut prefix = name.to_owned();
    prefix.push(".damaged-");
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut renamed: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
        .map(|entry| entry.path())
        .filter(|path| !path.as_os_str().as_encoded_bytes().ends_with(b"-wal"))
        .collect();
    renamed.sort_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
    let over = renamed.len().saturating_sub(DAMAGED_KEPT_MAX);
    for path in &renamed[..over] {
        // Files that cannot be deleted stay.
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(with_suffix(path, "-wal"));
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
