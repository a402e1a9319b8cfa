//! Reads frames from a stream without holding a buffer while the connection is idle.

use crate::protocol::ProtocolViolation;
use etwsieve_transport::wire::frame::{self, FrameType, HEADER_LEN, Split};
use etwsieve_transport::wire::message::MESSAGE_LEN_MAX;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, ReadBuf};

/// Maximum number of bytes per read.
const CHUNK_LEN: usize = 16 << 10;
/// Offset of the type in a frame header.
const TYPE_AT: usize = 5;

/// Bytes that were received and not yet handled: part of a frame, or further frames of the last read.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    bytes: Vec<u8>,
    /// Offset of the next frame in `bytes`.
    start: usize,
}

impl FrameReader {
    /// Returns whether an incomplete frame is buffered.
    pub(super) fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// Returns the next frame, or `None` if it is incomplete. `data_max` is the maximum payload of a DATA frame in
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`ProtocolViolation::Frame`] and [`ProtocolViolation::TooLong`], as soon as the header has arrived.
    pub(super) fn next(&mut self, data_max: usize) -> Result<Option<(FrameType, &[u8])>, ProtocolViolation> {
        let input = &self.bytes[self.start..];
        if let Some(header) = input.first_chunk::<HEADER_LEN>() {
            let [.., l0, l1, l2, l3, _, _, _, _] = *header;
            let kind = header[TYPE_AT];
            let max = if kind == FrameType::Data as u8 { data_max } else { MESSAGE_LEN_MAX };
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            // Without the magic number it is not a frame at all, which `split_frame` reports.
            if header[..4] == *b"ETWS" && len > max {
                return Err(ProtocolViolation::TooLong { kind, len, max });
            }
        }
        let Some(Split { frame_type, payload, rest }) = frame::split_frame(input)? else {
            return Ok(None);
        };
        self.start = self.bytes.len() - rest.len();
        Ok(Some((frame_type, payload)))
    }

    /// Reads bytes into the buffer and returns how many; 0: the stream has ended. Cancel safe.
    pub(super) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.start = 0;
        poll_fn(|context| {
            // On the stack of the poll, so that an idle connection holds no buffer.
            let mut chunk = [0; CHUNK_LEN];
            let mut chunk = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *stream).poll_read(context, &mut chunk) {
                Poll::Ready(Ok(())) => {
                    self.bytes.extend_from_slice(chunk.filled());
                    Poll::Ready(Ok(chunk.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.bytes.is_empty() {
                        self.bytes = Vec::new();
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}
