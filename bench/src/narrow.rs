//! Narrows text to one byte per UTF-16 unit for peers in their best configuration.
//!
//! ASCII letters become lower case, and every unit that is not ASCII becomes 0xFF, which no literal contains.

/// Narrows one unit.
pub(crate) fn narrow_unit(unit: u16) -> u8 {
    if unit < 0x80 { (unit as u8).to_ascii_lowercase() } else { 0xFF }
}

/// Replaces the contents of `out` with the narrowed form of UTF-16LE `text`. An odd last byte is ignored.
///
/// The loop is the same for every processor; the compiler vectorises it for each vector width.
pub fn narrow(text: &[u8], out: &mut Vec<u8>) {
    let units = text.as_chunks().0;
    // Existing contents are overwritten below; only growth costs a second write.
    out.resize(units.len(), 0);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        #[expect(unsafe_code, reason = "a function for wider vectors may only run where there are some")]
        // SAFETY: the line above has checked that the processor has these instructions.
        return unsafe { narrow_avx512(units, out) };
    } else if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "a function for wider vectors may only run where there are some")]
        // SAFETY: the line above has checked that the processor has these instructions.
        return unsafe { narrow_avx2(units, out) };
    }
    narrow_all(units, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw,avx512vl")]
fn narrow_avx512(units: &[[u8; 2]], out: &mut [u8]) {
    narrow_all(units, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn narrow_avx2(units: &[[u8; 2]], out: &mut [u8]) {
    narrow_all(units, out);
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "it takes the vectors of its callers only if it is a part of them")]
fn narrow_all(units: &[[u8; 2]], out: &mut [u8]) {
    for (out, unit) in out.iter_mut().zip(units) {
        *out = narrow_unit(u16::from_le_bytes(*unit));
    }
}

#[cfg(test)]
mod tests {
    use super::{narrow, narrow_unit};

    #[test]
    fn every_unit_narrows() {
        let units: Vec<u16> = (0..=u16::MAX).collect();
        let text: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let expected: Vec<u8> = units.iter().map(|unit| narrow_unit(*unit)).collect();
        let mut out = vec![7; 9];
        for len in [0, 1, 2, 63, 64, 130, text.len() - 1, text.len()] {
            narrow(&text[..len], &mut out);
            assert_eq!(out, expected[..len / 2], "{len} bytes");
        }
        for (unit, byte) in
            [(0x41, b'a'), (0x5B, b'['), (0x7F, 0x7F), (0x80, 0xFF), (0x141, 0xFF), (0x212A, 0xFF)]
        {
            assert_eq!(narrow_unit(unit), byte, "{unit:#x}");
        }
    }
}
