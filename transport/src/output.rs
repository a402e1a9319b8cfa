//! Hits as JSON: the project's own names, the Elastic Common Schema, Splunk's Common Information Model.
//!
//! A hit with several rules is several objects, one for each rule. Sensor and collector write the same.

pub mod ecs;
mod how;
pub mod jsonl;
pub mod splunk;

use crate::hit::{HitV1, RuleRefV1};
use etwsieve_event::provider::{AMSI, POWERSHELL_CORE, SENSOR};

/// Name under which Windows registers the provider.
fn provider_name(hit: &HitV1) -> &'static str {
    match hit.provider_guid() {
        POWERSHELL_CORE => "PowerShellCore",
        SENSOR => "etwsieve",
        AMSI => "Microsoft-Antimalware-Scan-Interface",
        _ => "Microsoft-Windows-PowerShell",
    }
}

/// The rule's id; `None` for a rule without one.
fn rule_id(rule: &RuleRefV1) -> Option<&str> {
    Some(rule.id.as_str()).filter(|id| !id.is_empty())
}

/// The rule's level; `None` for a rule without one.
fn level(rule: &RuleRefV1) -> Option<&str> {
    Some(rule.level.as_str()).filter(|level| !level.is_empty())
}
