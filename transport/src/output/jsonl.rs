//! JSON Lines output: one object for each event and rule.
//!
//! Other programs depend on these names and on their order. Absent values are null. Text is Unicode; a lone surrogate
//! of the original, which JSON cannot express, becomes U+FFFD. A time after the year 9999 is written as the end of that
//! year, and the last key of the line is then `"clamped":["time"]`.

use super::how::How;
use super::{level, rule_id};
use crate::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use crate::time::filetime_text;
use serde::Serialize;

/// A line of the output.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    time: String,
    rule_id: Option<&'a str>,
    rule_title: &'a str,
    level: Option<&'a str>,
    attack: &'a [String],
    scope: &'static str,
    view: &'static str,
    source: &'a str,
    provider: String,
    event_id: u16,
    event_version: u8,
    event_level: u8,
    task: u16,
    opcode: u8,
    keywords: u64,
    computer: Option<&'a str>,
    user_sid: Option<&'a str>,
    process_id: Option<u32>,
    thread_id: Option<u32>,
    activity_id: Option<String>,
    event_record_id: Option<u64>,
    #[serde(flatten)]
    fields: Fields,
    #[serde(flatten)]
    how: How,
}

/// The fields of the event's template.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Fields {
    ScriptBlock {
        message_number: Option<i32>,
        message_total: Option<i32>,
        script_block_text: String,
        script_block_id: Option<String>,
        path: Option<String>,
    },
    Module {
        context_info: String,
        user_data: String,
        payload: String,
    },
    Notice {
        notice: String,
    },
    /// The text that PowerShell passed to the scanner, under the field names of a script block.
    Amsi {
        message_number: Option<i32>,
        message_total: Option<i32>,
        script_block_text: String,
        script_block_id: Option<String>,
        path: String,
        app_name: String,
        scan_result: u32,
    },
}

impl<'a> Line<'a> {
    /// Returns the line for a rule that matched.
    pub fn new(hit: &'a HitV1, rule: &'a RuleRefV1) -> Self {
        Self {
            time: filetime_text(hit.time),
            rule_id: rule_id(rule),
            rule_title: &rule.title,
            level: level(rule),
            attack: &rule.attack,
            scope: hit.scope.as_str(),
            view: hit.view.as_str(),
            source: &hit.source,
            provider: hit.provider_guid().to_string(),
            event_id: hit.event_id,
            event_version: hit.version,
            event_level: hit.level,
            task: hit.task,
            opcode: hit.opcode,
            keywords: hit.keywords,
            computer: hit.computer.as_deref(),
            user_sid: hit.user_sid.as_deref(),
            process_id: hit.process_id,
            thread_id: hit.thread_id,
            activity_id: hit.activity_guid().map(|id| id.to_string()),
            event_record_id: hit.event_record_id,
            fields: match &hit.content {
                EventContent::ScriptBlock { message_number, message_total, text, script_block_id, path } => {
                    Fields::ScriptBlock {
                        message_number: *message_number,
                        message_total: *message_total,
                        script_block_text: text.to_string_lossy(),
                        script_block_id: script_block_id.as_ref().map(Utf16Text::to_string_lossy),
                        path: path.as_ref().map(Utf16Text::to_string_lossy),
                    }
                }
                EventContent::Module { context_info, user_data, payload } => Fields::Module {
                    context_info: context_info.to_string_lossy(),
                    user_data: user_data.to_string_lossy(),
                    payload: payload.to_string_lossy(),
                },
                EventContent::Notice { detail } => Fields::Notice { notice: detail.clone() },
                EventContent::Amsi { text, content_name, app_name, scan_result } => Fields::Amsi {
                    message_number: None,
                    message_total: None,
                    script_block_text: text.to_string_lossy(),
                    script_block_id: None,
                    path: content_name.to_string_lossy(),
                    app_name: app_name.to_string_lossy(),
                    scan_result: *scan_result,
                },
            },
            how: How::new(hit, rule),
        }
    }
}
