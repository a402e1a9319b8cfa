//! Simple compressors for the three formats of buffers: greedy, one candidate per match.
//!
//! Source of the formats: MS-XCA, sections 2.1, 2.3 and 2.5.

const LENGTH_MIN: usize = 3;
const HASH_BITS: u32 = 13;

/// Splits `data` into literals and matches, which are distances and lengths.
fn tokens(data: &[u8], distance_max: usize, length_max: usize) -> Vec<Token> {
    let mut last = vec![usize::MAX; 1 << HASH_BITS];
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let candidate = data[at..].first_chunk::<LENGTH_MIN>().map(|start| {
            let hash = u32::from_le_bytes([start[0], start[1], start[2], 0]).wrapping_mul(0x9E37_79B1);
            std::mem::replace(&mut last[(hash >> (32 - HASH_BITS)) as usize], at)
        });
        let token = candidate.filter(|from| *from < at && at - from <= distance_max).and_then(|from| {
            let length =
                (0..(data.len() - at).min(length_max)).take_while(|i| data[from + i] == data[at + i]).count();
            (length >= LENGTH_MIN).then_some(Token::Match { distance: at - from, length })
        });
        let token = token.unwrap_or(Token::Literal(data[at]));
        at += match token {
            Token::Literal(_) => 1,
            Token::Match { length, .. } => length,
        };
        tokens.push(token);
    }
    tokens
}

#[derive(Clone, Copy)]
enum Token {
    Literal(u8),
    Match { distance: usize, length: usize },
}

/// Compresses to XPRESS (plain LZ77).
pub fn xpress(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    let (mut flags_at, mut items) = (0, 0_u32);
    // Position of a byte of which one half is unused.
    let mut half_at = None;
    for token in tokens(data, 1 << 13, usize::MAX) {
        if items == 32 {
            (flags_at, items) = (out.len(), 0);
            out.extend_from_slice(&[0; 4]);
        }
        match token {
            Token::Literal(byte) => out.push(byte),
            Token::Match { distance, length } => {
                let bit = 31 - items as usize;
                out[flags_at + bit / 8] |= 1 << (bit % 8);
                let length = length - LENGTH_MIN;
                out.extend_from_slice(&(((distance - 1) << 3 | length.min(7)) as u16).to_le_bytes());
                if length >= 7 {
                    xpress_length(length, &mut out, &mut half_at);
                }
            }
        }
        items += 1;
    }
    if items == 32 {
        // Like Windows, which starts the next group of items at once.
        flags_at = out.len();
        out.extend_from_slice(&[0xff; 4]);
        items = 0;
    }
    // Unused items of the last group are flagged as matches.
    for item in items..32 {
        let bit = 31 - item as usize;
        out[flags_at + bit / 8] |= 1 << (bit % 8);
    }
    out
}

/// Writes the part of a length (minus 3) that does not fit into the word of a match.
fn xpress_length(length: usize, out: &mut Vec<u8>, half_at: &mut Option<usize>) {
    let in_half = (length - 7).min(15) as u8;
    if let Some(at) = half_at.take() {
        out[at] |= in_half << 4;
    } else {
        *half_at = Some(out.len());
        out.push(in_half);
    }
    if in_half < 15 {
        return;
    }
    let in_byte = (length - 22).min(255) as u8;
    out.push(in_byte);
    if in_byte == 255 {
        whole_length(length, out);
    }
}

/// Writes a complete length (minus 3): a `u16`, or 0 and a `u32`.
fn whole_length(length: usize, out: &mut Vec<u8>) {
    if let Ok(word) = u16::try_from(length) {
        out.extend_from_slice(&word.to_le_bytes());
    } else {
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
    }
}

/// Compresses to LZNT1.
pub fn lznt1(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in data.chunks(4096) {
        let packed = lznt1_chunk(chunk);
        let (stored, bit) = if packed.len() < chunk.len() { (&packed[..], 0x8000) } else { (chunk, 0) };
        out.extend_from_slice(&((stored.len() - 1) as u16 | 0x3000 | bit).to_le_bytes());
        out.extend_from_slice(stored);
    }
    out
}

fn lznt1_chunk(chunk: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut written, mut flags_at, mut items) = (0_usize, 0, 8);
    // Matches have at most 18 bytes, which is possible at every position in a chunk.
    for token in tokens(chunk, 4096, 18) {
        if items == 8 {
            (flags_at, items) = (out.len(), 0);
            out.push(0);
        }
        match token {
            Token::Literal(byte) => {
                out.push(byte);
                written += 1;
            }
            Token::Match { distance, length } => {
                out[flags_at] |= 1 << items;
                let distance_bits = (usize::BITS - (written - 1).leading_zeros()).clamp(4, 12);
                let word = (distance - 1) << (16 - distance_bits) | (length - LENGTH_MIN);
                out.extend_from_slice(&(word as u16).to_le_bytes());
                written += length;
            }
        }
        items += 1;
    }
    out
}

/// Compresses to XPRESS with Huffman codes, all 512 of which have 9 bits.
pub fn xpress_huffman(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in data.chunks(1 << 16) {
        out.resize(out.len() + 256, 0x99);
        let mut bits = BitWriter::new(&mut out);
        for token in tokens(block, 0xffff, usize::MAX) {
            match token {
                Token::Literal(byte) => bits.put(&mut out, byte.into(), 9),
                Token::Match { distance, length } => {
                    let length = length - LENGTH_MIN;
                    let distance_bits = distance.ilog2();
                    let symbol = 256 | distance_bits << 4 | length.min(15) as u32;
                    bits.put(&mut out, symbol, 9);
                    if length >= 15 {
                        let in_byte = (length - 15).min(255) as u8;
                        out.push(in_byte);
                        if in_byte == 255 {
                            whole_length(length, &mut out);
                        }
                    }
                    bits.put(&mut out, distance as u32 & ((1 << distance_bits) - 1), distance_bits);
                }
            }
        }
        bits.end(&mut out);
    }
    out
}

/// Writes bits to 16-bit words, the highest first. The reader is two words ahead, so two words are reserved.
struct BitWriter {
    word: u32,
    free: u32,
    reserved: [usize; 2],
}

impl BitWriter {
    fn new(out: &mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        Self { word: 0, free: 16, reserved: [at, at + 2] }
    }

    fn put(&mut self, out: &mut Vec<u8>, value: u32, len: u32) {
        if len <= self.free {
            self.word = self.word << len | value;
            self.free -= len;
            return;
        }
        let behind = len - self.free;
        let word = (self.word << self.free | value >> behind) as u16;
        let [at, next] = self.reserved;
        out[at..at + 2].copy_from_slice(&word.to_le_bytes());
        self.reserved = [next, out.len()];
        out.extend_from_slice(&[0; 2]);
        self.word = value & ((1 << behind) - 1);
        self.free = 16 - behind;
    }

    fn end(self, out: &mut [u8]) {
        let [at, _] = self.reserved;
        out[at..at + 2].copy_from_slice(&((self.word << self.free) as u16).to_le_bytes());
    }
}
