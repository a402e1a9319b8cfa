//! Migration from version 1: event identities no longer depend on the path, and texts no longer contain U+0000.
//!
//! Hits are migrated in small transactions, so that a large store needs neither a log of the same size nor a lock for
//! minutes. The last transaction sets the version; an interrupted migration is continued by the next one. No row is
//! removed: a trace that was stored twice, from two paths, stays there twice.

use super::insert::TextColumns;
use super::query::decode;
use super::schema::{FIRST_VERSION, SCHEMA_VERSION};
use super::sql_text::sql_text;
use crate::hit::{EventIdentity, HitV1};
use crate::wire::codec::HIT_LEN_MAX;
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::path::Path;

/// Number of hits migrated in a transaction.
const STEP_HITS: i64 = 512;
/// Maximum number of identities for which the number of equal events is cached.
const COUNTS_MAX: usize = 1 << 16;

const HAS_COLUMN: &str = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('hits') WHERE name = 'nuls')";
const ADD_COLUMN: &str = "ALTER TABLE hits ADD COLUMN nuls INTEGER NOT NULL DEFAULT 0";
/// True for a collector's store, which records the sensor of each event.
const HAS_SENSORS: &str = "SELECT count(*) = 3 FROM sqlite_schema WHERE type = 'table' AND name IN ('received', 'streams', 'sensors')";
const SELECT_SENSOR: &str = "SELECT sensors.name
    FROM received JOIN streams ON streams.id = stream_id JOIN sensors ON sensors.id = sensor_id
    WHERE hit_id = ?1 ORDER BY received.time, stream_id, sequence LIMIT 1";
const SELECT_IDS: &str = "SELECT id FROM hits WHERE id > ?1 ORDER BY id LIMIT ?2";
const SELECT_EVENT: &str =
    "SELECT hit_version, iif(length(event) <= ?2, event, NULL) FROM hits WHERE id = ?1";
const SELECT_OTHER: &str = "SELECT EXISTS (SELECT 1 FROM hits WHERE event_hash = ?1 AND id <> ?2)";
const UPDATE_IDENTITY: &str = "UPDATE hits SET event_hash = ?2 WHERE id = ?1";
const UPDATE_TEXTS: &str = "UPDATE hits SET source = ?2, computer = ?3, user_sid = ?4, script_block_text = ?5,
    script_block_id = ?6, path = ?7, context_info = ?8, user_data = ?9, payload = ?10, notice = ?11, app_name = ?12,
    nuls = ?13 WHERE id = ?1";
const SELECT_RULES: &str = "SELECT id, rule_id, title, level FROM hit_rules
    WHERE instr(CAST(rule_id || title || level AS BLOB), x'00') > 0";
const UPDATE_RULE: &str = "UPDATE OR IGNORE hit_rules SET rule_id = ?2, title = ?3, level = ?4 WHERE id = ?1";

/// Migrates the store to [`SCHEMA_VERSION`].
pub(super) fn to_current(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let mut update = Update::begin(connection)?;
    tracing::info!("updating {} to store version {SCHEMA_VERSION}", path.display());
    while update.step(connection)? {}
    if update.damaged > 0 {
        tracing::warn!(
            damaged = update.damaged,
            "{} has damaged hits, which keep the identity of store version {FIRST_VERSION}",
            path.display()
        );
    }
    Ok(())
}

/// A migration in progress.
struct Update {
    has_sensors: bool,
    /// Id of the last migrated hit.
    position: i64,
    /// Number of equal events for recently seen identities.
    counts: HashMap<EventIdentity, u64>,
    /// Number of hits that cannot be decoded.
    damaged: u64,
}

impl Update {
    fn begin(connection: &mut Connection) -> Result<Self, Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_true = |sql| transaction.query_row(sql, [], |row| row.get::<_, bool>(0));
        let has_sensors = is_true(HAS_SENSORS)?;
        if !is_true(HAS_COLUMN)? {
            transaction.execute_batch(ADD_COLUMN)?;
        }
        transaction.commit()?;
        Ok(Self { has_sensors, position: 0, counts: HashMap::new(), damaged: 0 })
    }

    /// Migrates some hits. Returns false if they were the last ones and the migration is complete.
    fn step(&mut self, connection: &mut Connection) -> Result<bool, Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids: Vec<i64> = transaction
            .prepare_cached(SELECT_IDS)?
            .query_map((self.position, STEP_HITS), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in &ids {
            self.update(&transaction, *id)?;
        }
        let is_last = ids.is_empty();
        if is_last {
            update_rules(&transaction)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        transaction.commit()?;
        self.position = ids.last().copied().unwrap_or(self.position);
        Ok(!is_last)
    }

    fn update(&mut self, transaction: &Transaction<'_>, id: i64) -> Result<(), Error> {
        let (version, event): (i64, Option<Vec<u8>>) = transaction
            .prepare_cached(SELECT_EVENT)?
            .query_row((id, HIT_LEN_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let decoded = decode(version, event.as_deref()).ok().and_then(|hit| {
            let identity = EventIdentity::of(&hit).ok()?;
            Some((hit, identity))
        });
        let Some((hit, identity)) = decoded else {
            self.damaged += 1;
            return Ok(());
        };
        let identity = match self.sensor(transaction, id)? {
            Some(sensor) => identity.from_sensor(&sensor, &hit),
            None => identity,
        };
        let identity = self.free(transaction, id, identity)?;
        transaction.prepare_cached(UPDATE_IDENTITY)?.execute((id, identity.as_bytes()))?;
        update_texts(transaction, id, &hit)
    }

    fn sensor(&self, transaction: &Transaction<'_>, id: i64) -> Result<Option<String>, Error> {
        if !self.has_sensors {
            return Ok(None);
        }
        transaction.prepare_cached(SELECT_SENSOR)?.query_row([id], |row| row.get(0)).optional()
    }

    /// Returns the identity of the first occurrence of the event that no other row has.
    fn free(
        &mut self,
        transaction: &Transaction<'_>,
        id: i64,
        event: EventIdentity,
    ) -> Result<EventIdentity, Error> {
        if self.counts.len() >= COUNTS_MAX {
            self.counts.clear();
        }
        let mut is_taken = transaction.prepare_cached(SELECT_OTHER)?;
        let number = self.counts.entry(event).or_default();
        loop {
            let identity = event.occurrence(*number);
            *number += 1;
            if !is_taken.query_row((identity.as_bytes(), id), |row| row.get(0))? {
                return Ok(identity);
            }
        }
    }
}

fn update_texts(transaction: &Transaction<'_>, id: i64, hit: &HitV1) -> Result<(), Error> {
    let columns = TextColumns::of(hit);
    if columns.nuls == 0 {
        return Ok(());
    }
    transaction.prepare_cached(UPDATE_TEXTS)?.execute((
        id,
        columns.source,
        columns.computer,
        columns.user_sid,
        columns.script_block_text,
        columns.script_block_id,
        columns.path,
        columns.context_info,
        columns.user_data,
        columns.payload,
        columns.notice,
        columns.app_name,
        columns.nuls,
    ))?;
    Ok(())
}

fn update_rules(transaction: &Transaction<'_>) -> Result<(), Error> {
    let rules: Vec<(i64, [String; 3])> = transaction
        .prepare(SELECT_RULES)?
        .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?
        .collect::<Result<_, _>>()?;
    for (id, [rule_id, title, level]) in rules {
        transaction.execute(UPDATE_RULE, (id, sql_text(&rule_id), sql_text(&title), sql_text(&level)))?;
    }
    Ok(())
}
