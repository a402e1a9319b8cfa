//! Hits with the field names of the Elastic Common Schema 8. The script uses those of Elastic's PowerShell integration
//! (`powershell.file.script_block_text` and others).

use super::how::How;
use super::{level, provider_name, rule_id};
use crate::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use crate::time::filetime_text;
use serde_json::{Map, Value, json};

/// Returns the document for a rule that matched. Absent values are omitted, as ECS requires.
pub fn document(hit: &HitV1, rule: &RuleRefV1) -> Value {
    let mut document = json!({
        "@timestamp": filetime_text(hit.time),
        "ecs": { "version": "8.11.0" },
        "event": {
            "kind": "alert",
            "category": ["process"],
            "type": ["info"],
            "module": "etwsieve",
            "dataset": "etwsieve.detection",
            "code": hit.event_id.to_string(),
            "provider": provider_name(hit),
            "severity": hit.level,
        },
        "rule": { "id": rule_id(rule), "name": rule.title },
        "threat": { "framework": "MITRE ATT&CK", "technique": { "id": rule.attack } },
        "host": { "name": hit.computer },
        "user": { "id": hit.user_sid },
        "process": { "pid": hit.process_id, "thread": { "id": hit.thread_id } },
        "log": { "file": { "path": hit.source } },
        "winlog": {
            "provider_guid": format!("{{{}}}", hit.provider_guid()),
            "event_id": hit.event_id.to_string(),
            "version": hit.version,
            "task": hit.task,
            "opcode": hit.opcode,
            "record_id": hit.event_record_id.map(|id| id.to_string()),
            "activity_id": hit.activity_guid().map(|id| format!("{{{id}}}")),
        },
        "etwsieve": how(hit, rule),
        "powershell": powershell(&hit.content),
    });
    if let EventContent::ScriptBlock { path: Some(path), .. } | EventContent::Amsi { content_name: path, .. } =
        &hit.content
        && !path.0.is_empty()
    {
        document["file"] = json!({ "path": path.to_string_lossy() });
    }
    if let EventContent::Notice { detail } = &hit.content {
        document["message"] = json!(detail);
    }
    prune(&mut document);
    document
}

/// Returns the fields that ECS does not define.
fn how(hit: &HitV1, rule: &RuleRefV1) -> Value {
    let mut how = json!({ "level": level(rule), "scope": hit.scope.as_str(), "view": hit.view.as_str() });
    if let EventContent::Amsi { app_name, scan_result, .. } = &hit.content {
        how["amsi"] = json!({ "app_name": app_name.to_string_lossy(), "scan_result": scan_result });
    }
    // A struct of plain fields always serialises to an object.
    if let (Value::Object(own), Ok(Value::Object(more))) =
        (&mut how, serde_json::to_value(How::new(hit, rule)))
    {
        own.extend(more);
    }
    how
}

fn powershell(content: &EventContent) -> Value {
    match content {
        EventContent::ScriptBlock { message_number, message_total, text, script_block_id, .. } => json!({
            "sequence": message_number,
            "total": message_total,
            "file": {
                "script_block_text": text.to_string_lossy(),
                "script_block_id": script_block_id.as_ref().map(Utf16Text::to_string_lossy),
            },
        }),
        EventContent::Module { context_info, user_data, payload } => json!({
            "context_info": context_info.to_string_lossy(),
            "user_data": user_data.to_string_lossy(),
            "payload": payload.to_string_lossy(),
        }),
        EventContent::Amsi { text, .. } => json!({ "file": { "script_block_text": text.to_string_lossy() } }),
        EventContent::Notice { .. } => Value::Null,
    }
}

/// Removes nulls, and the objects that become empty without them.
fn prune(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.values_mut().for_each(prune);
    map.retain(|_, value| {
        !value.is_null() && value.as_object().is_none_or(|inner: &Map<_, _>| !inner.is_empty())
    });
}
