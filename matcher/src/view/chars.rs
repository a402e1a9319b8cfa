//! Character classes of PowerShell.
//!
//! Source: PowerShell/PowerShell, `src/System.Management.Automation/engine/parser/CharTraits.cs` (`SpecialChars`,
//! `IsDash`, `IsSingleQuote`, `IsDoubleQuote`, `IsWhitespace`, `ForceStartNewToken`) and `tokenizer.cs` (`Backtick`,
//! `ScanUnicodeEscape`). Full-width letters and other look-alikes are in none of these classes: PowerShell takes them
//! literally, and so do the views.

pub(super) const BACKTICK: u16 = b'`' as u16;
pub(super) const BLANK: u16 = b' ' as u16;
pub(super) const DASH: u16 = b'-' as u16;
pub(super) const SINGLE: u16 = b'\'' as u16;
pub(super) const DOUBLE: u16 = b'"' as u16;

/// Returns true for hyphen, en dash, em dash and horizontal bar.
pub(super) fn is_dash(unit: u16) -> bool {
    matches!(unit, DASH | 0x2013..=0x2015)
}

pub(super) fn is_single_quote(unit: u16) -> bool {
    matches!(unit, SINGLE | 0x2018..=0x201B)
}

/// Returns true for a double quotation mark. U+201F is not one.
pub(super) fn is_double_quote(unit: u16) -> bool {
    matches!(unit, DOUBLE | 0x201C..=0x201E)
}

pub(super) fn is_newline(unit: u16) -> bool {
    matches!(unit, 0x0A | 0x0D)
}

/// Returns true for whitespace other than newlines. Above U+0100 these are the separators of Unicode (categories Zs, Zl
/// and Zp).
pub(super) fn is_whitespace(unit: u16) -> bool {
    if unit < 0x80 {
        return matches!(unit, BLANK | 0x09 | 0x0B | 0x0C);
    }
    matches!(unit, 0x85 | 0xA0 | 0x1680 | 0x2000..=0x200A | 0x2028 | 0x2029 | 0x202F | 0x205F | 0x3000)
}

/// Returns true if the unit ends any token before it.
pub(super) fn ends_token(unit: u16) -> bool {
    match u8::try_from(unit) {
        Ok(b'\0' | b'&' | b'(' | b')' | b',' | b';' | b'{' | b'|' | b'}') => true,
        _ => is_whitespace(unit) || is_newline(unit),
    }
}

/// Returns true for ASCII letters, digits and underscore.
pub(super) fn is_word(unit: u16) -> bool {
    WORD.get(usize::from(unit)).is_some_and(|is_word| *is_word)
}

/// A table, because nearly every unit of a text is tested.
static WORD: [bool; 128] = {
    let mut table = [false; 128];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        byte += 1;
    }
    table
};

/// Returns the meaning of a backtick followed by this unit where backticks escape. `u{…}` is read by
/// [`unicode_escape`].
pub(super) fn escaped(unit: u16) -> u16 {
    match u8::try_from(unit) {
        Ok(b'0') => 0,
        Ok(b'a') => 7,
        Ok(b'b') => 8,
        Ok(b'e') => 0x1B,
        Ok(b'f') => 0x0C,
        Ok(b'n') => 0x0A,
        Ok(b'r') => 0x0D,
        Ok(b't') => 0x09,
        Ok(b'v') => 0x0B,
        _ => unit,
    }
}

/// Reads `u{…}`, with one to six hexadecimal digits, from the beginning of `units`. Returns the character and the
/// number of units read. PowerShell 6 and later.
pub(super) fn unicode_escape(units: &[u16]) -> Option<(char, usize)> {
    let rest = units.strip_prefix(&[u16::from(b'u'), u16::from(b'{')])?;
    let digits = rest.iter().take(7).take_while(|unit| hex_digit(**unit).is_some()).count();
    if !(1..=6).contains(&digits) || rest.get(digits) != Some(&u16::from(b'}')) {
        return None;
    }
    let value = rest[..digits].iter().fold(0, |value, unit| value << 4 | hex_digit(*unit).unwrap_or(0));
    Some((char::from_u32(value)?, digits + 3))
}

pub(super) fn hex_digit(unit: u16) -> Option<u32> {
    char::from_u32(u32::from(unit))?.to_digit(16)
}

/// Returns an ASCII letter in lower case, and any other unit unchanged.
pub(super) fn lower(unit: u16) -> u16 {
    crate::pattern::fold(unit)
}

/// Returns true if `units` begins with the word, ignoring case; `word` is in lower case.
pub(super) fn starts_with(units: &[u16], word: &str) -> bool {
    units.len() >= word.len() && word.bytes().zip(units).all(|(byte, unit)| u16::from(byte) == lower(*unit))
}

/// Returns true if `units` is the word, ignoring case; `word` is in lower case.
pub(super) fn is(units: &[u16], word: &str) -> bool {
    units.len() == word.len() && starts_with(units, word)
}

#[cfg(test)]
mod tests {
    use super::{is_dash, is_double_quote, is_single_quote, is_whitespace, unicode_escape};

    fn members(class: fn(u16) -> bool) -> Vec<u16> {
        (0..=u16::MAX).filter(|unit| class(*unit)).collect()
    }

    #[test]
    fn classes_are_those_of_the_tokenizer() {
        assert_eq!(members(is_dash), [0x2D, 0x2013, 0x2014, 0x2015]);
        assert_eq!(members(is_single_quote), [0x27, 0x2018, 0x2019, 0x201A, 0x201B]);
        assert_eq!(members(is_double_quote), [0x22, 0x201C, 0x201D, 0x201E]);
        let separators = (0..=u16::MAX).filter(|unit| {
            char::from_u32(u32::from(*unit)).is_some_and(char::is_whitespace) && !matches!(unit, 0x0A | 0x0D)
        });
        assert_eq!(members(is_whitespace), separators.collect::<Vec<_>>());
    }

    #[test]
    fn unicode_escapes() {
        let read = |text: &str| unicode_escape(&text.encode_utf16().collect::<Vec<_>>());
        assert_eq!(read("u{45}x"), Some(('E', 5)));
        assert_eq!(read("u{1F600}"), Some(('\u{1F600}', 8 + 1 - 1)));
        for text in ["u{}", "u{D800}", "u{1234567}", "u{12", "u45", "", "u{g}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
