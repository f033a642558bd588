//! The fixed header in front of every frame.
//!
//! ```text
//!  0        4      6   7   8                16                              32      36
//!  | length | type | v | 0 | request id     | trace id                      | ddl   | 0    |
//! ```
//!
//! `length` counts the whole frame, header included. All fields are little-endian.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};

use crate::{LinkType, MessageType, Refusal, Timestamp};

/// The only protocol version this build speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Size of [`FrameHeader`].
pub const FRAME_HEADER_LEN_BYTES: usize = 40;
/// The largest frame either side may send: room for a full batch (8,190 x 112 bytes), rounded up to 1 MiB.
pub const FRAME_LEN_BYTES_MAX: usize = 1 << 20;

wire! {
    /// The header of a frame, as it lies on the wire.
    FrameHeader 40 {
        /// Bytes in the frame, this header included: `FRAME_HEADER_LEN_BYTES..=FRAME_LEN_BYTES_MAX`.
        0 len_bytes: U32,
        /// One of [`crate::MessageType`]; between services, of [`crate::LinkType`].
        4 message_type: U16,
        /// [`PROTOCOL_VERSION`], in the handshake too: the version of the framing itself.
        6 version: u8,
        /// Must be 0.
        7 reserved: u8,
        /// Chosen by the client, repeated in the reply; replies may come in another order.
        8 request_id: U64,
        /// A W3C trace id (16 bytes, opaque to us) that logs repeat; 0 for none.
        16 trace_id: U128,
        /// Milliseconds after receipt at which the request is refused instead of begun; 0 for none.
        32 deadline_ms: U32,
        /// Must be 0; on links, see [`FrameHeader::link_stamp`].
        36 reserved_2: U32,
    }
}

const _: () = assert!(FrameHeader::LEN_BYTES == FRAME_HEADER_LEN_BYTES);

/// What is wrong with the bytes where a frame should start. The connection cannot go on after any of
/// these: where the next frame starts is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// `length` is below the header's own size.
    #[error("frame of {len_bytes} bytes is shorter than its header of {FRAME_HEADER_LEN_BYTES}")]
    TooShort {
        /// What the header said.
        len_bytes: u32,
    },
    /// `length` is above [`FRAME_LEN_BYTES_MAX`].
    #[error("frame of {len_bytes} bytes is over the limit of {FRAME_LEN_BYTES_MAX}")]
    TooLong {
        /// What the header said.
        len_bytes: u32,
    },
    /// The version byte is not the one that the handshake chose.
    #[error("protocol version {version} is not spoken here")]
    Version {
        /// What the header said.
        version: u8,
    },
    /// A reserved field is not 0.
    #[error("a reserved header field is not zero")]
    Reserved,
}

impl FrameError {
    /// The code that the peer is told before the connection is closed.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::TooShort { .. } | Self::TooLong { .. } | Self::Reserved => Refusal::FrameInvalid,
            Self::Version { .. } => Refusal::VersionUnsupported,
        }
    }
}

/// The first frame in `bytes`, if it is there in full: its header and its body.
///
/// Returns `Ok(None)` when more bytes are needed, and an error as soon as the header shows one, before
/// the body has arrived, so that a peer cannot make us wait for a frame that will be refused.
pub fn split_frame(bytes: &[u8]) -> Result<Option<(&FrameHeader, &[u8])>, FrameError> {
    let Ok((header, _)) = FrameHeader::ref_from_prefix(bytes) else {
        return Ok(None);
    };
    header.check()?;
    Ok(bytes.get(FRAME_HEADER_LEN_BYTES..header.len_bytes.get() as usize).map(|body| (header, body)))
}

impl FrameHeader {
    /// A header for a body of `body_len_bytes`.
    ///
    /// # Panics
    /// When the frame would be over [`FRAME_LEN_BYTES_MAX`]: a bug of the caller.
    pub fn new(message_type: MessageType, request_id: u64, body_len_bytes: usize) -> Self {
        Self::with_code(message_type as u16, request_id, body_len_bytes)
    }

    /// As [`Self::new`], for a message of a link.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn of_link(link_type: LinkType, request_id: u64, body_len_bytes: usize) -> Self {
        Self::with_code(link_type as u16, request_id, body_len_bytes)
    }

    fn with_code(code: u16, request_id: u64, body_len_bytes: usize) -> Self {
        let len_bytes = FRAME_HEADER_LEN_BYTES + body_len_bytes;
        assert!(len_bytes <= FRAME_LEN_BYTES_MAX, "frame of {len_bytes} bytes");
        Self {
            len_bytes: U32::new(len_bytes as u32),
            message_type: U16::new(code),
            version: PROTOCOL_VERSION,
            reserved: 0,
            request_id: U64::new(request_id),
            trace_id: U128::new(0),
            deadline_ms: U32::new(0),
            reserved_2: U32::new(0),
        }
    }

    /// The same header for a request that logs know by `trace_id` (0 for none).
    pub const fn with_trace_id(self, trace_id: u128) -> Self {
        Self { trace_id: U128::new(trace_id), ..self }
    }

    /// The same header for a request that is refused when it has not begun `deadline_ms` after receipt (0 for
    /// no deadline).
    pub const fn with_deadline_ms(self, deadline_ms: u32) -> Self {
        Self { deadline_ms: U32::new(deadline_ms), ..self }
    }

    /// What the frame carries, if this build knows the code.
    pub const fn message_type(&self) -> Option<MessageType> {
        MessageType::from_code(self.message_type.get())
    }

    /// What the frame of a link carries, if this build knows the code.
    pub const fn link_type(&self) -> Option<LinkType> {
        LinkType::from_code(self.message_type.get())
    }

    /// Whether the code lies in the range of the links, known to this build or not.
    pub const fn is_of_link(&self) -> bool {
        self.message_type.get() >> 8 == 1
    }

    /// The sender's clock, on links: the two last fields are one there, nanoseconds since the epoch. 0 from who has no
    /// part in the bank's time.
    pub const fn link_stamp(&self) -> Timestamp {
        Timestamp::from_nanos(self.deadline_ms.get() as u64 | (self.reserved_2.get() as u64) << 32)
    }

    /// The same header of a link's frame, from a sender whose clock shows `stamp`.
    pub const fn with_link_stamp(self, stamp: Timestamp) -> Self {
        let nanos = stamp.as_nanos();
        Self { deadline_ms: U32::new(nanos as u32), reserved_2: U32::new((nanos >> 32) as u32), ..self }
    }

    /// Bytes behind the header. Only of use once [`split_frame`] has accepted the header.
    pub const fn body_len_bytes(&self) -> usize {
        (self.len_bytes.get() as usize).saturating_sub(FRAME_HEADER_LEN_BYTES)
    }

    fn check(&self) -> Result<(), FrameError> {
        let len_bytes = self.len_bytes.get();
        if (len_bytes as usize) < FRAME_HEADER_LEN_BYTES {
            return Err(FrameError::TooShort { len_bytes });
        }
        if len_bytes as usize > FRAME_LEN_BYTES_MAX {
            return Err(FrameError::TooLong { len_bytes });
        }
        if self.version != PROTOCOL_VERSION {
            return Err(FrameError::Version { version: self.version });
        }
        if self.reserved != 0 || (self.reserved_2.get() != 0 && !self.is_of_link()) {
            return Err(FrameError::Reserved);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn with(change: impl FnOnce(&mut FrameHeader)) -> Result<bool, FrameError> {
        let mut header = FrameHeader::new(MessageType::Ping, 1, 0);
        change(&mut header);
        split_frame(header.as_bytes()).map(|frame| frame.is_some())
    }

    #[test]
    fn a_broken_header_is_an_error_before_the_body_has_arrived() {
        assert_eq!(with(|_| ()), Ok(true));
        assert_eq!(with(|header| header.len_bytes.set(41)), Ok(false));
        assert_eq!(with(|header| header.len_bytes.set(FRAME_LEN_BYTES_MAX as u32)), Ok(false));
        let over = FRAME_LEN_BYTES_MAX as u32 + 1;
        assert_eq!(with(|header| header.len_bytes.set(over)), Err(FrameError::TooLong { len_bytes: over }));
        assert_eq!(with(|header| header.len_bytes.set(39)), Err(FrameError::TooShort { len_bytes: 39 }));
        assert_eq!(with(|header| header.len_bytes.set(0)), Err(FrameError::TooShort { len_bytes: 0 }));
        assert_eq!(with(|header| header.version = 2), Err(FrameError::Version { version: 2 }));
        assert_eq!(with(|header| header.reserved = 1), Err(FrameError::Reserved));
        assert_eq!(with(|header| header.reserved_2.set(1)), Err(FrameError::Reserved));
        assert_eq!(FrameError::Reserved.refusal(), Refusal::FrameInvalid);
        assert_eq!(FrameError::Version { version: 2 }.refusal(), Refusal::VersionUnsupported);
    }

    #[test]
    fn every_cut_of_a_frame_waits_for_more() {
        let mut frame = Vec::new();
        crate::append_frame(&mut frame, crate::Envelope::request(1), MessageType::Login, &[b"hello"]);
        for len in 0..frame.len() {
            assert_eq!(split_frame(&frame[..len]), Ok(None), "{len} bytes");
        }
        let (header, body) = split_frame(&frame).expect("valid").expect("whole");
        assert_eq!((header.body_len_bytes(), body), (5, &b"hello"[..]));
    }
}
