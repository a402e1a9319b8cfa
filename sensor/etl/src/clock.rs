//! Converts raw time stamps to FILETIME.

use etwsieve_event::FileTime;
use etwsieve_event::time::TICKS_PER_SECOND;
use std::fmt;

/// The clock of a session (`TRACE_LOGFILE_HEADER.ReservedFlags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockType {
    /// 1: the query performance counter.
    PerformanceCounter,
    /// 2: system time; raw time stamps are FILETIMEs.
    SystemTime,
    /// 3: CPU cycles.
    CpuCycles,
    /// Any other value. Converted like the performance counter.
    Other(u32),
}

impl ClockType {
    pub(crate) fn new(value: u32) -> Self {
        match value {
            1 => Self::PerformanceCounter,
            2 => Self::SystemTime,
            3 => Self::CpuCycles,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ClockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerformanceCounter => f.write_str("performance counter"),
            Self::SystemTime => f.write_str("system time"),
            Self::CpuCycles => f.write_str("CPU cycles"),
            Self::Other(value) => write!(f, "clock {value}"),
        }
    }
}

/// Converts raw time stamps of one trace.
///
/// `time = start + floor((raw - raw_start) * 10^7 / hz)`, where `raw_start` is the time stamp of the log file header's
/// own event. Monotonic: a larger raw time stamp never gives an earlier time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Type of the clock.
    pub kind: ClockType,
    /// Ticks per second; 0 if the trace does not state it, and then every event has the time of the start.
    pub hz: u64,
    /// Start of the trace.
    pub start: FileTime,
    /// Raw time stamp of the start.
    pub raw_start: i64,
}

impl Clock {
    /// Converts a raw time stamp to 100 ns ticks, rounded down and clamped to the range of [`FileTime`].
    pub fn file_time(&self, raw: i64) -> FileTime {
        if self.kind == ClockType::SystemTime {
            return FileTime(raw.max(0) as u64);
        }
        let ticks = match self.hz {
            0 => 0,
            TICKS_PER_SECOND => i128::from(raw) - i128::from(self.raw_start),
            hz => self.short_ticks(raw, hz).unwrap_or_else(|| {
                let since = i128::from(raw) - i128::from(self.raw_start);
                (since * i128::from(TICKS_PER_SECOND)).div_euclid(i128::from(hz))
            }),
        };
        let time = i128::from(self.start.0) + ticks;
        FileTime(time.clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// Computes the ticks since the start in 64 bits, which is several times faster; `None` on overflow, after days.
    fn short_ticks(&self, raw: i64, hz: u64) -> Option<i128> {
        let product = raw.checked_sub(self.raw_start)?.checked_mul(TICKS_PER_SECOND as i64)?;
        Some(i128::from(product.div_euclid(i64::try_from(hz).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, ClockType};
    use crate::FileTime;
    use proptest::prelude::*;

    fn clock(kind: ClockType, hz: u64) -> Clock {
        Clock { kind, hz, start: FileTime(1_000), raw_start: 50 }
    }

    #[test]
    fn known_time_stamps_are_converted() {
        use ClockType::{CpuCycles, Other, PerformanceCounter, SystemTime};
        let rows = [
            ("start", PerformanceCounter, 10_000_000, 50, 1_000),
            ("one tick", PerformanceCounter, 10_000_000, 51, 1_001),
            ("rounds down", PerformanceCounter, 30_000_000, 52, 1_000),
            ("rounds down before the start too", PerformanceCounter, 30_000_000, 49, 999),
            ("slow clock", CpuCycles, 1, 51, 10_001_000),
            ("no frequency", PerformanceCounter, 0, i64::MAX, 1_000),
            ("system time", SystemTime, 10_000_000, 77, 77),
            ("negative system time", SystemTime, 10_000_000, -1, 0),
            ("far future", PerformanceCounter, 1, i64::MAX, u64::MAX),
            ("far past", Other(9), 1, i64::MIN, 0),
            ("frequency beyond i64", PerformanceCounter, u64::MAX, i64::MAX, 1_000 + 4_999_999),
        ];
        for (name, kind, hz, raw, want) in rows {
            assert_eq!(clock(kind, hz).file_time(raw), FileTime(want), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn conversion_equals_wide_arithmetic_and_is_monotonic(
            start in any::<u64>(), raw_start in any::<i64>(), hz in 1u64.., a in any::<i64>(), b in any::<i64>()
        ) {
            let clock = Clock { kind: ClockType::PerformanceCounter, hz, start: FileTime(start), raw_start };
            let since = i128::from(a) - i128::from(raw_start);
            let wide = i128::from(start) + (since * 10_000_000).div_euclid(i128::from(hz));
            prop_assert_eq!(i128::from(clock.file_time(a).0), wide.clamp(0, i128::from(u64::MAX)));
            prop_assert!(clock.file_time(a.min(b)) <= clock.file_time(a.max(b)));
        }
    }
}
