//! Frames out of a stream, with no memory held while nothing comes.

use crate::protocol::Breach;
use etwsieve_transport::wire::frame::{self, FrameType, HEADER_LEN, Split};
use etwsieve_transport::wire::message::MESSAGE_LEN_MAX;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, ReadBuf};

/// Most bytes taken from the stream at once.
const CHUNK_LEN: usize = 16 << 10;
/// Place of the type in a header.
const TYPE_AT: usize = 5;

/// What has been received and not been handled: less than one frame, or what came behind it in the same chunk.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Where the next frame begins in `bytes`.
    start: usize,
}

impl Frames {
    /// Whether a frame has begun and is not complete.
    pub(super) fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// The next frame, or `None` if it is still arriving. `data_max` bounds a DATA frame's payload.
    ///
    /// # Errors
    ///
    /// [`Breach::Frame`] and [`Breach::TooLong`], as soon as the header is there.
    pub(super) fn next(&mut self, data_max: usize) -> Result<Option<(FrameType, &[u8])>, Breach> {
        let input = &self.bytes[self.start..];
        if let Some(header) = input.first_chunk::<HEADER_LEN>() {
            let [.., l0, l1, l2, l3, _, _, _, _] = *header;
            let kind = header[TYPE_AT];
            let max = if kind == FrameType::Data as u8 { data_max } else { MESSAGE_LEN_MAX };
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            // A stream of something else is told as such.
            if header[..4] == *b"ETWS" && len > max {
                return Err(Breach::TooLong { kind, len, max });
            }
        }
        let Some(Split { frame_type, payload, rest }) = frame::split_frame(input)? else {
            return Ok(None);
        };
        self.start = self.bytes.len() - rest.len();
        Ok(Some((frame_type, payload)))
    }

    /// Waits for bytes and takes them. 0: the stream has ended. Dropping the future loses nothing.
    pub(super) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.start = 0;
        poll_fn(|context| {
            // On the stack of the poll, so that a connection that waits holds no buffer.
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
