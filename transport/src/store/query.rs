//! Reading hits in time order, statistics, and the rows of the view.

use super::Store;
use super::error::{Action, At, StoreError};
use super::insert::saturate;
use crate::hit::{HitV1, RuleRefV1, Scope, SpanV1, View};
use crate::wire::codec::{self, HIT_LEN_MAX, HIT_VERSION};
use rusqlite::{Error, Row, named_params};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Number of hits in a page; each has at most 1 MiB.
const PAGE_HITS: i64 = 16;
/// Maximum number of rules and of computers in [`Store::stats`], which lists the most frequent.
pub const STATS_ROWS_MAX: usize = 10_000;

/// A page of hits after a given position. An event that is too long for a hit is returned as NULL.
const SELECT_PAGE: &str = "
    SELECT id, time, source, source_sequence, hit_version, iif(length(event) <= :len_max, event, NULL)
    FROM hits
    WHERE (time, source, source_sequence, id) > (:time, :source, :source_sequence, :id)
        AND time <= :until
        AND id > :after_id AND id <= :until_id
        AND (:scope IS NULL OR scope = :scope)
        AND (:view IS NULL OR view = :view)
        AND (:computer IS NULL OR computer = :computer COLLATE NOCASE)
        AND (:rule IS NULL OR EXISTS (
            SELECT 1 FROM hit_rules AS r WHERE r.hit_id = hits.id
                AND (r.rule_id = :rule COLLATE NOCASE OR instr(lower(r.title), lower(:rule)) > 0)))
    ORDER BY time, source, source_sequence, id
    LIMIT :page";
const SELECT_RULES: &str = "SELECT rule_id, title, level, attack, beyond_nul, spans, transformations
    FROM hit_rules WHERE hit_id = ?1 AND id > ?2 AND id <= ?3 ORDER BY id";
const SELECT_DETECTIONS: &str = "
    SELECT count, firstTime, lastTime, dest, signature, signature_id, user_id, vendor_product, EventID, Guid,
        Opcode, Name, Path, ProcessID, ScriptBlockId, ScriptBlockText, rule_id, rule_title
    FROM detections
    ORDER BY firstTime, lastTime, dest, rule_title, rule_id, signature, ScriptBlockId, ScriptBlockText, Path,
        ProcessID, user_id, EventID, Guid, Opcode";
const SELECT_RULE_STATS: &str = "
    SELECT r.rule_id, r.title, r.level, count(*), min(h.time), max(h.time)
    FROM hit_rules AS r JOIN hits AS h ON h.id = r.hit_id
    GROUP BY r.rule_id, r.title, r.level
    ORDER BY count(*) DESC, r.title, r.rule_id, r.level LIMIT ?1";
const SELECT_COMPUTER_STATS: &str = "
    SELECT computer, count(*), min(time), max(time) FROM hits
    GROUP BY computer ORDER BY count(*) DESC, computer LIMIT ?1";

/// Selects hits. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitFilter {
    /// Hits at or after this FILETIME.
    pub from: Option<u64>,
    /// Hits at or before this FILETIME.
    pub until: Option<u64>,
    /// Hits of rules with this id, or with this text in their title, ignoring the case of ASCII letters.
    pub rule: Option<String>,
    /// Hits of this computer, ignoring the case of ASCII letters.
    pub computer: Option<String>,
    /// Hits of this scope.
    pub scope: Option<Scope>,
    /// Hits of this view.
    pub view: Option<View>,
    /// Hits stored after the one with this [`StoredHit::id`].
    pub after_id: Option<i64>,
    /// Hits stored up to the one with this id.
    pub until_id: Option<i64>,
}

/// A stored hit with every rule that the store has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHit {
    /// The column `hits.id`; never reused in a store.
    pub id: i64,
    /// The hit.
    pub hit: HitV1,
}

/// Iterates over hits in the order of time, source and number in the source. See [`Store::hits`].
pub struct Hits<'s> {
    store: &'s Store,
    filter: HitFilter,
    page: Page,
    /// The position after which the next page starts; `None` after the last page.
    after: Option<Position>,
}

type Page = VecDeque<Result<StoredHit, StoreError>>;

/// Position of a hit in the order of iteration.
struct Position {
    time: i64,
    source: String,
    source_sequence: i64,
    id: i64,
}

/// Statistics of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of stored events.
    pub hits: u64,
    /// Number of pairs of an event and a rule.
    pub detections: u64,
    /// Statistics by rule, most frequent first.
    pub rules: Vec<RuleStats>,
    /// Statistics by computer, most frequent first.
    pub computers: Vec<ComputerStats>,
}

/// Statistics of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStats {
    /// The rule's id.
    pub id: String,
    /// The rule's title.
    pub title: String,
    /// The rule's severity.
    pub level: String,
    /// Number of events that the rule matched.
    pub count: u64,
    /// Time of the first event, as a FILETIME.
    pub first: u64,
    /// Time of the last event, as a FILETIME.
    pub last: u64,
}

/// Statistics of a computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputerStats {
    /// Name of the computer; `None` for events without one.
    pub computer: Option<String>,
    /// Number of stored events of the computer.
    pub count: u64,
    /// Time of the first event, as a FILETIME.
    pub first: u64,
    /// Time of the last event, as a FILETIME.
    pub last: u64,
}

/// A row of the view `detections`, in the order of its columns. Missing values are `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Number of events with all the values below.
    pub count: u64,
    /// Time of the first event: ISO 8601 in UTC, with a resolution of one second.
    pub first_time: String,
    /// Time of the last event.
    pub last_time: String,
    /// The computer.
    pub dest: String,
    /// Description of the event in the event log.
    pub signature: String,
    /// Event id.
    pub signature_id: u32,
    /// The user's SID.
    pub user_id: String,
    /// Always `Microsoft Windows`.
    pub vendor_product: String,
    /// Event id.
    pub event_id: u32,
    /// Provider GUID in braces, in lower case.
    pub guid: String,
    /// Opcode.
    pub opcode: u32,
    /// Name of the provider.
    pub name: String,
    /// Path of the script file.
    pub path: String,
    /// Process id.
    pub process_id: u32,
    /// Id of the script block.
    pub script_block_id: String,
    /// Text of the script block.
    pub script_block_text: String,
    /// The rule's id.
    pub rule_id: String,
    /// The rule's title.
    pub rule_title: String,
}

impl Store {
    /// Iterates over the hits that `filter` selects, in time order, with a few in memory at a time.
    ///
    /// The iteration is not a snapshot: a hit stored meanwhile is included if the iteration has not passed its time. A
    /// damaged hit is returned as an error and the iteration continues. It ends after any other error.
    pub fn hits(&self, filter: HitFilter) -> Hits<'_> {
        let time = saturate(filter.from.unwrap_or(0));
        let after = Some(Position { time, source: String::new(), source_sequence: -1, id: -1 });
        Hits { store: self, filter, page: VecDeque::new(), after }
    }

    /// Returns the highest [`StoredHit::id`], or 0 for an empty store. Hits stored later have higher ids.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn last_id(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(id), 0) FROM hits";
        self.connection.query_row(sql, [], |row| row.get(0)).at(&self.path, Action::Read)
    }

    /// Counts the stored events and detections, by rule and by computer.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        self.read_stats().at(&self.path, Action::Read)
    }

    fn read_stats(&self) -> Result<StoreStats, Error> {
        // A transaction makes the counts consistent.
        let transaction = self.connection.unchecked_transaction()?;
        let total = |sql| transaction.query_row(sql, [], |row| row.get::<_, u64>(0));
        Ok(StoreStats {
            hits: total("SELECT count(*) FROM hits")?,
            detections: total("SELECT count(*) FROM hit_rules")?,
            rules: transaction
                .prepare_cached(SELECT_RULE_STATS)?
                .query_map([STATS_ROWS_MAX], |row| {
                    Ok(RuleStats {
                        id: row.get(0)?,
                        title: row.get(1)?,
                        level: row.get(2)?,
                        count: row.get(3)?,
                        first: row.get(4)?,
                        last: row.get(5)?,
                    })
                })?
                .collect::<Result<_, _>>()?,
            computers: transaction
                .prepare_cached(SELECT_COMPUTER_STATS)?
                .query_map([STATS_ROWS_MAX], |row| {
                    Ok(ComputerStats {
                        computer: row.get(0)?,
                        count: row.get(1)?,
                        first: row.get(2)?,
                        last: row.get(3)?,
                    })
                })?
                .collect::<Result<_, _>>()?,
        })
    }

    /// Passes the rows of the view `detections` to `row`, ordered by first time, until it breaks.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn detections(&self, mut row: impl FnMut(Detection) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(SELECT_DETECTIONS).at(&self.path, Action::Read)?;
        let rows = statement.query_map([], detection).at(&self.path, Action::Read)?;
        for detection in rows {
            if row(detection.at(&self.path, Action::Read)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_page(&self, filter: &HitFilter, after: &Position) -> Result<(Page, Option<Position>), Error> {
        let mut statement = self.connection.prepare_cached(SELECT_PAGE)?;
        let mut rows = statement.query(named_params! {
            ":len_max": HIT_LEN_MAX,
            ":time": after.time,
            ":source": after.source,
            ":source_sequence": after.source_sequence,
            ":id": after.id,
            ":until": filter.until.map_or(i64::MAX, saturate),
            ":computer": filter.computer,
            ":scope": filter.scope.map(Scope::as_str),
            ":view": filter.view.map(View::as_str),
            ":rule": filter.rule,
            ":after_id": filter.after_id.unwrap_or(i64::MIN),
            ":until_id": filter.until_id.unwrap_or(i64::MAX),
            ":page": PAGE_HITS,
        })?;
        let (mut page, mut last) = (VecDeque::new(), None);
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let (version, event): (i64, Option<Vec<u8>>) = (row.get(4)?, row.get(5)?);
            let damaged = |detail| Err(StoreError::Damaged { path: self.path.clone(), id, detail });
            let hit = match (decode(version, event.as_deref()), self.read_rules(id)) {
                (Ok(hit), Ok(rules)) => Ok(StoredHit { id, hit: HitV1 { rules, ..hit } }),
                (Err(detail), _) => damaged(detail),
                (_, Err(Error::FromSqlConversionFailure(_, _, error))) => damaged(error.to_string()),
                (_, Err(error)) => return Err(error),
            };
            page.push_back(hit);
            last =
                Some(Position { time: row.get(1)?, source: row.get(2)?, source_sequence: row.get(3)?, id });
        }
        Ok((page, last))
    }

    fn read_rules(&self, hit_id: i64) -> Result<Vec<RuleRefV1>, Error> {
        self.rules_between(hit_id, 0, i64::MAX)
    }

    /// Returns the rules of a hit whose ids in `hit_rules` are above `after` and at most `until`.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn rules_between(&self, hit_id: i64, after: i64, until: i64) -> Result<Vec<RuleRefV1>, Error> {
        self.connection
            .prepare_cached(SELECT_RULES)?
            .query_map([hit_id, after, until], |row| {
                let spans: Vec<(u8, u32, u32)> = json(row, 5)?;
                Ok(RuleRefV1 {
                    id: row.get(0)?,
                    title: row.get(1)?,
                    level: row.get(2)?,
                    attack: json(row, 3)?,
                    beyond_nul: row.get(4)?,
                    spans: spans.into_iter().map(|(text, start, len)| SpanV1 { text, start, len }).collect(),
                    transformations: json(row, 6)?,
                })
            })?
            .collect()
    }
}

impl Iterator for Hits<'_> {
    type Item = Result<StoredHit, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            let after = self.after.take()?;
            match self.store.read_page(&self.filter, &after) {
                Ok(page) => (self.page, self.after) = page,
                Err(error) => return Some(Err(error).at(&self.store.path, Action::Read)),
            }
        }
        self.page.pop_front()
    }
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Decodes a stored event to a hit without rules.
///
/// # Errors
///
/// A description of what is wrong with the stored event.
pub fn decode(version: i64, event: Option<&[u8]>) -> Result<HitV1, String> {
    if version != i64::from(HIT_VERSION) {
        return Err(format!("hit version {version}, expected {HIT_VERSION}"));
    }
    let event = event.ok_or_else(|| format!("longer than {HIT_LEN_MAX} bytes"))?;
    codec::decode_hit(event).map_err(|error| error.to_string())
}

fn detection(row: &Row<'_>) -> Result<Detection, Error> {
    Ok(Detection {
        count: row.get(0)?,
        first_time: row.get(1)?,
        last_time: row.get(2)?,
        dest: row.get(3)?,
        signature: row.get(4)?,
        signature_id: row.get(5)?,
        user_id: row.get(6)?,
        vendor_product: row.get(7)?,
        event_id: row.get(8)?,
        guid: row.get(9)?,
        opcode: row.get(10)?,
        name: row.get(11)?,
        path: row.get(12)?,
        process_id: row.get(13)?,
        script_block_id: row.get(14)?,
        script_block_text: row.get(15)?,
        rule_id: row.get(16)?,
        rule_title: row.get(17)?,
    })
}
