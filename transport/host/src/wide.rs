//! NUL-terminated UTF-16 strings of Windows.

/// Converts `text` to UTF-16 and appends a NUL. The text is truncated at its first NUL.
pub fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().take_while(|unit| *unit != 0).chain([0]).collect()
}

/// Converts the units before the first NUL to text; lone surrogates become U+FFFD.
pub fn text(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}
