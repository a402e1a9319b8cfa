//! Frames off a stream of bytes: the buffer between a connection and whoever reads its frames.
//!
//! It holds at most one frame of the length that its owner allows and one read beyond that, whatever a header claims.

use super::frame::{FrameError, FrameType, HEADER_LEN, PAYLOAD_LEN_MAX, split_frame};
use std::io::{self, Read};

/// Bytes asked of a reader at a time.
pub const READ_LEN: usize = 16 << 10;
/// Where a header has the length of its payload.
const LENGTH_AT: usize = 8;

/// Bytes that have arrived and are not taken yet.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Of these, taken already.
    taken: usize,
    payload_len_max: usize,
}

/// Why no frame could be read off a blocking stream.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream broke, or its time was up.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It carries something else; close it.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl FrameBuffer {
    /// For frames of at most `payload_len_max` payload bytes; never more than [`PAYLOAD_LEN_MAX`].
    pub fn new(payload_len_max: usize) -> Self {
        let mut buffer = Self { bytes: Vec::new(), taken: 0, payload_len_max: 0 };
        buffer.set_payload_len_max(payload_len_max);
        buffer
    }

    /// Changes the bound for the frames that follow.
    pub fn set_payload_len_max(&mut self, payload_len_max: usize) {
        self.payload_len_max = payload_len_max.min(PAYLOAD_LEN_MAX);
    }

    /// Adds what has arrived. Take the frames out before adding more.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds what one call of `read` gives, at most [`READ_LEN`] bytes; 0: the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of `reader`.
    pub fn fill_from(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let before = self.bytes.len();
        self.bytes.resize(before + READ_LEN, 0);
        let result = reader.read(&mut self.bytes[before..]);
        self.bytes.truncate(before + result.as_ref().map_or(0, |read| *read));
        result
    }

    /// Takes the first frame out; `None`: it is still arriving.
    ///
    /// # Errors
    ///
    /// [`FrameError`], also for a payload longer than this buffer allows, as soon as its header is there.
    pub fn next_frame(&mut self) -> Result<Option<(FrameType, &[u8])>, FrameError> {
        let held = &self.bytes[self.taken..];
        // Before the magic has been judged this may be nonsense: so the judge is asked first.
        let split = split_frame(held)?;
        if let Some(len) = claimed_len(held)
            && len > self.payload_len_max
        {
            return Err(FrameError::TooLong { len });
        }
        let Some(split) = split else { return Ok(None) };
        let (frame_type, len) = (split.frame_type, split.payload.len());
        let start = self.taken + HEADER_LEN;
        self.taken = start + len;
        Ok(Some((frame_type, &self.bytes[start..start + len])))
    }

    /// Whether a frame has begun to arrive.
    pub fn is_amid_frame(&self) -> bool {
        self.taken < self.bytes.len()
    }

    /// Reads until there is a whole frame; `None`: the stream ended between two frames.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; an end within a frame is [`io::ErrorKind::UnexpectedEof`].
    pub fn read_frame(&mut self, reader: &mut impl Read) -> Result<Option<(FrameType, Vec<u8>)>, ReadError> {
        loop {
            if let Some((frame_type, payload)) = self.next_frame()? {
                return Ok(Some((frame_type, payload.to_vec())));
            }
            if self.fill_from(reader)? == 0 {
                return if self.is_amid_frame() {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                } else {
                    Ok(None)
                };
            }
        }
    }

    fn make_room(&mut self) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
    }
}

fn claimed_len(held: &[u8]) -> Option<usize> {
    let field = held.get(LENGTH_AT..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::encode_frame;
    use std::io::Cursor;

    fn frames(lens: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for len in lens {
            encode_frame(FrameType::Data, &vec![7; *len], &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn frames_come_out_however_the_bytes_come_in() {
        let lens = [0, 1, 5000, 0, 70_000, 3];
        let bytes = frames(&lens);
        for step in [1, 7, 4096, bytes.len()] {
            let mut buffer = FrameBuffer::new(PAYLOAD_LEN_MAX);
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                buffer.extend(piece);
                while let Some((frame_type, payload)) = buffer.next_frame().unwrap() {
                    assert_eq!(frame_type, FrameType::Data);
                    got.push(payload.len());
                }
                assert!(buffer.bytes.len() <= 70_000 + HEADER_LEN + step, "{} held", buffer.bytes.len());
            }
            assert_eq!(got, lens, "{step}");
            assert!(!buffer.is_amid_frame());
        }
    }

    #[test]
    fn a_long_claim_is_refused_with_its_header() {
        let mut buffer = FrameBuffer::new(100);
        buffer.extend(&frames(&[100]));
        buffer.next_frame().unwrap().unwrap();
        buffer.extend(&frames(&[101])[..HEADER_LEN]);
        assert_eq!(buffer.next_frame().unwrap_err(), FrameError::TooLong { len: 101 });
        buffer.set_payload_len_max(101);
        assert_eq!(buffer.next_frame(), Ok(None));
    }

    #[test]
    fn a_stream_ends_between_frames_or_within_one() {
        let bytes = frames(&[3, 40_000]);
        let mut buffer = FrameBuffer::new(PAYLOAD_LEN_MAX);
        let mut whole = Cursor::new(&bytes);
        assert_eq!(buffer.read_frame(&mut whole).unwrap().unwrap().1.len(), 3);
        assert_eq!(buffer.read_frame(&mut whole).unwrap().unwrap().1.len(), 40_000);
        assert!(buffer.read_frame(&mut whole).unwrap().is_none());
        let mut cut = Cursor::new(&bytes[..bytes.len() - 1]);
        assert!(buffer.read_frame(&mut cut).unwrap().is_some());
        let error = buffer.read_frame(&mut cut).unwrap_err();
        assert!(matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }
}
