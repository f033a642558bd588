//! The fixed header in front of every frame.
//!
//! ```text
//!  0        4      6   7   8                16                              32      36
//!  | length | type | v | 0 | request id     | trace id                      | ddl   | 0    |
//! ```
//!
//! `length` counts the whole frame, header included. All fields are little-endian.

use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The only protocol version this build speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Size of [`FrameHeader`].
pub const FRAME_HEADER_LEN_BYTES: usize = 40;
/// The largest frame either side may send: room for a full batch (8,190 x 112 bytes), rounded up to 1 MiB.
pub const FRAME_LEN_BYTES_MAX: usize = 1 << 20;

/// The header of a frame, as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    /// Bytes in the frame, this header included: `FRAME_HEADER_LEN_BYTES..=FRAME_LEN_BYTES_MAX`.
    pub len_bytes: U32,
    /// One of [`crate::MessageType`].
    pub message_type: U16,
    /// [`PROTOCOL_VERSION`] once the handshake has chosen it.
    pub version: u8,
    /// Must be 0.
    pub reserved: u8,
    /// Chosen by the client, repeated in the reply; replies may come in another order.
    pub request_id: U64,
    /// A W3C trace id (16 bytes, opaque to us) that logs repeat; 0 for none.
    pub trace_id: U128,
    /// Milliseconds after receipt at which the request is refused instead of begun; 0 for none.
    pub deadline_ms: U32,
    /// Must be 0.
    pub reserved_2: U32,
}

const _: () = assert!(size_of::<FrameHeader>() == FRAME_HEADER_LEN_BYTES);
const _: () = assert!(core::mem::offset_of!(FrameHeader, message_type) == 4);
const _: () = assert!(core::mem::offset_of!(FrameHeader, request_id) == 8);
const _: () = assert!(core::mem::offset_of!(FrameHeader, trace_id) == 16);
const _: () = assert!(core::mem::offset_of!(FrameHeader, deadline_ms) == 32);

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
    pub fn new(message_type: crate::MessageType, request_id: u64, body_len_bytes: usize) -> Self {
        let len_bytes = FRAME_HEADER_LEN_BYTES + body_len_bytes;
        assert!(len_bytes <= FRAME_LEN_BYTES_MAX, "frame of {len_bytes} bytes");
        Self {
            len_bytes: U32::new(len_bytes as u32),
            message_type: U16::new(message_type as u16),
            version: PROTOCOL_VERSION,
            reserved: 0,
            request_id: U64::new(request_id),
            trace_id: U128::new(0),
            deadline_ms: U32::new(0),
            reserved_2: U32::new(0),
        }
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
        if self.reserved != 0 || self.reserved_2.get() != 0 {
            return Err(FrameError::Reserved);
        }
        Ok(())
    }
}
