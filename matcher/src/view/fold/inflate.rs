//! Deflate streams, unpacked in small pieces so that each is charged before it is unpacked.

use crate::view::work::Work;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Maximum length of an unpacked stream, in bytes.
pub(crate) const UNPACKED_LEN_MAX: usize = 1 << 18;
/// Bytes unpacked between two charges.
const PIECE_LEN: usize = 1 << 12;
/// Steps per block: its tables are built even if it is empty.
const BLOCK_STEPS: usize = 1_500;
/// Steps per byte unpacked.
const STEPS_PER_BYTE: usize = 1;

/// Minimum length of a damaged stream's beginning that is used, in bytes.
const DAMAGED_LEN_MIN: usize = 16;

/// Unpacks a stream, or the beginning of one that is too long or damaged. Returns `None` if that is too short, or if
/// the work is exhausted.
pub(super) fn unpack(stream: &[u8], work: &mut Work<'_, '_>) -> Option<Vec<u8>> {
    const FLAGS: u32 = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
    work.allocate(size_of::<DecompressorOxide>())?;
    let mut state = Box::<DecompressorOxide>::default();
    let len_max = UNPACKED_LEN_MAX.min(2 * work.value_units_max);
    let (mut rest, mut out, mut len) = (stream, Vec::new(), 0);
    let mut is_block = true;
    loop {
        // Unpacking stops at blocks and at full pieces, so each of them is charged here.
        work.charge(if is_block { BLOCK_STEPS } else { 0 } + STEPS_PER_BYTE * PIECE_LEN)?;
        if out.len() < len + PIECE_LEN {
            work.allocate(PIECE_LEN.max(out.len()))?;
            out.resize((len + PIECE_LEN).max(2 * out.len()).min(len_max), 0);
        }
        let end = (len + PIECE_LEN).min(out.len());
        let (status, read, written) = decompress(&mut state, rest, &mut out[..end], len, FLAGS);
        rest = rest.get(read..)?;
        len += written;
        is_block = status == TINFLStatus::BlockBoundary;
        match status {
            TINFLStatus::BlockBoundary => {}
            TINFLStatus::HasMoreOutput if len < len_max => {}
            _ => {
                out.truncate(len);
                return (status == TINFLStatus::Done || len >= DAMAGED_LEN_MIN).then_some(out);
            }
        }
    }
}
