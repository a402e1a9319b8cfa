//! Writing batches of hits, each in a transaction.

use super::Store;
use super::error::{Action, At, StoreError};
use super::sql_text::{NulCounter, sql_text};
use crate::hit::{EventContent, EventIdentity, HitV1, RuleRefV1, Utf16Text};
use crate::wire::codec::{self, HIT_VERSION};
use rusqlite::{CachedStatement, Connection, Error, OptionalExtension, TransactionBehavior, named_params};
use std::borrow::Cow;

const INSERT_HIT: &str = "
    INSERT INTO hits (event_hash, hit_version, event, time, source, source_sequence, provider, event_id,
        event_version, channel, event_level, opcode, task, keywords, computer, user_sid, process_id, thread_id,
        activity_id, event_record_id, scope, view, partial, message_number, message_total, script_block_text,
        script_block_id, path, cut_units, cut_sha256, context_info, user_data, payload, notice,
        app_name, scan_result, nuls)
    VALUES (:event_hash, :hit_version, :event, :time, :source, :source_sequence, :provider, :event_id,
        :event_version, :channel, :event_level, :opcode, :task, :keywords, :computer, :user_sid, :process_id,
        :thread_id, :activity_id, :event_record_id, :scope, :view, :partial, :message_number, :message_total,
        :script_block_text, :script_block_id, :path, :cut_units, :cut_sha256, :context_info, :user_data, :payload,
        :notice, :app_name, :scan_result, :nuls)
    ON CONFLICT (event_hash) DO NOTHING
    RETURNING id";
const FIND_HIT: &str = "SELECT id FROM hits WHERE event_hash = ?1";
/// Reads the stored event whose text was truncated.
const READ_EVENT: &str = "SELECT event FROM hits WHERE id = ?1";
const UPDATE_EVENT: &str = "UPDATE hits SET event = ?2, script_block_text = ?3, nuls = ?4 WHERE id = ?1";
const INSERT_RULE: &str = "
    INSERT INTO hit_rules (hit_id, rule_id, title, level, attack, beyond_nul, spans, transformations)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (hit_id, rule_id, title) DO NOTHING";
/// Earlier sensors sent an empty id for a rule without an id.
const NAME_RULE: &str =
    "UPDATE OR IGNORE hit_rules SET rule_id = ?2 WHERE hit_id = ?1 AND rule_id = '' AND title = ?3";

/// The number of rows that a batch added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Events that were not in the store before.
    pub hits: u64,
    /// Pairs of an event and a rule that were not in the store before.
    pub detections: u64,
}

impl Store {
    /// Stores hits in one transaction, which is durable on return.
    ///
    /// Each batch costs one sync of the disk, so a batch should have hundreds of hits. Existing events and detections
    /// are unchanged and not counted.
    ///
    /// # Errors
    ///
    /// If any error occurs, nothing of the batch is stored. [`StoreError::Hit`] identifies a hit that exceeds a limit.
    /// [`StoreError::Full`] and [`StoreError::Locked`] may be temporary.
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
            let mut writer = HitInserter::new(&transaction).at(path, Action::Write)?;
            for (index, hit) in hits.into_iter().enumerate() {
                let refuse = |source| StoreError::Hit { path: path.clone(), index, source };
                let event = codec::encode_event(hit).map_err(refuse)?;
                let identity = EventIdentity::of_encoded(hit, &event).map_err(refuse)?;
                let identity = identity.occurrence(self.occurrences.number(identity, hit));
                let (_, added) = writer.insert(hit, &event, identity).at(path, Action::Write)?;
                inserted.hits += added.hits;
                inserted.detections += added.detections;
            }
        }
        transaction.commit().at(path, Action::Write)?;
        Ok(inserted)
    }
}

/// Inserts hits into a store in one transaction, with statements that are prepared once.
pub struct HitInserter<'c> {
    insert_hit: CachedStatement<'c>,
    find_hit: CachedStatement<'c>,
    insert_rule: CachedStatement<'c>,
    name_rule: CachedStatement<'c>,
    read_event: CachedStatement<'c>,
    update_event: CachedStatement<'c>,
}

impl<'c> HitInserter<'c> {
    /// Prepares the statements.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn new(connection: &'c Connection) -> Result<Self, Error> {
        Ok(Self {
            insert_hit: connection.prepare_cached(INSERT_HIT)?,
            find_hit: connection.prepare_cached(FIND_HIT)?,
            insert_rule: connection.prepare_cached(INSERT_RULE)?,
            name_rule: connection.prepare_cached(NAME_RULE)?,
            read_event: connection.prepare_cached(READ_EVENT)?,
            update_event: connection.prepare_cached(UPDATE_EVENT)?,
        })
    }

    /// Stores a hit, or adds its rules to the stored one, and returns its id and what was added.
    ///
    /// `event` is [`codec::encode_event`] of the hit, `identity` the one by which the store recognises the event.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn insert(
        &mut self,
        hit: &HitV1,
        event: &[u8],
        identity: EventIdentity,
    ) -> Result<(i64, Inserted), Error> {
        let new = self.insert_event(hit, event, identity)?;
        let id = match new {
            Some(id) => id,
            None => self.find_hit.query_row([identity.as_bytes()], |row| row.get(0))?,
        };
        if new.is_none() && hit.cut.is_some() {
            self.add_pieces(id, hit)?;
        }
        let mut detections = 0;
        for rule in &hit.rules {
            if new.is_none() && rule.has_derived_id() {
                self.name_rule.execute((id, sql_text(&rule.id), sql_text(&rule.title)))?;
            }
            detections += self.insert_rule(id, rule)?;
        }
        Ok((id, Inserted { hits: u64::from(new.is_some()), detections: detections as u64 }))
    }

    /// Returns the number of rows added: 1, or 0 if the hit already has this rule.
    fn insert_rule(&mut self, hit_id: i64, rule: &RuleRefV1) -> Result<usize, Error> {
        let attack = serde_json::Value::from(rule.attack.as_slice()).to_string();
        let spans: serde_json::Value =
            rule.spans.iter().map(|span| vec![u32::from(span.text), span.start, span.len]).collect();
        let transformations: serde_json::Value = rule.transformations.iter().map(|it| it.as_str()).collect();
        self.insert_rule.execute((
            hit_id,
            sql_text(&rule.id),
            sql_text(&rule.title),
            sql_text(&rule.level),
            attack,
            rule.beyond_nul,
            spans.to_string(),
            transformations.to_string(),
        ))
    }

    /// Adds the pieces of a truncated text that the stored event lacks, so that the spans of all rules are within the
    /// text. A stored event that cannot be read is unchanged.
    fn add_pieces(&mut self, id: i64, hit: &HitV1) -> Result<(), Error> {
        let event: Vec<u8> = self.read_event.query_row([id], |row| row.get(0))?;
        let Ok(mut stored) = codec::decode_hit(&event) else { return Ok(()) };
        if stored.add_pieces(hit)
            && let Ok(event) = codec::encode_event(&stored)
        {
            let columns = TextColumns::of(&stored);
            self.update_event.execute((id, event, columns.script_block_text, columns.nuls))?;
        }
        Ok(())
    }

    /// Returns the id of the new row, or `None` if the event exists.
    fn insert_event(
        &mut self,
        hit: &HitV1,
        event: &[u8],
        identity: EventIdentity,
    ) -> Result<Option<i64>, Error> {
        let columns = TextColumns::of(hit);
        let (message_number, message_total) = match hit.content {
            EventContent::ScriptBlock { message_number, message_total, .. } => {
                (message_number, message_total)
            }
            _ => (None, None),
        };
        let scan_result = match hit.content {
            EventContent::Amsi { scan_result, .. } => Some(scan_result),
            _ => None,
        };
        self.insert_hit
            .query_row(
                named_params! {
                    ":event_hash": identity.as_bytes(),
                    ":hit_version": HIT_VERSION,
                    ":event": event,
                    ":time": saturate(hit.time),
                    ":source": columns.source,
                    ":source_sequence": saturate(hit.source_sequence),
                    ":provider": hit.provider_guid().to_string(),
                    ":event_id": hit.event_id,
                    ":event_version": hit.version,
                    ":channel": hit.channel,
                    ":event_level": hit.level,
                    ":opcode": hit.opcode,
                    ":task": hit.task,
                    ":keywords": hit.keywords.cast_signed(),
                    ":computer": columns.computer,
                    ":user_sid": columns.user_sid,
                    ":process_id": hit.process_id,
                    ":thread_id": hit.thread_id,
                    ":activity_id": hit.activity_guid().map(|guid| guid.to_string()),
                    ":event_record_id": hit.event_record_id.map(saturate),
                    ":scope": hit.scope.as_str(),
                    ":view": hit.view.as_str(),
                    ":partial": hit.partial,
                    ":cut_units": hit.cut.as_ref().map(|cut| cut.units),
                    ":cut_sha256": hit.cut.as_ref().and_then(|cut| cut.sha256.map(|hash| data_encoding::HEXLOWER.encode(&hash))),
                    ":message_number": message_number,
                    ":message_total": message_total,
                    ":script_block_text": columns.script_block_text,
                    ":script_block_id": columns.script_block_id,
                    ":path": columns.path,
                    ":context_info": columns.context_info,
                    ":user_data": columns.user_data,
                    ":payload": columns.payload,
                    ":notice": columns.notice,
                    ":app_name": columns.app_name,
                    ":scan_result": scan_result,
                    ":nuls": columns.nuls,
                },
                |row| row.get(0),
            )
            .optional()
    }
}

/// Values of the text columns. Columns of other templates stay NULL.
#[derive(Default)]
pub(super) struct TextColumns<'h> {
    pub(super) source: Cow<'h, str>,
    pub(super) computer: Option<Cow<'h, str>>,
    pub(super) user_sid: Option<Cow<'h, str>>,
    pub(super) script_block_text: Option<Cow<'h, str>>,
    pub(super) script_block_id: Option<Cow<'h, str>>,
    pub(super) path: Option<Cow<'h, str>>,
    pub(super) context_info: Option<Cow<'h, str>>,
    pub(super) user_data: Option<Cow<'h, str>>,
    pub(super) payload: Option<Cow<'h, str>>,
    pub(super) notice: Option<Cow<'h, str>>,
    pub(super) app_name: Option<Cow<'h, str>>,
    /// Number of U+0000 that were replaced in all columns.
    pub(super) nuls: i64,
}

impl<'h> TextColumns<'h> {
    pub(super) fn of(hit: &'h HitV1) -> Self {
        let mut counter = NulCounter::default();
        let own = Self {
            source: counter.pass(&hit.source),
            computer: hit.computer.as_ref().map(|text| counter.pass(text)),
            user_sid: hit.user_sid.as_ref().map(|text| counter.pass(text)),
            ..Self::default()
        };
        let mut wide = |text: &Utf16Text| Some(counter.pass(text.to_string_lossy()));
        let columns = match &hit.content {
            EventContent::ScriptBlock { text, script_block_id, path, .. } => Self {
                script_block_text: wide(text),
                script_block_id: script_block_id.as_ref().and_then(&mut wide),
                path: path.as_ref().and_then(&mut wide),
                ..own
            },
            EventContent::Module { context_info, user_data, payload } => Self {
                context_info: wide(context_info),
                user_data: wide(user_data),
                payload: wide(payload),
                ..own
            },
            EventContent::Notice { detail } => Self { notice: Some(counter.pass(detail)), ..own },
            EventContent::Amsi { text, content_name, app_name, .. } => Self {
                script_block_text: wide(text),
                path: wide(content_name),
                app_name: wide(app_name),
                ..own
            },
        };
        Self { nuls: counter.nuls, ..columns }
    }
}

/// SQLite's integers are signed. A saturated value still sorts last.
pub(super) fn saturate(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
