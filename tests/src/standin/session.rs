//! What a machine knows of one session.

use serde::{Deserialize, Serialize};

const PROPERTY_SID: u32 = 0x01;
const PROPERTY_TERMINAL_SESSION: u32 = 0x02;
const PROPERTY_STACK: u32 = 0x04;
const PROPERTY_PROCESS_START_KEY: u32 = 0x80;

/// Types of extended items that an event carries only if `EnableProperty` asks for them: type, property.
/// Source: `ENABLE_TRACE_PARAMETERS` in `evntrace.h`, `EVENT_HEADER_EXT_TYPE_*` in `evntcons.h`.
pub const ITEM_PROPERTIES: [(u16, u32); 5] = [
    (2, PROPERTY_SID),
    (3, PROPERTY_TERMINAL_SESSION),
    (5, PROPERTY_STACK),
    (6, PROPERTY_STACK),
    (13, PROPERTY_PROCESS_START_KEY),
];

/// A session, as it lies in the folder of its [`Machine`](super::Machine).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Name. Letter case does not tell sessions apart.
    pub name: String,
    /// Logger id, also the value of the control handle.
    pub logger_id: u16,
    /// Tells this session from others that had or will have the same name.
    pub incarnation: u64,
    /// GUID of the session, lower-case with hyphens.
    pub guid: String,
    /// Size of a buffer in KB.
    pub buffer_size_kb: u32,
    /// Least number of buffers.
    pub minimum_buffers: u32,
    /// Greatest number of buffers.
    pub maximum_buffers: u32,
    /// Flush timer in seconds; 0 as it was given.
    pub flush_timer_s: u32,
    /// `LogFileMode`.
    pub log_file_mode: u32,
    /// Greatest size of the file in MB; 0 is no limit.
    pub maximum_file_size_mb: u32,
    /// File that the session writes, as the program named it. Empty: none.
    pub log_file_name: String,
    /// Process that started the session.
    pub process_id: u32,
    /// When the first provider was enabled, in 100 ns since 1601; 0 before.
    pub enabled_at: u64,
    /// Events for which there was no room.
    pub events_lost: u32,
    /// Buffers that the consumer was too slow for.
    pub real_time_buffers_lost: u32,
    /// Buffers that could not be written to the file.
    pub log_buffers_lost: u32,
    /// Buffers that were handed over.
    pub buffers_written: u32,
    /// How often the session was flushed.
    pub flushes: u32,
    /// Events of the scenario that were emitted before the last look, about 20 ms ago.
    pub position: u64,
    /// Enabled providers.
    pub providers: Vec<Enabled>,
}

/// A provider that a session enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabled {
    /// GUID, lower-case with hyphens.
    pub guid: String,
    /// Highest level of events; 0 for all.
    pub level: u8,
    /// Events need one of these keywords; 0 for all.
    pub any_keyword: u64,
    /// Events need all of these keywords.
    pub all_keyword: u64,
    /// `EnableProperty`: which extended items are asked for.
    pub property: u32,
    /// Event ids of the filter; `None` without a filter.
    pub event_ids: Option<Vec<u16>>,
    /// True if the filter names the ids to let through, false if those to keep out.
    pub filter_in: bool,
    /// Types of other filters, which are recorded and not applied.
    pub other_filters: Vec<u32>,
}

impl Enabled {
    /// True if an event with this descriptor is written to the session.
    ///
    /// As ETW decides: level 0 passes and admits all, keyword 0 passes all masks.
    pub fn admits(&self, event_id: u16, level: u8, keywords: u64) -> bool {
        let by_level = self.level == 0 || level <= self.level;
        let by_keyword = keywords == 0
            || (self.any_keyword == 0 || keywords & self.any_keyword != 0)
                && keywords & self.all_keyword == self.all_keyword;
        let by_id = self.event_ids.as_ref().is_none_or(|ids| ids.contains(&event_id) == self.filter_in);
        by_level && by_keyword && by_id
    }

    /// True if an extended item of this type is added to events.
    pub fn carries(&self, item_type: u16) -> bool {
        let asked = ITEM_PROPERTIES.iter().find(|(kind, _)| *kind == item_type);
        asked.is_none_or(|(_, property)| self.property & property != 0)
    }
}

impl Session {
    /// The provider with this GUID, lower-case with hyphens.
    pub fn provider(&self, guid: &str) -> Option<&Enabled> {
        self.providers.iter().find(|provider| provider.guid == guid)
    }

    /// Bytes that a buffer has for events.
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
