//! Strings of Windows: NUL-terminated UTF-16.

/// `text` with a NUL behind it; cut at a NUL of its own.
pub fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().take_while(|unit| *unit != 0).chain([0]).collect()
}

/// The text before the first NUL; lone surrogates become U+FFFD.
pub fn text(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}
