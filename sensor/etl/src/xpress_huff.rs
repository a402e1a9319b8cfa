//! XPRESS with Huffman codes (`COMPRESSION_FORMAT_XPRESS_HUFF`, 4).
//!
//! A sequence of blocks with 65536 bytes of output each (fewer in the last one). A block is a table of 512 code
//! lengths, 4 bits each, low half first, followed by 16-bit words of bits, highest first, with the bytes of long
//! lengths between them. Symbols below 256 are literals, the others are matches: `(symbol - 256) % 16` is the length -
//! 3, where 15 continues in a byte, 255 there in a `u16`, 0 there in a `u32`; `(symbol - 256) / 16` is the number of
//! bits of the distance that follow below its highest bit.
//!
//! Source: MS-XCA, section 2.2.

use crate::lz::{Decoded, End, Input, Output};

const BLOCK_LEN: usize = 1 << 16;
/// 512 code lengths of 4 bits.
const TABLE_LEN: usize = 256;
/// At the end of the output this symbol is not a match.
const END_MARKER: u16 = 256;
const CODE_BITS_MAX: u32 = 15;
const LENGTH_IN_SYMBOL_MAX: u32 = 15;
const LENGTH_MIN: u32 = 3;

/// Decompresses until `output` is full or `input` ends.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Decoded {
    let (mut input, mut output) = (Input::new(input), Output::new(output));
    let mut codes = Codes::new();
    let mut end = End::Full;
    while end == End::Full && !output.is_full() {
        end = match input.take(TABLE_LEN) {
            Some(lengths) if codes.build(lengths) => {
                block(&codes, &mut input, &mut output).unwrap_or(End::InputEnded)
            }
            Some(_) => End::Invalid,
            None => End::InputEnded,
        };
    }
    Decoded { written: output.at, read: input.at, end }
}

/// Decodes a block. Returns `None` if the input ends, `Full` at the end of the block or of the output.
fn block(codes: &Codes, input: &mut Input<'_>, output: &mut Output<'_>) -> Option<End> {
    let mut bits = Bits::new(input)?;
    let block_end = output.at.saturating_add(BLOCK_LEN);
    while output.at < block_end && !output.is_full() {
        let (symbol, len) = codes.look_up(bits.peek());
        bits.skip(len, input)?;
        let Some(match_symbol) = symbol.checked_sub(256) else {
            output.literal(symbol as u8);
            continue;
        };
        let mut len = u32::from(match_symbol & 15);
        if len == LENGTH_IN_SYMBOL_MAX {
            let byte = input.u8()?;
            len += u32::from(byte);
            if byte == u8::MAX {
                len = match input.u16()? {
                    0 => input.u32()?,
                    word => u32::from(word),
                };
                if len < LENGTH_IN_SYMBOL_MAX {
                    return Some(End::Invalid);
                }
            }
        }
        let distance_bits = u32::from(match_symbol >> 4);
        let distance = (1 << distance_bits) + bits.take(distance_bits, input)?;
        let Some(len) = len.checked_add(LENGTH_MIN) else {
            return Some(End::Invalid);
        };
        if !output.repeat(distance as usize, len as usize) {
            return Some(End::Invalid);
        }
    }
    if output.is_full() {
        // The encoder of Windows writes an end marker, which is skipped.
        let (symbol, len) = codes.look_up(bits.peek());
        if symbol == END_MARKER {
            let _ = bits.skip(len, input);
        }
    }
    Some(End::Full)
}

/// Reads bits from 16-bit words, highest first. Always has at least 16 bits read ahead, because the bytes of long
/// lengths follow them in the input.
struct Bits {
    next: u32,
    /// Number of bits in `next` beyond the 16 that every look-up may use.
    extra: i32,
}

impl Bits {
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let high = u32::from(input.u16()?);
        Some(Self { next: high << 16 | u32::from(input.u16()?), extra: 16 })
    }

    fn peek(&self) -> u32 {
        self.next >> (32 - CODE_BITS_MAX)
    }

    /// Skips `len` bits, at most 15.
    fn skip(&mut self, len: u32, input: &mut Input<'_>) -> Option<()> {
        self.next <<= len;
        self.extra -= len as i32;
        if self.extra < 0 {
            self.next |= u32::from(input.u16()?) << -self.extra;
            self.extra += 16;
        }
        Some(())
    }

    fn take(&mut self, len: u32, input: &mut Input<'_>) -> Option<u32> {
        let taken = (u64::from(self.next) << len >> 32) as u32;
        self.skip(len, input)?;
        Some(taken)
    }
}

/// Canonical Huffman codes, ordered by length and then by symbol.
///
/// A code is found by comparing it with the first code of each length. Preparing a block is therefore linear in its
/// table, which matters because a buffer can have only a few bytes.
struct Codes {
    /// For each length: the first longer code, extended to 15 bits.
    limits: [u32; CODE_BITS_MAX as usize + 1],
    /// For each length: the first code, extended to 15 bits.
    firsts: [u32; CODE_BITS_MAX as usize + 1],
    /// For each length: the index of its first symbol in `symbols`.
    starts: [usize; CODE_BITS_MAX as usize + 1],
    /// All symbols with a code, in the order of their codes.
    symbols: [u16; 2 * TABLE_LEN],
}

impl Codes {
    fn new() -> Self {
        let per_length = [0; CODE_BITS_MAX as usize + 1];
        Self {
            limits: per_length,
            firsts: per_length,
            starts: [0; CODE_BITS_MAX as usize + 1],
            symbols: [0; 2 * TABLE_LEN],
        }
    }

    /// Builds the codes. Returns false unless they are complete, so that every sequence of bits starts with one of
    /// them.
    fn build(&mut self, lengths: &[u8]) -> bool {
        let lengths = || lengths.iter().flat_map(|pair| [pair & 15, pair >> 4]);
        let mut counts = [0; CODE_BITS_MAX as usize + 1];
        lengths().for_each(|len| counts[usize::from(len)] += 1);
        let (mut code, mut at) = (0, 0);
        for len in 1..=CODE_BITS_MAX {
            let index = len as usize;
            (self.firsts[index], self.starts[index]) = (code, at);
            at += counts[index];
            code += (counts[index] as u32) << (CODE_BITS_MAX - len);
            self.limits[index] = code;
        }
        // Counting sort of the symbols by length.
        let mut next = self.starts;
        for (len, symbol) in lengths().map(usize::from).zip(0..).filter(|(len, _)| *len > 0) {
            self.symbols[next[len]] = symbol;
            next[len] += 1;
        }
        code == 1 << CODE_BITS_MAX
    }

    /// Returns the symbol whose code starts the 15 `bits`, and the length of the code.
    fn look_up(&self, bits: u32) -> (u16, u32) {
        // The last limit is above all possible bits, see `build`.
        let len = (1..CODE_BITS_MAX).find(|len| bits < self.limits[*len as usize]).unwrap_or(CODE_BITS_MAX);
        let index = len as usize;
        let nth = bits.saturating_sub(self.firsts[index]) >> (CODE_BITS_MAX - len);
        let symbol = self.symbols.get(self.starts[index] + nth as usize);
        (symbol.copied().unwrap_or(0), len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoded, End, TABLE_LEN, decompress};

    /// Returns 256 bytes of code lengths for pairs `(symbol, length)`.
    fn table(lengths: &[(usize, u8)]) -> Vec<u8> {
        let mut table = vec![0; TABLE_LEN];
        for (symbol, len) in lengths {
            table[symbol / 2] |= len << (symbol % 2 * 4);
        }
        table
    }

    /// The examples of MS-XCA, section 3.2: the alphabet, and "abc" 100 times.
    #[test]
    fn the_examples_of_the_specification_are_decompressed() {
        // 22 letters have five bits; the last four and the end marker (symbol 256) have four.
        let mut lengths: Vec<_> =
            (b'a'..=b'z').map(|c| (usize::from(c), if c < b'w' { 5 } else { 4 })).collect();
        lengths.push((256, 4));
        let mut alphabet = table(&lengths);
        alphabet.extend_from_slice(&[
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf, 0x8d, 0x04,
            0, 0, 0, 0,
        ]);
        // Symbol 287: a match whose length continues in bytes, with one more bit of distance.
        let mut abc = table(&[(0x61, 3), (0x62, 3), (0x63, 2), (256, 2), (287, 2)]);
        abc.extend_from_slice(&[0xa8, 0xdc, 0x00, 0x00, 0xff, 0x26, 0x01]);
        for (name, input, want) in [
            ("alphabet", alphabet, b"abcdefghijklmnopqrstuvwxyz".to_vec()),
            ("abc, 100 times", abc, b"abc".repeat(100)),
        ] {
            let mut output = vec![0; want.len()];
            let decoded = decompress(&input, &mut output);
            assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(&want), "{name}");
            assert_eq!(decoded, Decoded { written: want.len(), read: input.len(), end: End::Full }, "{name}");
            for cut in 0..input.len() {
                let mut part = vec![0; want.len()];
                let decoded = decompress(&input[..cut], &mut part);
                assert_ne!(decoded.end, End::Invalid, "{name} cut at {cut}");
                assert_eq!(part[..decoded.written], want[..decoded.written], "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn incomplete_codes_are_rejected() {
        for (name, lengths) in
            [("none", &[][..]), ("too few", &[(65, 2), (66, 2)]), ("too many", &[(65, 1), (66, 1), (67, 1)])]
        {
            let mut input = table(lengths);
            input.extend_from_slice(&[0; 8]);
            assert_eq!(
                decompress(&input, &mut [0; 4]),
                Decoded { written: 0, read: 256, end: End::Invalid },
                "{name}"
            );
        }
    }
}
