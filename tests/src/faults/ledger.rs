//! The deliveries that the collector's store records: gaps, conflicting and dangling sequence numbers.

use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::Path;

/// Counts from the store's tables of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Hits that sensors declared as dropped and that are not stored.
    pub lost_by_gaps: u64,
    /// Hits that sensors declared as dropped, stored or not.
    pub gap_counts: u64,
    /// Sequence numbers that arrived with different contents.
    pub conflicts: u64,
    /// Rows that refer to a hit that does not exist.
    pub dangling: u64,
    /// Damaged stores that were quarantined.
    pub quarantined: u64,
}

impl Ledger {
    /// Reads the counts from the store at this path.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn read(store: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        let name = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = fs::read_dir(store.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
        let quarantined = beside
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|other| other.starts_with(&name) && other.contains("damaged"));
        Ok(Self {
            lost_by_gaps: number("SELECT coalesce(sum(lost), 0) FROM gaps")?,
            gap_counts: number("SELECT coalesce(sum(count), 0) FROM gaps")?,
            conflicts: number("SELECT coalesce(sum(conflicts), 0) FROM sensors")?,
            dangling: number("SELECT count(*) FROM received WHERE hit_id NOT IN (SELECT id FROM hits)")?,
            quarantined: quarantined.count() as u64,
        })
    }
}
