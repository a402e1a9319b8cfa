//! Hits as events of Splunk's HTTP Event Collector, with the field names of its Common Information Model. The analytic
//! of the built-in rule groups its results by these fields.

use super::how::How;
use super::{level, provider_name, rule_id};
use crate::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use crate::time::filetime_unix_text;
use serde_json::{Value, json};

/// Returns the event for a rule that matched. Missing values are 0, as after the analytic's `fillnull`.
pub fn event(hit: &HitV1, rule: &RuleRefV1) -> Value {
    let or_zero = |value: Option<Value>| value.unwrap_or_else(|| json!(0));
    let text = |value: Option<String>| or_zero(value.filter(|text| !text.is_empty()).map(Value::from));
    let mut event = json!({
        "dest": text(hit.computer.clone()),
        "signature": signature(hit),
        "signature_id": hit.event_id,
        "user_id": text(hit.user_sid.clone()),
        "vendor_product": "Microsoft Windows",
        "EventID": hit.event_id,
        "Guid": format!("{{{}}}", hit.provider_guid()),
        "Opcode": hit.opcode,
        "Name": provider_name(hit),
        "ProcessID": or_zero(hit.process_id.map(Value::from)),
        "rule_id": rule_id(rule),
        "rule_title": rule.title,
        "severity": level(rule),
        "mitre_attack_id": rule.attack,
        "scope": hit.scope.as_str(),
        "view": hit.view.as_str(),
    });
    // A struct of plain fields always serialises to an object.
    if let (Value::Object(own), Ok(Value::Object(more))) =
        (&mut event, serde_json::to_value(How::new(hit, rule)))
    {
        own.extend(more);
    }
    match &hit.content {
        EventContent::ScriptBlock { text: script, script_block_id, path, .. } => {
            event["Path"] = text(path.as_ref().map(Utf16Text::to_string_lossy));
            event["ScriptBlockId"] = text(script_block_id.as_ref().map(Utf16Text::to_string_lossy));
            event["ScriptBlockText"] = text(Some(script.to_string_lossy()));
        }
        EventContent::Module { context_info, user_data, payload } => {
            event["ContextInfo"] = text(Some(context_info.to_string_lossy()));
            event["UserData"] = text(Some(user_data.to_string_lossy()));
            event["Payload"] = text(Some(payload.to_string_lossy()));
        }
        EventContent::Notice { detail } => event["Message"] = text(Some(detail.clone())),
        EventContent::Amsi { text: script, content_name, app_name, scan_result } => {
            event["Path"] = text(Some(content_name.to_string_lossy()));
            event["ScriptBlockId"] = json!(0);
            event["ScriptBlockText"] = text(Some(script.to_string_lossy()));
            event["AppName"] = text(Some(app_name.to_string_lossy()));
            event["ScanResult"] = json!(scan_result);
        }
    }
    json!({
        // Seconds with seven decimals exceed the precision of a double; as text they are exact.
        "time": filetime_unix_text(hit.time),
        "host": hit.computer,
        "source": hit.source,
        "sourcetype": "etwsieve:detection",
        "event": event,
    })
}

/// Returns the name of the event in the event log.
fn signature(hit: &HitV1) -> String {
    match &hit.content {
        EventContent::ScriptBlock { message_number, message_total, .. } => format!(
            "Creating Scriptblock text ({} of {})",
            message_number.unwrap_or_default(),
            message_total.unwrap_or_default()
        ),
        EventContent::Module { .. } => "Executing Pipeline".into(),
        EventContent::Notice { .. } => "Sensor notice".into(),
        EventContent::Amsi { .. } => "AmsiScanBuffer".into(),
    }
}
