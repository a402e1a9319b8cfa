//! Decoding of base64 and of compressed streams, as far as the result is text.

use super::inflate::unpack;
use crate::view::chars::is_whitespace;
use crate::view::transformation::{Transformation, Transformations};
use crate::view::work::{VALUE_UNITS_MAX, Work};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Minimum length of base64 that is decoded without an explicit call, in units.
pub(super) const BASE64_UNITS_MIN: usize = 16;
/// Minimum share of printable characters for bytes to be taken as text, in percent.
const PRINTABLE_PERCENT_MIN: usize = 95;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn is_base64(unit: u16) -> bool {
    u8::try_from(unit).is_ok_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// Decodes base64, ignoring whitespace.
pub(super) fn base64(text: &[u16], work: &mut Work<'_, '_>) -> Option<Vec<u8>> {
    work.charge(2 * text.len())?;
    work.allocate(2 * text.len())?;
    let mut plain = Vec::with_capacity(text.len());
    for &unit in text {
        if is_base64(unit) {
            plain.push(unit as u8);
        } else if !is_whitespace(unit) && !matches!(unit, 0x0A | 0x0D) {
            return None;
        }
    }
    if plain.len() < 4 || plain.len() > 2 * VALUE_UNITS_MAX {
        return None;
    }
    ENGINE.decode(&plain).ok()
}

/// Returns bytes as text: a gzip, deflate or zlib stream is unpacked first, then the text is UTF-16 or UTF-8, whichever
/// is printable.
pub(super) fn text(bytes: &[u8], work: &mut Work<'_, '_>) -> Option<(Vec<u16>, Transformations)> {
    if let Some(stream) = gzip(bytes, work) {
        let unpacked = unpack(stream, work)?;
        return Some((plain_text(&unpacked, work)?, Transformations::only(Transformation::Gzip)));
    }
    if let Some(text) = plain_text(bytes, work) {
        return Some((text, Transformations::NONE));
    }
    let zlib = bytes.first() == Some(&0x78) && bytes.len() > 2;
    let stream = if zlib { &bytes[2..] } else { bytes };
    let unpacked = unpack(stream, work).or_else(|| if zlib { unpack(bytes, work) } else { None })?;
    Some((plain_text(&unpacked, work)?, Transformations::only(Transformation::Deflate)))
}

/// Returns the stream after a gzip header (RFC 1952): ten bytes, followed by what its flags announce.
fn gzip<'b>(bytes: &'b [u8], work: &mut Work<'_, '_>) -> Option<&'b [u8]> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const HEADER_CRC: u8 = 2;
    let (header, mut rest) = bytes.split_first_chunk::<10>()?;
    if !header.starts_with(&[0x1F, 0x8B, 8]) {
        return None;
    }
    // For the name and the comment.
    work.charge(bytes.len())?;
    let flags = header[3];
    if flags & EXTRA != 0 {
        let (len, behind) = rest.split_first_chunk()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// Returns bytes as text, if nearly all of it is printable.
pub(super) fn plain_text(bytes: &[u8], work: &mut Work<'_, '_>) -> Option<Vec<u16>> {
    work.charge(bytes.len())?;
    work.allocate(2 * bytes.len())?;
    let units: Vec<u16> = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let own = units.strip_prefix(&[0xFEFF]).unwrap_or(&units);
    if bytes.len().is_multiple_of(2) && prints(own.iter().map(|unit| u32::from(*unit))) {
        return Some(own.to_vec());
    }
    work.charge(2 * bytes.len())?;
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)).ok()?;
    prints(text.chars().map(u32::from)).then(|| text.encode_utf16().collect())
}

/// Decodes bytes in the encoding that a script specifies: UTF-16 if `wide`, otherwise UTF-8.
pub(super) fn encoded_text(bytes: &[u8], wide: bool, work: &mut Work<'_, '_>) -> Option<Vec<u16>> {
    work.charge(2 * bytes.len())?;
    work.allocate(2 * bytes.len())?;
    if wide {
        return Some(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect());
    }
    Some(String::from_utf8_lossy(bytes).encode_utf16().collect())
}
/// Returns true if nearly all characters are printable ASCII or blanks.
fn prints(chars: impl Iterator<Item = u32>) -> bool {
    let (mut all, mut good) = (0usize, 0usize);
    for c in chars {
        all += 1;
        good += usize::from(matches!(c, 0x20..0x7F | 0x09 | 0x0A | 0x0D));
    }
    all > 0 && good * 100 >= all * PRINTABLE_PERCENT_MIN
}

#[cfg(test)]
mod tests {
    use super::super::inflate::UNPACKED_LEN_MAX;
    use super::super::tests::with_work;
    use super::{base64, text};
    use crate::view::transformation::{Transformation, Transformations};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

    fn round(bytes: &[u8]) -> Option<(String, Transformations)> {
        let encoded: Vec<u16> = STANDARD.encode(bytes).encode_utf16().collect();
        let (units, done) = with_work(1 << 24, |work| text(&base64(&encoded, work)?, work))?;
        Some((String::from_utf16(&units).unwrap(), done))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1F, 0x8B, 8, 4 | 8 | 2, 0, 0, 0, 0, 0, 0, 2, 0, 9, 9, b'n', 0, 1, 1];
        out.extend(compress_to_vec(bytes, 6));
        out
    }

    #[test]
    fn every_encoding_is_decoded() {
        let script = "Enter-PSSession -ComputerName srv01";
        let wide: Vec<u8> = script.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let deflate = Transformations::only(Transformation::Deflate);
        let rows = [
            ("UTF-8", script.as_bytes().to_vec(), Transformations::NONE),
            ("UTF-16", wide.clone(), Transformations::NONE),
            ("deflate", compress_to_vec(script.as_bytes(), 6), deflate),
            ("deflate of UTF-16", compress_to_vec(&wide, 6), deflate),
            ("zlib", compress_to_vec_zlib(script.as_bytes(), 6), deflate),
            ("gzip", gzip(script.as_bytes()), Transformations::only(Transformation::Gzip)),
        ];
        for (name, bytes, done) in rows {
            assert_eq!(round(&bytes), Some((script.to_owned(), done)), "{name}");
        }
        assert_eq!(round(&[0x80; 40]), None, "no text");
        assert_eq!(with_work(1 << 20, |work| base64(&[u16::from(b'!'); 20], work)), None);
    }

    #[test]
    fn a_bomb_is_unpacked_to_its_limit() {
        let bomb = compress_to_vec(&vec![b'a'; 64 << 20], 9);
        for packed in [bomb, gzip(&vec![b'a'; 64 << 20])] {
            let (units, _) = with_work(1 << 24, |work| text(&packed, work)).unwrap();
            assert!((1 << 16..=UNPACKED_LEN_MAX).contains(&units.len()));
        }
    }
}
