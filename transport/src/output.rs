//! Hits as JSON, with the project's own field names, those of the Elastic Common Schema, or those of Splunk's Common
//! Information Model.
//!
//! A hit with several rules becomes several objects, one for each rule. Sensor and collector write the same objects.

pub mod ecs;
mod how;
pub mod jsonl;
pub mod splunk;

use crate::hit::{HitV1, RuleRefV1};
use etwsieve_event::provider::{AMSI, POWERSHELL_CORE, SENSOR};

/// Returns the name under which Windows registers the provider.
fn provider_name(hit: &HitV1) -> &'static str {
    match hit.provider_guid() {
        POWERSHELL_CORE => "PowerShellCore",
        SENSOR => "etwsieve",
        AMSI => "Microsoft-Antimalware-Scan-Interface",
        _ => "Microsoft-Windows-PowerShell",
    }
}

/// Returns the rule's id, or `None` if it has none.
fn rule_id(rule: &RuleRefV1) -> Option<&str> {
    Some(rule.id.as_str()).filter(|id| !id.is_empty())
}

/// Returns the rule's level, or `None` if it has none.
fn level(rule: &RuleRefV1) -> Option<&str> {
    Some(rule.level.as_str()).filter(|level| !level.is_empty())
}
