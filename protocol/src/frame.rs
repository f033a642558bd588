//! Writing frames: a header and the parts of a body, appended to a buffer that the caller reuses.

use zerocopy::IntoBytes;

use crate::{FrameHeader, LinkType, MessageType};

/// What a frame says about itself beside its type and body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Chosen by the client, repeated in the reply.
    pub request_id: u64,
    /// A W3C trace id, 0 for none.
    pub trace_id: u128,
    /// Milliseconds after receipt at which the request is refused instead of begun; 0 for none, and in replies.
    pub deadline_ms: u32,
}

impl Envelope {
    /// For a request without trace and deadline.
    pub const fn request(request_id: u64) -> Self {
        Self { request_id, trace_id: 0, deadline_ms: 0 }
    }

    /// For the reply to the request that came with `header`.
    pub const fn reply_to(header: &FrameHeader) -> Self {
        Self { request_id: header.request_id.get(), trace_id: header.trace_id.get(), deadline_ms: 0 }
    }

    /// What `header` says.
    pub const fn of(header: &FrameHeader) -> Self {
        Self {
            request_id: header.request_id.get(),
            trace_id: header.trace_id.get(),
            deadline_ms: header.deadline_ms.get(),
        }
    }

    /// The header of a frame of this envelope.
    ///
    /// # Panics
    /// When the frame would be over the limit, as [`FrameHeader::new`].
    pub fn header(&self, message_type: MessageType, body_len_bytes: usize) -> FrameHeader {
        FrameHeader::new(message_type, self.request_id, body_len_bytes)
            .with_trace_id(self.trace_id)
            .with_deadline_ms(self.deadline_ms)
    }

    /// The header of a link's frame of this envelope.
    ///
    /// # Panics
    /// As [`Self::header`].
    pub fn link_header(&self, link_type: LinkType, body_len_bytes: usize) -> FrameHeader {
        FrameHeader::of_link(link_type, self.request_id, body_len_bytes)
            .with_trace_id(self.trace_id)
            .with_deadline_ms(self.deadline_ms)
    }
}

/// Appends one frame to `out`: the header, then the parts of the body one behind the other.
///
/// # Panics
/// When the frame would be over [`crate::FRAME_LEN_BYTES_MAX`]: a bug of the caller.
pub fn append_frame(out: &mut Vec<u8>, envelope: Envelope, message_type: MessageType, parts: &[&[u8]]) {
    let body_len_bytes = parts.iter().map(|part| part.len()).sum();
    let header = envelope.header(message_type, body_len_bytes);
    out.reserve(FrameHeader::LEN_BYTES + body_len_bytes);
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split_frame;

    #[test]
    fn frames_appended_one_behind_the_other_are_split_again() {
        let mut out = Vec::new();
        let envelope = Envelope { request_id: 7, trace_id: 9, deadline_ms: 250 };
        append_frame(&mut out, envelope, MessageType::Login, &[b"ab", b"", b"c"]);
        append_frame(&mut out, Envelope::request(8), MessageType::Ping, &[]);

        let (header, body) = split_frame(&out).expect("valid").expect("whole");
        assert_eq!((header.message_type(), body), (Some(MessageType::Login), &b"abc"[..]));
        assert_eq!(Envelope::of(header), envelope);
        assert_eq!(Envelope::reply_to(header), Envelope { deadline_ms: 0, ..envelope });
        let second = &out[header.len_bytes.get() as usize..];
        let (header, body) = split_frame(second).expect("valid").expect("whole");
        assert_eq!((header.message_type(), body.len(), header.request_id.get()), (Some(MessageType::Ping), 0, 8));
    }

    #[test]
    #[should_panic(expected = "frame of")]
    fn a_frame_over_the_limit_is_never_written() {
        let body = vec![0; crate::FRAME_LEN_BYTES_MAX];
        append_frame(&mut Vec::new(), Envelope::request(1), MessageType::Batch, &[&body]);
    }
}
