//! The sender's clock in every frame of a link, set where frames leave.
//!
//! One place for all kinds of frames, so that none is forgotten: a hybrid logical clock only keeps causes before effects
//! when every message carries it.

use zerocopy::{FromBytes, IntoBytes};

use crate::{FrameHeader, Timestamp};

/// Writes `stamp` into the header of every frame of a link in `frames`, which holds whole frames, one behind the other.
/// A refusal, which is no frame of a link, stays as it is.
///
/// # Panics
/// When the last frame is cut short: a bug of the caller.
pub fn stamp_frames(mut frames: &mut [u8], stamp: Timestamp) {
    while !frames.is_empty() {
        let (header, _) = FrameHeader::mut_from_prefix(frames).expect("whole frames");
        if header.is_of_link() {
            *header = header.with_link_stamp(stamp);
        }
        let len_bytes = header.len_bytes.get() as usize;
        assert!(len_bytes >= header.as_bytes().len(), "a frame of {len_bytes} bytes");
        frames = &mut frames[len_bytes..];
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkFrame, MarkItem};
    use super::*;
    use crate::reply::Refused;
    use crate::{Envelope, Reply, split_frame};

    #[test]
    fn every_frame_of_a_link_is_stamped_and_reads_as_before() {
        let marks = [MarkItem::new(1, 2)];
        let mut bytes = Vec::new();
        LinkFrame::Ask(&marks).append_to(&mut bytes, Envelope::request(0));
        LinkFrame::Call("{}").append_to(&mut bytes, Envelope::request(9));
        Reply::Refused(Refused { code: 7, retry_after_ms: 0, text: "no" }).append_to(&mut bytes, Envelope::request(9));
        let stamp = Timestamp::from_nanos(0x0123_4567_89ab_cdef);
        stamp_frames(&mut bytes, stamp);
        let (mut rest, mut stamps) = (&bytes[..], Vec::new());
        while let Some((header, body)) = split_frame(rest).expect("valid") {
            stamps.push(header.link_stamp().as_nanos());
            if stamps.len() == 1 {
                assert_eq!(super::super::decode(header, body), Ok(LinkFrame::Ask(&marks)));
            }
            rest = &rest[header.len_bytes.get() as usize..];
        }
        assert_eq!(stamps, [stamp.as_nanos(), stamp.as_nanos(), 0]);
        assert_eq!(bytes[32..40], 0x0123_4567_89ab_cdef_u64.to_le_bytes());
    }
}
