//! The collector's own ledger beside the hits: who sent what under which number.

use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::Path;

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Hits given up by sensors, as far as they are not stored.
    pub lost_by_gaps: u64,
    /// Hits that gaps declare, stored or not.
    pub gap_counts: u64,
    /// Numbers that came with different contents.
    pub conflicts: u64,
    /// Rows without the hit that they speak of.
    pub dangling: u64,
    /// Stores that were set aside as damaged.
    pub set_aside: u64,
}

impl Ledger {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn read(store: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        let name = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = fs::read_dir(store.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
        let set_aside = beside
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|other| other.starts_with(&name) && other.contains("damaged"));
        Ok(Self {
            lost_by_gaps: number("SELECT coalesce(sum(lost), 0) FROM gaps")?,
            gap_counts: number("SELECT coalesce(sum(count), 0) FROM gaps")?,
            conflicts: number("SELECT coalesce(sum(conflicts), 0) FROM sensors")?,
            dangling: number("SELECT count(*) FROM received WHERE hit_id NOT IN (SELECT id FROM hits)")?,
            set_aside: set_aside.count() as u64,
        })
    }
}
