//! Extended data items, which a session adds to an event.
//!
//! If bit 0 of the event's flags is set, the items are between header and payload. An item: `u16` size, `u16` type,
//! `u16` linkage (bit 0: another item follows), `u16` data size, data. The size is that of the whole item, rounded up
//! to a multiple of 8. Source: `EVENT_HEADER_EXTENDED_DATA_ITEM` in `evntcons.h`; recorded traces.

use crate::bytes::u16_at;
use crate::damage::DamageKind;
use crate::decode::Fault;

/// Types of extended items (`EVENT_HEADER_EXT_TYPE_*`).
pub mod item_type {
    /// A GUID: the related activity.
    pub const RELATED_ACTIVITY_ID: u16 = 1;
    /// A SID: the user of the event.
    pub const SID: u16 = 2;
    /// `u32`: terminal services session.
    pub const TERMINAL_SESSION: u16 = 3;
    /// Stack of 32-bit addresses after a `u64` match id.
    pub const STACK_32: u16 = 5;
    /// Stack of 64-bit addresses after a `u64` match id.
    pub const STACK_64: u16 = 6;
    /// TraceLogging: schema of the event.
    pub const SCHEMA: u16 = 11;
    /// TraceLogging: name and traits of the provider.
    pub const PROVIDER_TRAITS: u16 = 12;
    /// `u64`: unique key of the process.
    pub const PROCESS_START_KEY: u16 = 13;
}

const ITEM_HEADER_LEN: usize = 8;

/// An extended data item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedItem<'a> {
    /// Type of the item, see [`item_type`].
    pub kind: u16,
    /// The data without padding.
    pub data: &'a [u8],
}

/// The items of an event in stored order.
#[derive(Clone, Debug, Default)]
pub struct ExtendedItems<'a> {
    /// Items that [`items_len`] has checked, and nothing after them.
    bytes: &'a [u8],
}

impl<'a> ExtendedItems<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for ExtendedItems<'a> {
    type Item = ExtendedItem<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = item(self.bytes).ok()?;
        self.bytes = self.bytes.get(item.size..).unwrap_or_default();
        Some(ExtendedItem { kind: item.kind, data: item.data })
    }
}

struct Item<'a> {
    size: usize,
    kind: u16,
    is_last: bool,
    data: &'a [u8],
}

/// Reads the item at the start of `bytes`, which end with the event.
fn item(bytes: &[u8]) -> Result<Item<'_>, Fault> {
    let fault = |expected: usize, found: usize| Fault {
        kind: DamageKind::ExtendedItem,
        expected: expected as u64,
        found: found as u64,
    };
    let (Some(size), Some(kind), Some(linkage), Some(data_len)) =
        (u16_at(bytes, 0), u16_at(bytes, 2), u16_at(bytes, 4), u16_at(bytes, 6))
    else {
        return Err(fault(ITEM_HEADER_LEN, bytes.len()));
    };
    let (size, data_len) = (usize::from(size), usize::from(data_len));
    if size < ITEM_HEADER_LEN + data_len {
        return Err(fault(ITEM_HEADER_LEN + data_len, size));
    }
    match bytes.get(ITEM_HEADER_LEN..ITEM_HEADER_LEN + data_len) {
        Some(data) if size <= bytes.len() => Ok(Item { size, kind, is_last: linkage & 1 == 0, data }),
        _ => Err(fault(bytes.len(), size)),
    }
}

/// Returns the total length of the items at the start of `bytes`, which end with the event.
pub(crate) fn items_len(bytes: &[u8]) -> Result<usize, Fault> {
    let mut len = 0;
    loop {
        let item = item(bytes.get(len..).unwrap_or_default())?;
        len += item.size;
        if item.is_last {
            return Ok(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtendedItem, ExtendedItems, items_len};

    #[test]
    fn iteration_stops_after_the_last_item() {
        let bytes = [
            16, 0, 2, 0, 1, 0, 3, 0, b'a', b'b', b'c', 9, 9, 9, 9, 9, // padded
            8, 0, 13, 0, 0, 0, 0, 0, // empty and last
            77, 0, // payload
        ];
        assert_eq!(items_len(&bytes).unwrap(), 24);
        let items: Vec<_> = ExtendedItems::new(&bytes[..24]).collect();
        assert_eq!(items, [ExtendedItem { kind: 2, data: b"abc" }, ExtendedItem { kind: 13, data: b"" }]);
    }

    #[test]
    fn items_with_wrong_sizes_are_rejected() {
        let rows: [(&str, &[u8]); 5] = [
            ("nothing", &[]),
            ("smaller than its header", &[7, 0, 1, 0, 0, 0, 0, 0]),
            ("smaller than its data", &[8, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
            ("larger than the event", &[24, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
            ("next one is missing", &[8, 0, 1, 0, 1, 0, 0, 0]),
        ];
        for (name, bytes) in rows {
            assert!(items_len(bytes).is_err(), "{name}");
        }
    }
}
