//! A session as ETW describes it, and the parameters with which the sensor enables providers in it.

use super::counters::LossCounts;
use super::provider::ProviderState;
use crate::event;
use etwsieve_matcher::EventKind;
use uuid::Uuid;

/// The keyword of the channel Operational. With it PowerShell does not write the hex dumps of remoting fragments, which
/// keyword 0, meaning all, would request. Events with keyword 0 pass any mask.
const POWERSHELL_KEYWORDS: u64 = 0x8000_0000_0000_0000;
/// Keywords of the antimalware scanner's events: `Event1` of its manifest, and the bit of its channel.
const AMSI_KEYWORDS: u64 = 0x8000_0000_0000_0001;
/// Verbose, the level of script blocks that PowerShell considers harmless.
pub const LEVEL: u8 = 5;

/// Returns the keywords for which a provider is enabled.
pub fn keywords(provider: &Uuid) -> u64 {
    if *provider == event::AMSI { AMSI_KEYWORDS } else { POWERSHELL_KEYWORDS }
}

/// A running session, as a query describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The handle, valid for control functions only.
    pub handle: u64,
    /// Size of a buffer in KB.
    pub buffer_kb: u32,
    /// Number of buffers currently allocated.
    pub buffers: u32,
    /// Mode flags (`EVENT_TRACE_…_MODE`).
    pub mode: u32,
    /// Losses since the session started.
    pub losses: LossCounts,
    /// The file that the session writes; empty for none.
    pub file: String,
}

impl SessionState {
    /// Returns the number by which providers know the session: the low half of its handle.
    pub fn logger_id(&self) -> u16 {
        self.handle as u16
    }
}

/// The parameters with which the sensor enables a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnableParameters {
    /// Kinds of events. A provider that writes none of them is disabled.
    pub kinds: Vec<EventKind>,
    /// Windows adds the user's SID to each event.
    pub user_sid: bool,
}

impl EnableParameters {
    /// Returns the ids of the events that are requested from this provider.
    pub fn ids(&self, provider: &Uuid) -> impl Iterator<Item = u16> {
        let ids = self.kinds.iter().map(|kind| kind.event_id());
        ids.filter(|id| event::kind(provider, *id).is_some())
    }
}

/// Returns whether the session with this logger id has the provider enabled with at least the level and the keywords
/// that the sensor needs. A keyword mask of 0 means all.
pub fn is_enabled(provider: &Uuid, state: &ProviderState, logger_id: u16) -> bool {
    let ours = state.sessions.iter().find(|session| session.logger_id == logger_id);
    ours.is_some_and(|ours| {
        let keywords = keywords(provider);
        ours.level >= LEVEL && (ours.any_keyword == 0 || ours.any_keyword & keywords == keywords)
    })
}

#[cfg(test)]
mod tests {
    use super::{EnableParameters, is_enabled};
    use crate::event::{AMSI, POWERSHELL, POWERSHELL_CORE};
    use crate::live::provider::{EnabledSession, ProviderState};
    use etwsieve_matcher::EventKind;

    #[test]
    fn each_provider_is_asked_for_its_own_events() {
        let all = EnableParameters { kinds: EventKind::ALL.to_vec(), user_sid: true };
        let ids = |provider| {
            let mut ids: Vec<u16> = all.ids(provider).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&POWERSHELL), [4103, 4104]);
        assert_eq!(ids(&POWERSHELL_CORE), [4103, 4104]);
        assert_eq!(ids(&AMSI), [1101]);
    }

    #[test]
    fn a_weakened_level_or_mask_counts_as_disabled() {
        let rows = [
            ("as requested", POWERSHELL, 7, 5, 1 << 63, true),
            ("mask 0 means all", POWERSHELL, 7, 5, 0, true),
            ("level 255 means all", POWERSHELL, 7, 255, 0, true),
            ("lower level", POWERSHELL, 7, 4, 1 << 63, false),
            ("other keywords", POWERSHELL, 7, 5, 1 << 62, false),
            ("half of the keywords", AMSI, 7, 5, 1 << 63, false),
            ("both keywords", AMSI, 7, 5, 1 << 63 | 1, true),
            ("another session", POWERSHELL, 8, 5, 1 << 63, false),
        ];
        for (name, provider, logger_id, level, any_keyword, expected) in rows {
            let session =
                EnabledSession { logger_id, level, any_keyword, all_keyword: 0, enable_property: 0 };
            let state = ProviderState { registered_processes: vec![], sessions: vec![session] };
            assert_eq!(is_enabled(&provider, &state, 7), expected, "{name}");
        }
    }
}
