//! The bytes that have arrived on a connection and are not yet read as frames.
//!
//! Invariant: `start <= end <= bytes.len()`; the unread bytes are `bytes[start..end]`. The buffer grows only for
//! a frame that does not fit, so it is never larger than two of the largest frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tally_protocol::{FRAME_LEN_BYTES_MAX, FrameError, FrameHeader, split_frame};
use tokio::io::{AsyncRead, ReadBuf};

/// Enough for a few hundred replies to single transfers.
const LEN_BYTES_MIN: usize = 32 * 1024;
/// Below this much room, the unread bytes move to the front.
const ROOM_LEN_BYTES_MIN: usize = 8 * 1024;
const LEN_BYTES_MAX: usize = 2 * FRAME_LEN_BYTES_MAX;

const _: () = assert!(ROOM_LEN_BYTES_MIN < LEN_BYTES_MIN && LEN_BYTES_MIN < LEN_BYTES_MAX);

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; LEN_BYTES_MIN], start: 0, end: 0 }
    }

    /// Reads once from `stream`. `Ok(0)` means that the peer has hung up.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut buffer = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let len_bytes = buffer.filled().len();
        self.end += len_bytes;
        Poll::Ready(Ok(len_bytes))
    }

    /// The next whole frame, which is then read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(&FrameHeader, &[u8])>, FrameError> {
        let frame = split_frame(&self.bytes[self.start..self.end])?;
        if let Some((header, _)) = frame {
            self.start += header.len_bytes.get() as usize;
        }
        Ok(frame)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() - self.end >= ROOM_LEN_BYTES_MIN {
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() - self.end < ROOM_LEN_BYTES_MIN {
            let len_bytes = (self.bytes.len() * 2).min(LEN_BYTES_MAX);
            self.bytes.resize(len_bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::MessageType;
    use tally_protocol::frame::{Envelope, append_frame};

    use super::*;

    /// Hands out `bytes` in pieces of `piece` bytes.
    struct Pieces {
        bytes: Vec<u8>,
        piece: usize,
        read: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            let len_bytes = this.piece.min(this.bytes.len() - this.read).min(buf.remaining());
            buf.put_slice(&this.bytes[this.read..this.read + len_bytes]);
            this.read += len_bytes;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let bodies = [0usize, 1, 500, 40_000, FRAME_LEN_BYTES_MAX - 40, 3, 70_000];
        for piece in [1_000, 4_096, 100_000, usize::MAX] {
            let mut bytes = Vec::new();
            for (index, &len_bytes) in bodies.iter().enumerate() {
                let body = vec![index as u8; len_bytes];
                append_frame(&mut bytes, Envelope::request(index as u64), MessageType::FeedPage, &[&body]);
            }
            let mut stream = Pieces { bytes, piece, read: 0 };
            let mut inbound = Inbound::new();
            let mut seen = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Ok(1..)) = inbound.poll_fill(&mut stream, &mut cx) {
                while let Some((header, body)) = inbound.next_frame().expect("valid frames") {
                    assert!(body.iter().all(|&byte| u64::from(byte) == header.request_id.get()));
                    seen.push(body.len());
                }
            }
            assert_eq!(seen, bodies, "in pieces of {piece}");
        }
    }
}
