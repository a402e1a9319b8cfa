//! Settings of a live session and its pipeline: buffers, threads and queues, each with its range.
//!
//! The values come from the configuration and are checked before the first call to Windows.

use crate::pipeline::THREADS_MAX;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::thread;

/// Maximum length of a session name in characters.
const NAME_LEN_MAX: usize = 128;
/// Size of a buffer in KB. Script block events have up to 40 KB, and an event never spans two buffers. ETW allows up to
/// 16 MB.
const BUFFER_KB: RangeInclusive<u32> = 64..=16 << 10;
/// Number of buffers of a session; 0 for the default.
const BUFFERS: RangeInclusive<u32> = 0..=4096;
/// Maximum memory of a session's buffers in KB. They are allocated from the nonpaged pool.
const SESSION_KB_MAX: u64 = 1 << 20;
/// Seconds after which ETW delivers a partly filled buffer.
const FLUSH_SECONDS: RangeInclusive<u32> = 1..=60;
/// Maximum number of events between the session and the matchers. Each may hold a buffer of 64 KB.
const QUEUE_EVENTS: RangeInclusive<usize> = 16..=8192;
/// Maximum number of payload bytes between the session and the matchers.
const QUEUE_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;
/// Percentage of the queue that can be reserved for warnings.
const WARNING_RESERVE_PERCENT: RangeInclusive<u8> = 0..=90;
/// Maximum of the default number of matcher threads, so that the sensor leaves processors to other programs.
const THREADS_AUTOMATIC_MAX: usize = 4;

/// A value outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {key} = {found}: expected {expected}")]
pub struct SettingError {
    /// Section and key, such as `session.buffer_kb`.
    pub key: &'static str,
    /// The value as it would appear in the configuration.
    pub found: String,
    /// The valid values.
    pub expected: String,
}

impl SettingError {
    /// Creates the error of `key`.
    pub fn new(key: &'static str, found: impl Display, expected: impl Into<String>) -> Self {
        Self { key, found: found.to_string(), expected: expected.into() }
    }
}

/// Checks that a number is within its range.
///
/// # Errors
///
/// A [`SettingError`] with both bounds.
pub(crate) fn in_range<T: PartialOrd + Display + Copy>(
    key: &'static str,
    found: T,
    range: &RangeInclusive<T>,
) -> Result<(), SettingError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(SettingError::new(key, found, format!("{} to {}", range.start(), range.end())))
}

/// The ETW session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate key")]
pub struct SessionSettings {
    /// Name of the session, unique on the machine: 1 to 128 characters without NUL and backslash.
    pub name: String,
    /// Size of a buffer in KB (1024 bytes): 64 to 16384.
    pub buffer_kb: u32,
    /// Minimum number of buffers, 0 to 4096; 0 for two per processor.
    pub min_buffers: u32,
    /// Maximum number of buffers, 0 to 4096; 0 lets ETW decide.
    pub max_buffers: u32,
    /// Seconds after which a partly filled buffer is delivered: 1 to 60.
    pub flush_seconds: u32,
    /// Each processor has separate buffers, so that writers do not wait for each other.
    pub per_processor: bool,
    /// The session keeps receiving events if another session on the same provider fails.
    pub independent: bool,
    /// Windows adds the user's SID to each event.
    pub user_sid: bool,
    /// Content that PowerShell passes to the antimalware scanner is searched as well.
    pub amsi: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            name: "etwsieve".into(),
            buffer_kb: 128,
            min_buffers: 0,
            max_buffers: 0,
            flush_seconds: 1,
            per_processor: true,
            independent: true,
            user_sid: true,
            amsi: false,
        }
    }
}

impl SessionSettings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value outside its range; numbers of buffers that contradict each other or exceed 1 GB.
    pub fn validate(&self) -> Result<(), SettingError> {
        let name_len = self.name.chars().count();
        if !(1..=NAME_LEN_MAX).contains(&name_len) || self.name.contains(['\0', '\\']) {
            let expected = format!("1 to {NAME_LEN_MAX} characters without NUL and backslash");
            return Err(SettingError::new("session.name", format_args!("{:?}", self.name), expected));
        }
        in_range("session.buffer_kb", self.buffer_kb, &BUFFER_KB)?;
        in_range("session.min_buffers", self.min_buffers, &BUFFERS)?;
        in_range("session.max_buffers", self.max_buffers, &BUFFERS)?;
        in_range("session.flush_seconds", self.flush_seconds, &FLUSH_SECONDS)?;
        let buffers_max = SESSION_KB_MAX / u64::from(self.buffer_kb);
        for (key, buffers) in
            [("session.min_buffers", self.min_buffers), ("session.max_buffers", self.max_buffers)]
        {
            if u64::from(buffers) > buffers_max {
                let expected = format!(
                    "at most {buffers_max}, because buffers of {} KB must not exceed {SESSION_KB_MAX} KB together",
                    self.buffer_kb
                );
                return Err(SettingError::new(key, buffers, expected));
            }
        }
        if self.max_buffers != 0 && self.max_buffers < self.min_buffers {
            let expected = format!("0, or at least session.min_buffers ({})", self.min_buffers);
            return Err(SettingError::new("session.max_buffers", self.max_buffers, expected));
        }
        Ok(())
    }
}

/// The pipeline between the session and the hits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineSettings {
    /// Number of matcher threads, 0 to 64; 0 for the default of [`matcher_threads`](Self::matcher_threads).
    pub threads: usize,
    /// Maximum number of events queued for the matchers: 16 to 8192.
    pub queue_events: usize,
    /// Maximum number of payload bytes queued for the matchers: 64 KiB to 1 GiB.
    pub queue_bytes: usize,
    /// Percentage of both limits that is reserved for events that PowerShell marks as warnings: 0 to 90.
    pub warning_reserve_percent: u8,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self { threads: 0, queue_events: 512, queue_bytes: 8 << 20, warning_reserve_percent: 25 }
    }
}

impl PipelineSettings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), SettingError> {
        in_range("pipeline.threads", self.threads, &(0..=THREADS_MAX))?;
        in_range("pipeline.queue_events", self.queue_events, &QUEUE_EVENTS)?;
        in_range("pipeline.queue_bytes", self.queue_bytes, &QUEUE_BYTES)?;
        in_range("pipeline.warning_reserve_percent", self.warning_reserve_percent, &WARNING_RESERVE_PERCENT)
    }

    /// Returns the number of matcher threads to start: `threads`, or if that is 0 a quarter of the processors, at least
    /// 1 and at most 4.
    pub fn matcher_threads(&self) -> usize {
        self.threads_on(thread::available_parallelism().map_or(1, usize::from))
    }

    fn threads_on(&self, processors: usize) -> usize {
        if self.threads == 0 { (processors / 4).clamp(1, THREADS_AUTOMATIC_MAX) } else { self.threads }
    }
}

#[cfg(test)]
mod tests {
    use super::{PipelineSettings, SessionSettings};

    #[test]
    fn defaults_are_valid() {
        assert_eq!(SessionSettings::default().validate(), Ok(()));
        assert_eq!(PipelineSettings::default().validate(), Ok(()));
    }

    #[test]
    fn session_settings_are_checked_against_their_ranges() {
        type Row = (&'static str, fn(&mut SessionSettings), Option<&'static str>);
        let rows: [Row; 16] = [
            ("longest name", |s| s.name = "é".repeat(128), None),
            ("no name", |s| s.name.clear(), Some("session.name")),
            ("name too long", |s| s.name = "x".repeat(129), Some("session.name")),
            ("NUL in the name", |s| s.name = "a\0b".into(), Some("session.name")),
            ("backslash in the name", |s| s.name = "a\\b".into(), Some("session.name")),
            ("smallest buffer", |s| s.buffer_kb = 64, None),
            ("buffer too small", |s| s.buffer_kb = 63, Some("session.buffer_kb")),
            ("no buffer", |s| s.buffer_kb = 0, Some("session.buffer_kb")),
            ("largest buffer", |s| s.buffer_kb = 16384, None),
            ("buffer too large", |s| s.buffer_kb = 16385, Some("session.buffer_kb")),
            ("too many buffers", |s| s.max_buffers = 4097, Some("session.max_buffers")),
            (
                "minimum above maximum",
                |s| (s.min_buffers, s.max_buffers) = (9, 8),
                Some("session.max_buffers"),
            ),
            ("maximum left to ETW", |s| (s.min_buffers, s.max_buffers) = (9, 0), None),
            ("1 GB", |s| (s.buffer_kb, s.max_buffers) = (16384, 64), None),
            ("beyond 1 GB", |s| (s.buffer_kb, s.min_buffers) = (16384, 65), Some("session.min_buffers")),
            ("never flushed", |s| s.flush_seconds = 0, Some("session.flush_seconds")),
        ];
        for (name, change, refused) in rows {
            let mut settings = SessionSettings::default();
            change(&mut settings);
            assert_eq!(settings.validate().err().map(|error| error.key), refused, "{name}");
        }
    }

    #[test]
    fn pipeline_settings_are_checked_against_their_ranges() {
        type Row = (&'static str, fn(&mut PipelineSettings), Option<&'static str>);
        let rows: [Row; 7] = [
            ("maximum of threads", |s| s.threads = 64, None),
            ("too many threads", |s| s.threads = 65, Some("pipeline.threads")),
            ("queue too short", |s| s.queue_events = 15, Some("pipeline.queue_events")),
            ("queue too long", |s| s.queue_events = 8193, Some("pipeline.queue_events")),
            ("too few bytes", |s| s.queue_bytes = 65535, Some("pipeline.queue_bytes")),
            ("largest reserve", |s| s.warning_reserve_percent = 90, None),
            (
                "everything reserved",
                |s| s.warning_reserve_percent = 100,
                Some("pipeline.warning_reserve_percent"),
            ),
        ];
        for (name, change, refused) in rows {
            let mut settings = PipelineSettings::default();
            change(&mut settings);
            assert_eq!(settings.validate().err().map(|error| error.key), refused, "{name}");
        }
    }

    #[test]
    fn errors_name_key_value_and_range() {
        let settings = SessionSettings { buffer_kb: 4, ..SessionSettings::default() };
        let text = settings.validate().unwrap_err().to_string();
        assert_eq!(text, "invalid value session.buffer_kb = 4: expected 64 to 16384");
    }

    #[test]
    fn the_default_of_threads_depends_on_the_processors() {
        let automatic = PipelineSettings::default();
        for (processors, threads) in [(1, 1), (4, 1), (8, 2), (15, 3), (16, 4), (128, 4)] {
            assert_eq!(automatic.threads_on(processors), threads, "{processors} processors");
        }
        assert_eq!(PipelineSettings { threads: 7, ..automatic }.threads_on(4), 7);
    }
}
