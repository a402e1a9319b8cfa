//! Writing: batches of hits, each one transaction.

use super::Store;
use super::error::{Action, At, StoreError};
use crate::hit::{EventContent, HitV1, Utf16Text};
use crate::wire::codec::{self, HIT_VERSION};
use rusqlite::{CachedStatement, Connection, Error, OptionalExtension, TransactionBehavior, named_params};
use sha2::{Digest, Sha256};

const INSERT_HIT: &str = "
    INSERT INTO hits (event_hash, hit_version, event, time, source, source_sequence, provider, event_id,
        event_version, channel, event_level, opcode, task, keywords, computer, user_sid, process_id, thread_id,
        activity_id, event_record_id, scope, view, message_number, message_total, script_block_text,
        script_block_id, path, context_info, user_data, payload, notice)
    VALUES (:event_hash, :hit_version, :event, :time, :source, :source_sequence, :provider, :event_id,
        :event_version, :channel, :event_level, :opcode, :task, :keywords, :computer, :user_sid, :process_id,
        :thread_id, :activity_id, :event_record_id, :scope, :view, :message_number, :message_total,
        :script_block_text, :script_block_id, :path, :context_info, :user_data, :payload, :notice)
    ON CONFLICT (event_hash) DO NOTHING
    RETURNING id";
const FIND_HIT: &str = "SELECT id FROM hits WHERE event_hash = ?1";
const INSERT_RULE: &str = "
    INSERT INTO hit_rules (hit_id, rule_id, title, level, attack) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (hit_id, rule_id, title) DO NOTHING";

/// What a batch added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Events that were not in the store before.
    pub hits: u64,
    /// Pairs of an event and a rule that were not in the store before.
    pub detections: u64,
}

impl Store {
    /// Stores hits in one transaction and returns when they are durable.
    ///
    /// A sync of the disk is the price of a batch, not of a hit: give it hundreds at a time. What is there
    /// already is left as it is and not counted.
    ///
    /// # Errors
    ///
    /// On every error nothing of the batch is stored. [`StoreError::Hit`] names a hit that breaks a limit;
    /// [`StoreError::Full`] and [`StoreError::Locked`] may pass.
    pub fn insert_batch<'h>(
        &mut self,
        hits: impl IntoIterator<Item = &'h HitV1>,
    ) -> Result<Inserted, StoreError> {
        let path = &self.path;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .at(path, Action::Write)?;
        let mut inserted = Inserted::default();
        {
            let mut writer = Writer::new(&transaction).at(path, Action::Write)?;
            for (index, hit) in hits.into_iter().enumerate() {
                let event = codec::encode_event(hit).map_err(|source| StoreError::Hit {
                    path: path.clone(),
                    index,
                    source,
                })?;
                let added = writer.insert(hit, &event).at(path, Action::Write)?;
                inserted.hits += added.hits;
                inserted.detections += added.detections;
            }
        }
        transaction.commit().at(path, Action::Write)?;
        Ok(inserted)
    }
}

struct Writer<'c> {
    insert_hit: CachedStatement<'c>,
    find_hit: CachedStatement<'c>,
    insert_rule: CachedStatement<'c>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection) -> Result<Self, Error> {
        Ok(Self {
            insert_hit: connection.prepare_cached(INSERT_HIT)?,
            find_hit: connection.prepare_cached(FIND_HIT)?,
            insert_rule: connection.prepare_cached(INSERT_RULE)?,
        })
    }

    fn insert(&mut self, hit: &HitV1, event: &[u8]) -> Result<Inserted, Error> {
        let hash = Sha256::digest(event);
        let new = self.insert_event(hit, event, &hash)?;
        let id = match new {
            Some(id) => id,
            None => self.find_hit.query_row([&hash[..]], |row| row.get(0))?,
        };
        let mut detections = 0;
        for rule in &hit.rules {
            let attack = serde_json::Value::from(rule.attack.as_slice()).to_string();
            detections += self.insert_rule.execute((id, &rule.id, &rule.title, &rule.level, attack))?;
        }
        Ok(Inserted { hits: u64::from(new.is_some()), detections: detections as u64 })
    }

    /// The new row's id, or `None` if the event is there already.
    fn insert_event(&mut self, hit: &HitV1, event: &[u8], hash: &[u8]) -> Result<Option<i64>, Error> {
        let columns = ContentColumns::of(&hit.content);
        self.insert_hit
            .query_row(
                named_params! {
                    ":event_hash": hash,
                    ":hit_version": HIT_VERSION,
                    ":event": event,
                    ":time": saturate(hit.time),
                    ":source": hit.source,
                    ":source_sequence": saturate(hit.source_sequence),
                    ":provider": hit.provider_guid().to_string(),
                    ":event_id": hit.event_id,
                    ":event_version": hit.version,
                    ":channel": hit.channel,
                    ":event_level": hit.level,
                    ":opcode": hit.opcode,
                    ":task": hit.task,
                    ":keywords": hit.keywords.cast_signed(),
                    ":computer": hit.computer,
                    ":user_sid": hit.user_sid,
                    ":process_id": hit.process_id,
                    ":thread_id": hit.thread_id,
                    ":activity_id": hit.activity_guid().map(|guid| guid.to_string()),
                    ":event_record_id": hit.event_record_id.map(saturate),
                    ":scope": hit.scope.as_str(),
                    ":view": hit.view.as_str(),
                    ":message_number": columns.message_number,
                    ":message_total": columns.message_total,
                    ":script_block_text": columns.script_block_text,
                    ":script_block_id": columns.script_block_id,
                    ":path": columns.path,
                    ":context_info": columns.context_info,
                    ":user_data": columns.user_data,
                    ":payload": columns.payload,
                    ":notice": columns.notice,
                },
                |row| row.get(0),
            )
            .optional()
    }
}

/// Columns of the template's fields; those of the other template stay NULL.
#[derive(Default)]
struct ContentColumns {
    message_number: Option<i32>,
    message_total: Option<i32>,
    script_block_text: Option<String>,
    script_block_id: Option<String>,
    path: Option<String>,
    context_info: Option<String>,
    user_data: Option<String>,
    payload: Option<String>,
    notice: Option<String>,
}

impl ContentColumns {
    fn of(content: &EventContent) -> Self {
        match content {
            EventContent::ScriptBlock { message_number, message_total, text, script_block_id, path } => {
                Self {
                    message_number: *message_number,
                    message_total: *message_total,
                    script_block_text: Some(text.to_string_lossy()),
                    script_block_id: script_block_id.as_ref().map(Utf16Text::to_string_lossy),
                    path: path.as_ref().map(Utf16Text::to_string_lossy),
                    ..Self::default()
                }
            }
            EventContent::Module { context_info, user_data, payload } => Self {
                context_info: Some(context_info.to_string_lossy()),
                user_data: Some(user_data.to_string_lossy()),
                payload: Some(payload.to_string_lossy()),
                ..Self::default()
            },
            EventContent::Notice { detail } => Self { notice: Some(detail.clone()), ..Self::default() },
        }
    }
}

/// SQLite's integers are signed; a saturated one still sorts to the end.
pub(super) fn saturate(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
