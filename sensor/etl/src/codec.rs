//! Compressed buffers: which of the three formats, and the bytes.

use crate::decode;
use crate::lz::{Decoded, End};
use crate::{lznt1, xpress, xpress_huff};

/// The most output that a stored byte of a compressed buffer may stand for.
///
/// An event holds at least some 20 bytes that differ from event to event and at most 65,535 in all, which bounds
/// what real buffers reach. The formats themselves allow millions, which would let a small file cost hours.
pub const EXPANSION_MAX: u64 = 4096;

/// Formats of compressed buffers, in the order in which they are tried.
///
/// No field says which one was used. XPRESS is what all known files hold.
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

/// Decompresses the events of a buffer into `output`, which has their exact length.
///
/// A format is accepted if it fills `output` with all of `stored` and an event starts there. Of a buffer that the
/// end of the file cuts, what comes before the cut is enough. Returns the bytes written; `None` if no format fits.
pub(crate) fn decompress(stored: &[u8], output: &mut [u8], is_cut: bool) -> Option<usize> {
    Compression::ALL.into_iter().find_map(|format| {
        let Decoded { written, read, end } = format.decompress(stored, output);
        let is_whole = end == End::Full && read == stored.len();
        let is_prefix = is_cut && end != End::Invalid;
        let starts_event = output.get(..written).is_some_and(decode::starts_event);
        ((is_whole || is_prefix) && starts_event).then_some(written)
    })
}
