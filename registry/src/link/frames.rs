//! Frames out of a stream of bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tally_protocol::link::{LinkError, LinkFrame, decode};
use tally_protocol::reply::Refused;
use tally_protocol::{Envelope, FRAME_HEADER_LEN_BYTES, FrameHeader, Refusal, Reply, Timestamp, split_frame};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read takes at most.
const READ_LEN_BYTES: usize = 256 << 10;

/// A frame: its header and its body.
#[derive(Clone, Debug)]
pub struct Frame {
    header: FrameHeader,
    body: Bytes,
}

impl Frame {
    /// The header.
    pub const fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The sender's clock; 0 from who has none.
    pub const fn stamp(&self) -> Timestamp {
        self.header.link_stamp()
    }

    /// What it says.
    ///
    /// # Errors
    /// When it is not one of a link.
    pub fn decode(&self) -> Result<LinkFrame<'_>, LinkError> {
        decode(&self.header, &self.body)
    }

    /// Why the peer refuses, if that is what it says.
    pub fn refused_text(&self) -> Option<String> {
        match tally_protocol::reply::decode(&self.header, &self.body) {
            Ok(Reply::Refused(refused)) => {
                let name = refused.refusal().map_or_else(|| refused.code.to_string(), |refusal| refusal.to_string());
                Some(format!("{name}: {}", refused.text))
            }
            Ok(_) | Err(_) => None,
        }
    }
}

/// Appends the frame that says why a link ends.
pub fn append_refused(out: &mut Vec<u8>, request_id: u64, refusal: Refusal, text: &str) {
    let refused = Refused { code: refusal.code(), retry_after_ms: 0, text };
    Reply::Refused(refused).append_to(out, Envelope::request(request_id));
}

/// Reads frames from `stream`, many with one read.
#[derive(Debug)]
pub struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// Reads from `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame, waiting for it; `None` at the end of the stream. May be dropped and called again.
    ///
    /// # Errors
    /// When the stream fails, ends within a frame, or carries something else.
    pub async fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.ready_frame()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_LEN_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// A frame that is there already.
    ///
    /// # Errors
    /// When what is there is none.
    pub fn ready_frame(&mut self) -> io::Result<Option<Frame>> {
        let split = split_frame(&self.buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let Some((&header, body)) = split else { return Ok(None) };
        let len_bytes = FRAME_HEADER_LEN_BYTES + body.len();
        let body = self.buffer.split_to(len_bytes).freeze().slice(FRAME_HEADER_LEN_BYTES..);
        Ok(Some(Frame { header, body }))
    }
}

#[cfg(test)]
mod tests {
    use tally_protocol::link::MarkItem;

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    #[test]
    fn frames_are_found_whatever_the_pieces_they_come_in() {
        let marks = [MarkItem::new(1, 2), MarkItem::new(3, 4)];
        let mut bytes = Vec::new();
        LinkFrame::Ask(&marks).append_to(&mut bytes, Envelope::request(0));
        LinkFrame::Call("{}").append_to(&mut bytes, Envelope::request(9));
        for piece_len_bytes in 1..bytes.len() {
            let pieces = bytes.chunks(piece_len_bytes).map(|piece| io::Result::Ok(Bytes::copy_from_slice(piece)));
            let (read, mut write) = tokio::io::duplex(1 << 16);
            block_on(async {
                for piece in pieces {
                    tokio::io::AsyncWriteExt::write_all(&mut write, &piece.expect("a piece")).await.expect("room");
                }
                drop(write);
                let mut reader = FrameReader::new(read);
                let first = reader.next_frame().await.expect("valid").expect("there");
                assert_eq!(first.decode(), Ok(LinkFrame::Ask(&marks)));
                let second = reader.next_frame().await.expect("valid").expect("there");
                assert_eq!(second.decode(), Ok(LinkFrame::Call("{}")));
                assert_eq!(second.header().request_id.get(), 9);
                assert!(reader.next_frame().await.expect("valid").is_none());
            });
        }
    }

    #[test]
    fn an_end_within_a_frame_and_bytes_that_are_none_are_errors() {
        let mut bytes = Vec::new();
        LinkFrame::Call("{}").append_to(&mut bytes, Envelope::request(9));
        let cut = &bytes[..bytes.len() - 1];
        let read = |bytes: &[u8]| block_on(FrameReader::new(bytes).next_frame());
        assert_eq!(read(cut).expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&[0xff; 64]).expect_err("no frame").kind(), io::ErrorKind::InvalidData);
    }
}
