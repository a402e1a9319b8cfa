//! XPRESS: plain LZ77 (`COMPRESSION_FORMAT_XPRESS`, 3).
//!
//! A `u32` of flags, highest bit first, describes 32 items: 0 is a literal byte, 1 a match. A match is a `u16` with 13
//! bits distance - 1 and 3 bits length - 3. A length of 7 continues in a half-byte, of which two matches share a byte.
//! The value 15 there continues in a byte, 255 there in a `u16` with the whole length, 0 there in a `u32` with the
//! whole length.
//!
//! Source: MS-XCA, section 2.4.

use crate::lz::{Decoded, End, Input, Output};

const LENGTH_MIN: u32 = 3;
const LENGTH_IN_WORD_MAX: u32 = 7;
const LENGTH_IN_HALF_MAX: u32 = 15;

/// Decompresses until `output` is full or `input` ends.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Decoded {
    let (mut input, mut output) = (Input::new(input), Output::new(output));
    let end = items(&mut input, &mut output).unwrap_or(End::InputEnded);
    Decoded { written: output.at, read: input.at, end }
}

/// Decodes items. Returns `None` if the input ends.
fn items(input: &mut Input<'_>, output: &mut Output<'_>) -> Option<End> {
    // The upper half of a byte whose lower half a match has used.
    let mut half = None;
    while !output.is_full() {
        let mut flags = input.u32()?;
        let mut left = u32::BITS;
        while left > 0 {
            let run = flags.leading_zeros().min(left);
            if run > 0 {
                let wanted = output.room().min(run as usize);
                let literals = input.take_up_to(wanted);
                output.literals(literals);
                left -= literals.len() as u32;
                if output.is_full() {
                    break;
                }
                if literals.len() < wanted {
                    return None;
                }
                if left == 0 {
                    break;
                }
                flags <<= run;
            }
            let word = u32::from(input.u16()?);
            let distance = (word >> 3) as usize + 1;
            let len = length(word & LENGTH_IN_WORD_MAX, input, &mut half)?;
            if len < LENGTH_MIN.into() || !output.repeat(distance, usize::try_from(len).unwrap_or(usize::MAX))
            {
                return Some(End::Invalid);
            }
            left -= 1;
            if output.is_full() {
                break;
            }
            flags <<= 1;
        }
        if output.is_full() && left == 0 {
            // The encoder of Windows writes the next flags as soon as these are used up.
            let _ = input.u32();
        }
    }
    Some(End::Full)
}

/// Reads the length of a match. Returns 0, which is not valid, for a length below its own prefix, and `None` if the
/// input ends.
fn length(in_word: u32, input: &mut Input<'_>, half: &mut Option<u8>) -> Option<u64> {
    let mut len = in_word;
    if len == LENGTH_IN_WORD_MAX {
        let in_half = if let Some(upper) = half.take() {
            upper
        } else {
            let byte = input.u8()?;
            *half = Some(byte >> 4);
            byte & 0x0f
        };
        len += u32::from(in_half);
        if u32::from(in_half) == LENGTH_IN_HALF_MAX {
            let byte = input.u8()?;
            len += u32::from(byte);
            if byte == u8::MAX {
                let whole = match input.u16()? {
                    0 => input.u32()?,
                    word => u32::from(word),
                };
                if whole < LENGTH_IN_WORD_MAX + LENGTH_IN_HALF_MAX {
                    return Some(0);
                }
                len = whole;
            }
        }
    }
    Some(u64::from(len) + u64::from(LENGTH_MIN))
}

#[cfg(test)]
mod tests {
    use super::{Decoded, End, decompress};

    /// The examples of MS-XCA, section 3.1.
    #[test]
    fn the_examples_of_the_specification_are_decompressed() {
        let alphabet = b"abcdefghijklmnopqrstuvwxyz";
        let mut literals = vec![0x3f, 0, 0, 0];
        literals.extend_from_slice(alphabet);
        let abc = [0xff, 0xff, 0xff, 0x1f, 0x61, 0x62, 0x63, 0x17, 0x00, 0x0f, 0xff, 0x26, 0x01];
        for (name, input, want) in
            [("alphabet", &literals[..], alphabet.to_vec()), ("abc, 100 times", &abc[..], b"abc".repeat(100))]
        {
            let mut output = vec![0; want.len()];
            let decoded = decompress(input, &mut output);
            assert_eq!(decoded, Decoded { written: want.len(), read: input.len(), end: End::Full }, "{name}");
            assert_eq!(output, want, "{name}");
            for cut in 0..input.len() {
                let mut part = vec![0; want.len()];
                let decoded = decompress(&input[..cut], &mut part);
                assert_eq!(decoded.end, End::InputEnded, "{name} cut at {cut}");
                assert_eq!(part[..decoded.written], want[..decoded.written], "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn invalid_matches_are_rejected() {
        let rows: [(&str, &[u8]); 4] = [
            ("match before the start", &[0, 0, 0, 0x80, 0, 0]),
            ("match beyond the end", &[0, 0, 0, 0x40, b'a', 7, 0, 15, 255, 0, 0x10]),
            ("length below its own prefix", &[0, 0, 0, 0x40, b'a', 7, 0, 15, 255, 21, 0]),
            ("length near u32::MAX", &[0, 0, 0, 0x40, b'a', 7, 0, 15, 255, 0, 0, 254, 255, 255, 255]),
        ];
        for (name, input) in rows {
            assert_eq!(decompress(input, &mut [0; 64]).end, End::Invalid, "{name}");
        }
    }
}
