//! Content that was submitted to the antimalware scanner, in the layout that the matcher searches.
//!
//! In event 1101 the content is a counted binary value that follows two strings of variable length, so it may start at
//! an odd offset, and it may contain U+0000. The matcher searches text at even offsets only. The sensor, which decodes
//! the event, therefore copies content and name into this layout first:
//!
//! | offset | | |
//! |---|---|---|
//! | 0 | u32 | length of the content in UTF-16 units |
//! | 4 | u32 | length of its name in UTF-16 units |
//! | 8 | UTF-16LE | the content, then U+0000 |
//! | | UTF-16LE | its name, then U+0000 |
//! | | bytes | anything else that the caller wants to keep; not searched |

use std::ops::Range;

/// Offset of the content, in bytes.
pub(crate) const HEADER_LEN: usize = 8;

/// Appends content and name, both UTF-16LE, to `out` in the layout above. An odd last byte of either is dropped.
///
/// # Panics
///
/// Panics if one of them has 2^32 units or more; events are far shorter.
pub fn lay_out(content: &[u8], name: &[u8], out: &mut Vec<u8>) {
    for text in [content, name] {
        let units = u32::try_from(text.len() / 2).expect("an event has at most 64 KiB");
        out.extend_from_slice(&units.to_le_bytes());
    }
    for text in [content, name] {
        out.extend_from_slice(text.as_chunks::<2>().0.as_flattened());
        out.extend_from_slice(&[0, 0]);
    }
}

/// Replaces the length of the content, in units, in a header.
pub(crate) fn set_content_len(header: &mut [u8], units: usize) {
    if let Some(len) = header.first_chunk_mut() {
        *len = u32::try_from(units).unwrap_or(u32::MAX).to_le_bytes();
    }
}

/// Returns the bytes that follow content and name; empty if the payload is truncated.
pub fn rest(payload: &[u8]) -> &[u8] {
    payload.get(HEADER_LEN + 2 * searched(payload).len()..).unwrap_or_default()
}

/// Returns the ranges of content and name, in units from the end of the header. A length that exceeds the payload is
/// clamped.
pub(crate) fn ranges(payload: &[u8]) -> [Option<Range<usize>>; 2] {
    let Some((header, text)) = payload.split_first_chunk::<HEADER_LEN>() else { return [None, None] };
    let [content, name] = [0, 4].map(|at| {
        let len = header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        usize::try_from(len).unwrap_or(usize::MAX)
    });
    let units = text.len() / 2;
    let end = content.min(units);
    if end == units {
        return [Some(0..end), None];
    }
    // Skips the U+0000 that ends the content.
    let start = end + 1;
    [Some(0..end), Some(start..start + name.min(units - start))]
}

/// Returns the units of content and name, each with its U+0000.
pub(crate) fn searched(payload: &[u8]) -> &[[u8; 2]] {
    let units = payload.get(HEADER_LEN..).unwrap_or_default().as_chunks::<2>().0;
    let end = ranges(payload).into_iter().flatten().map(|range| range.end + 1).max().unwrap_or(0);
    &units[..end.min(units.len())]
}

#[cfg(test)]
mod tests {
    use super::{lay_out, ranges, rest, searched};
    use crate::field::{EventKind, Field, Fields};

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn fields_are_located_in_the_layout() {
        let rows = [
            ("both", "Get-Alias", r"C:\a.ps1"),
            ("no name", "$global:?", ""),
            ("NUL in the content", "a\0b\0", "n"),
            ("nothing", "", ""),
        ];
        for (row, content, name) in rows {
            let mut bytes = Vec::new();
            lay_out(&wide(content), &wide(name), &mut bytes);
            bytes.extend(b"rest");
            let fields = Fields::split(EventKind::Amsi, &bytes);
            assert_eq!(fields.text(Field::ScriptBlockText), Some(&wide(content)[..]), "{row}");
            assert_eq!(fields.text(Field::Path), Some(&wide(name)[..]), "{row}");
            assert_eq!(fields.text(Field::ScriptBlockId), None, "{row}");
            assert_eq!(fields.number(Field::MessageNumber), None, "{row}");
            assert_eq!(fields.number(Field::EventId), Some(1101), "{row}");
            assert_eq!(rest(&bytes), b"rest", "{row}");
        }
    }

    #[test]
    fn wrong_lengths_are_clamped() {
        let mut good = Vec::new();
        lay_out(&wide("abc"), &wide("de"), &mut good);
        for len in 0..good.len() {
            let fields = Fields::split(EventKind::Amsi, &good[..len]);
            assert_eq!(fields.text(Field::ScriptBlockText).is_some(), len >= 8, "{len}");
            assert!(searched(&good[..len]).len() <= len / 2);
        }
        for lie in [1u32, 3, 4, 5, 6, 7, 1 << 31, u32::MAX] {
            for at in [0, 4] {
                let mut bytes = good.clone();
                bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                let mut end = 0;
                for range in ranges(&bytes).into_iter().flatten() {
                    assert!(range.start >= end && 8 + 2 * range.end <= bytes.len(), "{lie} at {at}");
                    end = range.end;
                }
            }
        }
    }
}
