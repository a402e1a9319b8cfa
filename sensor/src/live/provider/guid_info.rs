//! Parses the answer of `EnumerateTraceGuidsEx` about one provider, and checks every offset and count in it.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// The parameters with which a session has enabled a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnabledSession {
    /// Number of the session while it runs.
    pub logger_id: u16,
    /// Maximum level; 0 and 255 mean all.
    pub level: u8,
    /// Events that have keywords need at least one of these; 0 means all events.
    pub any_keyword: u64,
    /// Events that have keywords also need all of these.
    pub all_keyword: u64,
    /// `EVENT_ENABLE_PROPERTY_…` flags, such as 1 for the user's SID.
    pub enable_property: u32,
}

/// The processes and sessions of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderState {
    /// Ids of the processes that registered it, ascending, without duplicates.
    pub registered_processes: Vec<u32>,
    /// Sessions that enabled it, by number. If processes report different values, the last one counts.
    pub sessions: Vec<EnabledSession>,
}

/// Why an answer to `TraceGuidQueryInfo` is invalid.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GuidInfoError {
    /// A structure extends beyond the end.
    #[error("expected {expected} bytes at offset {offset}, found {found}")]
    Truncated {
        /// Offset of the structure.
        offset: usize,
        /// Its size in bytes.
        expected: usize,
        /// Bytes left in the answer.
        found: usize,
    },
    /// The next instance would begin within this one.
    #[error(
        "the instance at offset {offset} has {len} bytes, but the next instance would start {next} bytes after its start"
    )]
    Overlap {
        /// Offset of the instance.
        offset: usize,
        /// Its size in bytes.
        len: usize,
        /// Distance to the next instance in bytes, as stored.
        next: usize,
    },
    /// The chain has fewer instances than the header states.
    #[error("expected {expected} instances, found {found}")]
    Missing {
        /// Number in the header.
        expected: usize,
        /// Number in the chain.
        found: usize,
    },
}

/// Parses the answer of `EnumerateTraceGuidsEx` to `TraceGuidQueryInfo`. All numbers are little-endian.
///
/// | structure | offset | field |
/// |---|---|---|
/// | `TRACE_GUID_INFO`, 8 bytes | 0 | u32 number of instances |
/// | `TRACE_PROVIDER_INSTANCE_INFO`, 16 bytes | 0 | u32 distance to the next instance, 0: last |
/// | | 4 | u32 number of enable infos that follow |
/// | | 8 | u32 process id |
/// | | 12 | u32 flags: 2 = enabled before any process registered |
/// | `TRACE_ENABLE_INFO`, 32 bytes | 0 | u32 0 = not enabled |
/// | | 4 | u8 level |
/// | | 6 | u16 logger id |
/// | | 8 | u32 enable property |
/// | | 16, 24 | u64 any keyword, u64 all keyword |
///
/// Source: `evntrace.h`; the pages of `TRACE_GUID_INFO` and of the other structures in the Windows documentation.
///
/// # Errors
///
/// [`GuidInfoError`] if a structure extends beyond the end, if instances overlap, or if there are fewer than stated.
/// Every step moves forward, so the loop ends.
pub fn parse_guid_info(answer: &[u8]) -> Result<ProviderState, GuidInfoError> {
    const HEAD_LEN: usize = 8;
    const INSTANCE_LEN: usize = 16;
    const ENABLE_LEN: usize = 32;
    const FLAG_PRE_ENABLE: u32 = 2;

    let [count, _] = words(answer, 0)?;
    let announced = count as usize;
    let (mut processes, mut sessions) = (BTreeSet::new(), BTreeMap::new());
    let mut offset = HEAD_LEN;
    for index in 0..announced {
        let [next, enables, process, flags] = words(answer, offset)?;
        if flags & FLAG_PRE_ENABLE == 0 {
            processes.insert(process);
        }
        let (next, enables) = (next as usize, enables as usize);
        let len = INSTANCE_LEN.saturating_add(enables.saturating_mul(ENABLE_LEN));
        let found = answer.len() - offset;
        if len > found {
            return Err(GuidInfoError::Truncated { offset, expected: len, found });
        }
        for enable in 0..enables {
            let start = offset + INSTANCE_LEN + enable * ENABLE_LEN;
            let [is_on, packed, property, _, any_low, any_high, all_low, all_high] = words(answer, start)?;
            let [level, _, id_low, id_high] = packed.to_le_bytes();
            let session = EnabledSession {
                logger_id: u16::from_le_bytes([id_low, id_high]),
                level,
                any_keyword: u64::from(any_high) << 32 | u64::from(any_low),
                all_keyword: u64::from(all_high) << 32 | u64::from(all_low),
                enable_property: property,
            };
            if is_on != 0 {
                sessions.insert(session.logger_id, session);
            }
        }
        if next == 0 {
            if index + 1 < announced {
                return Err(GuidInfoError::Missing { expected: announced, found: index + 1 });
            }
            break;
        }
        if next < len {
            return Err(GuidInfoError::Overlap { offset, len, next });
        }
        offset = offset.saturating_add(next);
    }
    Ok(ProviderState {
        registered_processes: processes.into_iter().collect(),
        sessions: sessions.into_values().collect(),
    })
}

/// Reads `N` numbers at `offset`.
fn words<const N: usize>(answer: &[u8], offset: usize) -> Result<[u32; N], GuidInfoError> {
    let rest = answer.get(offset..).unwrap_or_default();
    let Some(bytes) = rest.get(..4 * N) else {
        return Err(GuidInfoError::Truncated { offset, expected: 4 * N, found: rest.len() });
    };
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(count: u32) -> Vec<u8> {
        [count, 0].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn instance(next: u32, enables: u32, process: u32, flags: u32) -> Vec<u8> {
        [next, enables, process, flags].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn enable(enabled: u32, level: u8, logger: u16, any: u64) -> Vec<u8> {
        let mut out = enabled.to_le_bytes().to_vec();
        out.extend([level, 0]);
        out.extend(logger.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(any.to_le_bytes());
        out.extend(2_u64.to_le_bytes());
        out
    }

    fn session(logger_id: u16, level: u8, any_keyword: u64) -> EnabledSession {
        EnabledSession { logger_id, level, any_keyword, all_keyword: 2, enable_property: 1 }
    }

    type Row<'a> = (&'a str, Vec<Vec<u8>>, &'a [u32], Vec<EnabledSession>);

    #[test]
    fn answers_are_parsed_and_deduplicated() {
        let rows: [Row<'_>; 5] = [
            ("no instance", vec![head(0)], &[], vec![]),
            ("registered only", vec![head(1), instance(0, 0, 40, 0)], &[40], vec![]),
            (
                "two processes, the same session",
                vec![
                    head(2),
                    instance(48, 1, 40, 0),
                    enable(1, 5, 7, 1 << 63),
                    instance(0, 2, 12, 0),
                    enable(1, 5, 7, 1 << 63),
                    enable(0, 3, 9, 0),
                ],
                &[12, 40],
                vec![session(7, 5, 1 << 63)],
            ),
            (
                "enabled before registered",
                vec![head(1), instance(0, 1, 0, 2), enable(1, 255, 300, 4)],
                &[],
                vec![session(300, 255, 4)],
            ),
            (
                "a gap between two instances",
                vec![head(2), instance(24, 0, 1, 0), vec![0; 8], instance(0, 0, 2, 0)],
                &[1, 2],
                vec![],
            ),
        ];
        for (name, parts, processes, sessions) in rows {
            let state = parse_guid_info(&parts.concat()).unwrap();
            assert_eq!(state.registered_processes, processes, "{name}");
            assert_eq!(state.sessions, sessions, "{name}");
        }
    }

    #[test]
    fn invalid_answers_are_rejected() {
        use GuidInfoError::{Missing, Overlap, Truncated};
        let rows: [(&str, Vec<Vec<u8>>, GuidInfoError); 7] = [
            ("empty", vec![], Truncated { offset: 0, expected: 8, found: 0 }),
            ("head only", vec![head(1)], Truncated { offset: 8, expected: 16, found: 0 }),
            ("loops on itself", vec![head(9), instance(1, 0, 1, 0)], Overlap { offset: 8, len: 16, next: 1 }),
            (
                "next within the enable infos",
                vec![head(2), instance(16, 1, 1, 0), enable(1, 1, 1, 1)],
                Overlap { offset: 8, len: 48, next: 16 },
            ),
            (
                "four billion enable infos",
                vec![head(1), instance(0, u32::MAX, 1, 0)],
                Truncated { offset: 8, expected: 16 + 32 * (u32::MAX as usize), found: 16 },
            ),
            (
                "next beyond the end",
                vec![head(2), instance(u32::MAX, 0, 1, 0)],
                Truncated { offset: 8 + u32::MAX as usize, expected: 16, found: 0 },
            ),
            (
                "four billion instances",
                vec![head(u32::MAX), instance(0, 0, 1, 0)],
                Missing { expected: u32::MAX as usize, found: 1 },
            ),
        ];
        for (name, parts, expected) in rows {
            assert_eq!(parse_guid_info(&parts.concat()), Err(expected), "{name}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole =
            [head(2), instance(48, 1, 40, 0), enable(1, 5, 7, 1), instance(0, 1, 1, 0), enable(1, 5, 8, 1)];
        let whole = whole.concat();
        assert!(parse_guid_info(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(parse_guid_info(&whole[..len]).is_err(), "{len} bytes");
        }
    }
}
