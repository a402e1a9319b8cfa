//! LZNT1 (`COMPRESSION_FORMAT_LZNT1`, 2).
//!
//! A sequence of chunks with at most 4096 bytes of output each. The `u16` header of a chunk: 12 bits stored bytes - 1,
//! 3 bits signature (3), 1 bit compressed; 0 ends the sequence. In a compressed chunk each flag byte, lowest bit first,
//! describes 8 items: 0 is a literal byte, 1 a match. A match is a `u16` with distance - 1 in the upper and length - 3
//! in the lower bits. The distance has 4 to 12 bits, as many as the output of the chunk so far requires, and the length
//! has the others.
//!
//! Source: MS-XCA, section 2.5.

use crate::lz::{Decoded, End, Input, Output};

const CHUNK_LEN_MAX: usize = 4096;
const SIGNATURE: u16 = 3;

/// Decompresses until `output` is full or `input` ends.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Decoded {
    let (mut input, mut output) = (Input::new(input), Output::new(output));
    let end = chunks(&mut input, &mut output).unwrap_or(End::InputEnded);
    Decoded { written: output.at, read: input.at, end }
}

/// Decodes chunks. Returns `None` if the input ends.
fn chunks(input: &mut Input<'_>, output: &mut Output<'_>) -> Option<End> {
    while !output.is_full() {
        let header = input.u16()?;
        if header == 0 {
            return None;
        }
        if header >> 12 & 7 != SIGNATURE {
            return Some(End::Invalid);
        }
        let stored_len = usize::from(header & 0x0fff) + 1;
        let stored = input.take_up_to(stored_len);
        let start = output.at;
        let valid = if header & 0x8000 == 0 { output.literals(stored) } else { chunk(stored, output) };
        if !valid {
            return Some(End::Invalid);
        }
        if stored.len() < stored_len {
            return None;
        }
        // Only the last chunk may have fewer than 4096 bytes of output.
        if !output.is_full() && output.at - start != CHUNK_LEN_MAX {
            return Some(if input.is_at_end() { End::InputEnded } else { End::Invalid });
        }
    }
    // The sequence may end with an empty header.
    let end = input.at;
    if input.u16() != Some(0) {
        input.at = end;
    }
    Some(End::Full)
}

/// Decodes a compressed chunk, or the part of it that exists. Returns false if it violates the format.
fn chunk(stored: &[u8], output: &mut Output<'_>) -> bool {
    let mut input = Input::new(stored);
    let start = output.at;
    while let Some(mut flags) = input.u8() {
        for _ in 0..8 {
            if input.is_at_end() {
                return true;
            }
            let valid = if flags & 1 == 0 {
                input.u8().is_some_and(|byte| output.literal(byte))
            } else {
                let Some(word) = input.u16() else {
                    // The chunk is truncated, or ends within a match.
                    return true;
                };
                let length_bits = length_bits(output.at - start);
                let distance = usize::from(word >> length_bits) + 1;
                let len = usize::from(word & ((1 << length_bits) - 1)) + 3;
                distance <= output.at - start && output.repeat(distance, len)
            };
            if !valid || output.at - start > CHUNK_LEN_MAX {
                return false;
            }
            flags >>= 1;
        }
    }
    true
}

/// Returns the number of bits for the length of a match after `written` bytes of the chunk.
fn length_bits(written: usize) -> u32 {
    let distance_bits = usize::BITS - written.saturating_sub(1).leading_zeros();
    16 - distance_bits.clamp(4, 12)
}

#[cfg(test)]
mod tests {
    use super::{Decoded, End, decompress, length_bits};

    /// The example of MS-XCA, section 3.3.
    #[test]
    fn the_example_of_the_specification_is_decompressed() {
        let input: [u8; 59] = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01,
            0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24,
            0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48,
            0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let want =
            b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D \
            E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut output = vec![0; want.len()];
        let decoded = decompress(&input, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(want));
        assert_eq!(decoded, Decoded { written: want.len(), read: input.len(), end: End::Full });
        for cut in 0..input.len() - 1 {
            let mut part = vec![0; want.len()];
            let decoded = decompress(&input[..cut], &mut part);
            assert_eq!(decoded.end, End::InputEnded, "cut at {cut}");
            assert_eq!(part[..decoded.written], want[..decoded.written], "cut at {cut}");
        }
    }

    #[test]
    fn the_length_bits_depend_on_the_output() {
        for (written, bits) in
            [(1, 12), (16, 12), (17, 11), (32, 11), (33, 10), (2048, 5), (2049, 4), (4096, 4)]
        {
            assert_eq!(length_bits(written), bits, "{written}");
        }
    }

    #[test]
    fn invalid_chunks_are_rejected() {
        let rows: [(&str, &[u8]); 4] = [
            ("signature", &[0x00, 0xa0, 0, 0]),
            ("match before the chunk", &[0x02, 0xb0, 0x01, 0, 0]),
            ("short chunk followed by another", &[0x00, 0x30, b'a', 0x00, 0x30, b'b']),
            ("more than the output", &[0x04, 0x30, 1, 2, 3, 4, 5]),
        ];
        for (name, input) in rows {
            assert_eq!(decompress(input, &mut [0; 4]).end, End::Invalid, "{name}");
        }
    }
}
