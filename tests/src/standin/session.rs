//! The state of a session on a machine.

use serde::{Deserialize, Serialize};

const PROPERTY_SID: u32 = 0x01;
const PROPERTY_TERMINAL_SESSION: u32 = 0x02;
const PROPERTY_STACK: u32 = 0x04;
const PROPERTY_PROCESS_START_KEY: u32 = 0x80;

/// Types of extended items that are added to events only if `EnableProperty` requests them, with the property.
/// Source: `ENABLE_TRACE_PARAMETERS` in `evntrace.h`, `EVENT_HEADER_EXT_TYPE_*` in `evntcons.h`.
pub const ITEM_PROPERTIES: [(u16, u32); 5] = [
    (2, PROPERTY_SID),
    (3, PROPERTY_TERMINAL_SESSION),
    (5, PROPERTY_STACK),
    (6, PROPERTY_STACK),
    (13, PROPERTY_PROCESS_START_KEY),
];

/// A session, stored as a file in the folder of its [`Machine`](super::Machine).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Name, which ignores case.
    pub name: String,
    /// Logger id, also the value of the control handle.
    pub logger_id: u16,
    /// Distinguishes this session from earlier and later ones with the same name.
    pub incarnation: u64,
    /// GUID of the session, lower-case with hyphens.
    pub guid: String,
    /// Size of a buffer in KB.
    pub buffer_size_kb: u32,
    /// Minimum number of buffers.
    pub minimum_buffers: u32,
    /// Maximum number of buffers.
    pub maximum_buffers: u32,
    /// Flush timer in seconds; 0 if it was set to 0.
    pub flush_timer_s: u32,
    /// `LogFileMode`.
    pub log_file_mode: u32,
    /// Maximum size of the file in MB; 0 for no limit.
    pub maximum_file_size_mb: u32,
    /// Path of the file that the session writes, as given by the program; empty without a file.
    pub log_file_name: String,
    /// Process that started the session.
    pub process_id: u32,
    /// When the first provider was enabled, in 100 ns since 1601; 0 before.
    pub enabled_at: u64,
    /// Events that did not fit into a buffer.
    pub events_lost: u32,
    /// Buffers lost because the consumer was too slow.
    pub real_time_buffers_lost: u32,
    /// Buffers that could not be written to the file.
    pub log_buffers_lost: u32,
    /// Buffers that were delivered.
    pub buffers_written: u32,
    /// Number of flushes.
    pub flushes: u32,
    /// Events of the scenario emitted so far, updated about every 20 ms.
    pub position: u64,
    /// Enabled providers.
    pub providers: Vec<Enabled>,
}

/// A provider that a session enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabled {
    /// GUID, lower-case with hyphens.
    pub guid: String,
    /// Maximum level of events; 0 for all.
    pub level: u8,
    /// Events need one of these keywords; 0 for all.
    pub any_keyword: u64,
    /// Events need all of these keywords.
    pub all_keyword: u64,
    /// `EnableProperty`: the requested extended items.
    pub property: u32,
    /// Event ids of the filter; `None` without a filter.
    pub event_ids: Option<Vec<u16>>,
    /// True if the filter lists the ids to include, false if it lists those to exclude.
    pub filter_in: bool,
    /// Types of other filters, which are recorded and not applied.
    pub other_filters: Vec<u32>,
}

impl Enabled {
    /// Returns whether an event with this descriptor is written to the session.
    ///
    /// As in ETW, level 0 of the event or of the provider always matches, and keyword 0 of the event matches all masks.
    pub fn admits(&self, event_id: u16, level: u8, keywords: u64) -> bool {
        let by_level = self.level == 0 || level <= self.level;
        let by_keyword = keywords == 0
            || (self.any_keyword == 0 || keywords & self.any_keyword != 0)
                && keywords & self.all_keyword == self.all_keyword;
        let by_id = self.event_ids.as_ref().is_none_or(|ids| ids.contains(&event_id) == self.filter_in);
        by_level && by_keyword && by_id
    }

    /// Returns whether an extended item of this type is added to events.
    pub fn carries(&self, item_type: u16) -> bool {
        let asked = ITEM_PROPERTIES.iter().find(|(kind, _)| *kind == item_type);
        asked.is_none_or(|(_, property)| self.property & property != 0)
    }
}

impl Session {
    /// Returns the provider with this GUID, lower-case with hyphens.
    pub fn provider(&self, guid: &str) -> Option<&Enabled> {
        self.providers.iter().find(|provider| provider.guid == guid)
    }

    /// Size of the part of a buffer for events, in bytes.
    pub fn buffer_room(&self) -> usize {
        (self.buffer_size_kb as usize * 1024).saturating_sub(etwsieve_etl::BUFFER_HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::Enabled;

    #[test]
    fn admits_as_etw_does() {
        let provider = |level, any_keyword, all_keyword, ids: Option<&[u16]>, filter_in| Enabled {
            level,
            any_keyword,
            all_keyword,
            event_ids: ids.map(<[u16]>::to_vec),
            filter_in,
            ..Enabled::default()
        };
        let rows = [
            ("no limits", provider(0, 0, 0, None, false), (1, 255, 1), true),
            ("level as enabled", provider(4, 0, 0, None, false), (1, 4, 0), true),
            ("level above", provider(4, 0, 0, None, false), (1, 5, 0), false),
            ("level 0 passes", provider(1, 0, 0, None, false), (1, 0, 0), true),
            ("keyword 0 passes", provider(0, 1 << 63, 2, None, false), (1, 0, 0), true),
            ("another keyword", provider(0, 1, 0, None, false), (1, 0, 2), false),
            ("one of the keywords", provider(0, 3, 0, None, false), (1, 0, 2), true),
            ("not all keywords", provider(0, 3, 3, None, false), (1, 0, 2), false),
            ("id let in", provider(0, 0, 0, Some(&[4104]), true), (4104, 0, 0), true),
            ("id not let in", provider(0, 0, 0, Some(&[4104]), true), (4103, 0, 0), false),
            ("id kept out", provider(0, 0, 0, Some(&[4104]), false), (4104, 0, 0), false),
            ("id not kept out", provider(0, 0, 0, Some(&[4104]), false), (4103, 0, 0), true),
        ];
        for (name, provider, (id, level, keywords), expected) in rows {
            assert_eq!(provider.admits(id, level, keywords), expected, "{name}");
        }
    }

    #[test]
    fn the_sid_is_added_when_asked_for() {
        let mut provider = Enabled::default();
        assert!(!provider.carries(2) && provider.carries(1));
        provider.property = 1;
        assert!(provider.carries(2) && !provider.carries(13));
    }
}
