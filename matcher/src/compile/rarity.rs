//! How rare a needle is in script text, estimated from its characters.
//!
//! Only the order matters: between two clauses the rarer one makes the better gate.

/// Longest part of a needle that counts: beyond it no needle is common.
const LEN_COUNTED: usize = 16;

/// Bits for the dash of a cmdlet's name.
const DASH_IN_NAME_BITS: f64 = 12.0;

/// Estimated information of `needle` (folded ASCII) in bits: it stands at a given place of a text with a
/// likelihood of about 2 to the minus this.
pub(crate) fn bits(needle: &[u8]) -> f64 {
    let mut previous = None;
    let mut sum = 0.0;
    for &byte in needle.iter().take(LEN_COUNTED) {
        // A run of one character, as in rulers and indents, tells little after its first.
        sum += match (previous, byte) {
            (Some(before), _) if before == byte => 0.5,
            // Inside a word a dash makes it the name of one cmdlet; in front, a parameter that many have.
            (Some(b'a'..=b'z'), b'-') => DASH_IN_NAME_BITS,
            _ => byte_bits(byte),
        };
        previous = Some(byte);
    }
    sum
}

fn byte_bits(byte: u8) -> f64 {
    match byte {
        b' ' => 1.5,
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 2.5,
        b'l' | b'd' | b'c' | b'u' | b'm' | b'p' => 3.5,
        b'\r' | b'\n' | b'$' | b'-' | b'.' | b'"' | b'\'' | b'(' | b')' | b'=' => 4.0,
        b'a'..=b'z' => 4.5,
        b'0'..=b'9' => 5.0,
        _ => 5.5,
    }
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn rarer_needles_have_more_bits() {
        let rows = [
            ("enter-pssession", "-computername"),
            ("function", "$"),
            ("invoke-x", "--------------------"),
            ("ab", "a"),
        ];
        for (rare, common) in rows {
            assert!(bits(rare.as_bytes()) > bits(common.as_bytes()), "{rare} {common}");
        }
    }
}
