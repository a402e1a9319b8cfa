//! Conversion of text and GUIDs from and to the types of Windows.

use uuid::Uuid;
use windows_sys::core::{GUID, PCWSTR};

/// Maximum length of a name or path in units.
const UNITS_MAX: usize = 1024;

/// Reads text up to its NUL; `None` for a null pointer, or without a NUL within 1,024 units.
///
/// # Safety
///
/// `text` is null or addresses a NUL-terminated string.
pub(crate) unsafe fn text(text: PCWSTR) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let mut units = Vec::new();
    for n in 0..UNITS_MAX {
        // SAFETY: the caller guarantees a final NUL, and there is none before `n`.
        let unit = unsafe { text.add(n).read_unaligned() };
        if unit == 0 {
            return Some(String::from_utf16_lossy(&units));
        }
        units.push(unit);
    }
    None
}

/// Converts a GUID from the type of Windows.
pub(crate) fn uuid(guid: &GUID) -> Uuid {
    Uuid::from_fields(guid.data1, guid.data2, guid.data3, &guid.data4)
}

/// Converts a GUID to the type of Windows.
pub(crate) fn guid(uuid: &Uuid) -> GUID {
    let (data1, data2, data3, data4) = uuid.as_fields();
    GUID { data1, data2, data3, data4: *data4 }
}

/// Parses a GUID; nil if the text is not a GUID.
pub(crate) fn guid_of(text: &str) -> GUID {
    guid(&Uuid::parse_str(text).unwrap_or_default())
}
