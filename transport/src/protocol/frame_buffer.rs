//! Splits a stream of bytes into frames.

use crate::wire::frame::{FrameError, FrameType, HEADER_LEN, LENGTH_AT, MAGIC, TYPE_AT, split_frame};
use crate::wire::message::MESSAGE_LEN_MAX;

/// Received bytes that have not been processed yet.
///
/// If all complete frames are taken before more bytes are added, the buffer contains less than one frame of the allowed
/// length and the bytes added last, whatever a header claims.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Length of the frames at the start of `bytes` that were taken.
    taken: usize,
    data_len_max: usize,
}

impl FrameBuffer {
    /// Creates a buffer that accepts payloads of DATA frames of at most `data_len_max` bytes. The payloads of other frames
    /// have at most [`MESSAGE_LEN_MAX`] bytes.
    pub const fn new(data_len_max: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, data_len_max }
    }

    /// Changes the maximum for the DATA frames that follow.
    pub const fn set_data_len_max(&mut self, data_len_max: usize) {
        self.data_len_max = data_len_max;
    }

    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first frame. Returns `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// [`FrameError`]. A payload that is too long is reported as soon as its header is complete.
    pub fn next_frame(&mut self) -> Result<Option<(FrameType, &[u8])>, FrameError> {
        let rest = &self.bytes[self.taken..];
        if let Some(header) = rest.first_chunk::<HEADER_LEN>() {
            self.check_length(header)?;
        }
        let Some(split) = split_frame(rest)? else { return Ok(None) };
        let (frame_type, len) = (split.frame_type, split.payload.len());
        let start = self.taken + HEADER_LEN;
        self.taken = start + len;
        Ok(Some((frame_type, &self.bytes[start..start + len])))
    }

    /// Returns true if the buffer contains a part of a frame, or frames that were not taken.
    pub fn has_partial_frame(&self) -> bool {
        self.taken < self.bytes.len()
    }

    /// Frees the memory of an empty buffer, so that idle connections need none.
    pub fn release_memory(&mut self) {
        if !self.has_partial_frame() {
            self.bytes = Vec::new();
            self.taken = 0;
        }
    }

    fn check_length(&self, header: &[u8; HEADER_LEN]) -> Result<(), FrameError> {
        let [l0, l1, l2, l3] = [0, 1, 2, 3].map(|index| header[LENGTH_AT + index]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let is_data = header[TYPE_AT] == FrameType::Data as u8;
        let max = if is_data { self.data_len_max } else { MESSAGE_LEN_MAX };
        // Without the magic this is not a length; `split_frame` reports that.
        if len > max && header.starts_with(&MAGIC.to_le_bytes()) {
            return Err(FrameError::TooLong { len, max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{PAYLOAD_LEN_MAX, encode_frame};

    fn frames(frame_type: FrameType, lens: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for len in lens {
            encode_frame(frame_type, &vec![7; *len], &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn frames_do_not_depend_on_how_their_bytes_are_divided() {
        let lens = [0, 1, 5000, 0, 70_000, 3];
        let bytes = frames(FrameType::Data, &lens);
        for step in [1, 7, 4096, bytes.len()] {
            let mut buffer = FrameBuffer::new(PAYLOAD_LEN_MAX);
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                buffer.extend(piece);
                while let Some((frame_type, payload)) = buffer.next_frame().unwrap() {
                    assert_eq!(frame_type, FrameType::Data);
                    found.push(payload.len());
                }
                assert!(buffer.bytes.len() <= 70_000 + HEADER_LEN + step, "{} bytes", buffer.bytes.len());
            }
            assert_eq!(found, lens, "{step}");
            assert!(!buffer.has_partial_frame());
            buffer.release_memory();
            assert_eq!(buffer.bytes.capacity(), 0);
        }
    }

    #[test]
    fn a_long_payload_is_rejected_when_its_header_is_complete() {
        let mut buffer = FrameBuffer::new(100);
        buffer.extend(&frames(FrameType::Data, &[100]));
        buffer.next_frame().unwrap().unwrap();
        buffer.extend(&frames(FrameType::Data, &[101])[..HEADER_LEN]);
        assert_eq!(buffer.next_frame().unwrap_err(), FrameError::TooLong { len: 101, max: 100 });
        buffer.set_data_len_max(101);
        assert_eq!(buffer.next_frame(), Ok(None));
        let mut buffer = FrameBuffer::new(PAYLOAD_LEN_MAX);
        buffer.extend(&frames(FrameType::Status, &[MESSAGE_LEN_MAX + 1])[..HEADER_LEN]);
        assert!(matches!(buffer.next_frame(), Err(FrameError::TooLong { max: MESSAGE_LEN_MAX, .. })));
    }

    #[test]
    fn a_foreign_stream_is_reported_as_such() {
        let mut buffer = FrameBuffer::new(100);
        buffer.extend(b"GET / HTTP/1.1\r\n");
        assert!(matches!(buffer.next_frame(), Err(FrameError::Magic { .. })));
    }
}
