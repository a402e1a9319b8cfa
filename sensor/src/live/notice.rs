//! Notices: detections about the sensor and its session, such as a stopped session or lost events.
//!
//! Each kind has a fixed id, so that alerts can refer to it, and is written and stored like any other detection.

use crate::event::SENSOR;
use etwsieve_event::FileTime;
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1};

/// A kind of notice. The numbers are event ids of the provider [`SENSOR`] and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoticeKind {
    /// Another program stopped the session.
    SessionStopped = 1,
    /// Another program disabled a provider in the session.
    ProviderDisabled = 2,
    /// Events were lost: by ETW, or because the matchers were too slow.
    ConsumerBehind = 3,
    /// Protected Event Logging encrypts script blocks, so their text cannot be searched.
    EncryptedScriptBlocks = 4,
    /// Script block logging was reduced: PowerShell logs only suspicious blocks, or none.
    LoggingOff = 5,
    /// PowerShell hosts start but no events arrive from them.
    NoEvents = 6,
}

impl NoticeKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::SessionStopped,
        Self::ProviderDisabled,
        Self::ConsumerBehind,
        Self::EncryptedScriptBlocks,
        Self::LoggingOff,
        Self::NoEvents,
    ];

    /// Returns id, title, level and ATT&CK techniques in the form of a rule.
    ///
    /// T1562.006 is Impair Defenses: Indicator Blocking, T1562.002 Disable Windows Event Logging.
    pub fn rule(self) -> RuleRefV1 {
        let (id, title, level, attack): (_, _, _, &[&str]) = match self {
            Self::SessionStopped => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b01",
                "ETW Session of the Sensor Stopped From Outside",
                "high",
                &["T1562.006"],
            ),
            Self::ProviderDisabled => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b02",
                "Provider Disabled in the Sensor's ETW Session",
                "high",
                &["T1562.006"],
            ),
            Self::ConsumerBehind => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b03",
                "PowerShell Events Lost Before They Could Be Searched",
                "medium",
                &[],
            ),
            Self::EncryptedScriptBlocks => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b04",
                "Script Blocks Encrypted by Protected Event Logging",
                "medium",
                &[],
            ),
            Self::LoggingOff => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b05",
                "PowerShell Script Block Logging Switched Off",
                "high",
                &["T1562.002"],
            ),
            Self::NoEvents => (
                "0b6ff9a2-6b5f-4c26-8c2e-8d3a0d6a9b06",
                "PowerShell Hosts Start Without Any Event",
                "medium",
                &["T1562.006"],
            ),
        };
        RuleRefV1 {
            id: id.into(),
            title: title.into(),
            level: level.into(),
            attack: attack.iter().map(|id| (*id).into()).collect(),
            ..RuleRefV1::default()
        }
    }
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Kind of the notice.
    pub kind: NoticeKind,
    /// When the sensor noticed it.
    pub time: FileTime,
    /// Description of the problem, and advice.
    pub detail: String,
}

impl Notice {
    /// Converts the notice into a hit of the session `source` on `computer`. `number` distinguishes notices with the
    /// same time.
    pub fn into_hit(self, source: &str, computer: &str, number: u64) -> HitV1 {
        let mut hit = HitV1 {
            time: self.time.0,
            source: source.to_owned(),
            source_sequence: number,
            provider: SENSOR.to_bytes_le(),
            event_id: self.kind as u16,
            version: 1,
            // Warning.
            level: 3,
            computer: (!computer.is_empty()).then(|| computer.to_owned()),
            process_id: Some(std::process::id()),
            content: EventContent::Notice { detail: self.detail },
            rules: vec![self.kind.rule()],
            ..HitV1::default()
        };
        hit.cut_to_limits();
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::{Notice, NoticeKind};
    use etwsieve_event::FileTime;
    use std::collections::HashSet;

    #[test]
    fn kinds_have_unique_ids_and_become_valid_hits() {
        let ids: HashSet<String> = NoticeKind::ALL.iter().map(|kind| kind.rule().id).collect();
        assert_eq!(ids.len(), NoticeKind::ALL.len());
        for kind in NoticeKind::ALL {
            let notice = Notice { kind, time: FileTime(1), detail: "x".repeat(10_000) };
            let hit = notice.into_hit("etwsieve", "host", 7);
            hit.check().unwrap();
            assert_eq!((hit.event_id, hit.rules.len()), (kind as u16, 1));
        }
    }
}
