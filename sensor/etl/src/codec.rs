//! Decompresses buffers in any of the three formats.

use crate::decode;
use crate::lz::{Decoded, End};
use crate::work::BYTES_PER_STEP;
use crate::{lznt1, xpress, xpress_huff};
use etwsieve_budget::{Budget, Exhausted};

/// Maximum number of bytes that a stored byte of a compressed buffer may expand to.
///
/// Real buffers stay below it: an event has about 20 bytes that differ between events, and at most 65,535 bytes in
/// total. The formats would allow millions. The limit for a whole file is lower, see
/// [`WALK_STEPS_PER_BYTE_MAX`](crate::WALK_STEPS_PER_BYTE_MAX).
pub const EXPANSION_MAX: u64 = 4096;

/// Formats of compressed buffers, in the order in which they are tried.
///
/// No field states the format. All known files use XPRESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain LZ77 (`COMPRESSION_FORMAT_XPRESS`).
    Xpress,
    /// `COMPRESSION_FORMAT_LZNT1`.
    Lznt1,
    /// LZ77 with Huffman codes (`COMPRESSION_FORMAT_XPRESS_HUFF`).
    XpressHuffman,
}

impl Compression {
    const ALL: [Self; 3] = [Self::Xpress, Self::Lznt1, Self::XpressHuffman];

    fn decompress(self, stored: &[u8], output: &mut [u8]) -> Decoded {
        match self {
            Self::Xpress => xpress::decompress(stored, output),
            Self::Lznt1 => lznt1::decompress(stored, output),
            Self::XpressHuffman => xpress_huff::decompress(stored, output),
        }
    }
}

/// Steps of decoding a stored byte: a literal, or a part of a match or of a code table.
const STORED_STEPS: usize = 4;

/// Decompresses the events of a buffer into `output`, which has their exact length.
///
/// A format is accepted if it fills `output`, uses all of `stored`, and the result starts with an event. If the end of
/// the file truncates the buffer (`is_cut`), the part before the end is enough. Returns the number of bytes written;
/// `None` if no format fits. Each attempt is charged for everything that it may read and write.
pub(crate) fn decompress(
    stored: &[u8],
    output: &mut [u8],
    is_cut: bool,
    budget: &mut Budget<'_>,
) -> Result<Option<usize>, Exhausted> {
    for format in Compression::ALL {
        budget.charge(STORED_STEPS * stored.len() + output.len() / BYTES_PER_STEP)?;
        let Decoded { written, read, end } = format.decompress(stored, output);
        let is_whole = end == End::Full && read == stored.len();
        let is_prefix = is_cut && end != End::Invalid;
        let starts_event = output.get(..written).is_some_and(decode::starts_event);
        if (is_whole || is_prefix) && starts_event {
            return Ok(Some(written));
        }
    }
    Ok(None)
}
