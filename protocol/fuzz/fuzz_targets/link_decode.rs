//! Any body under any type of a link is an error, or is read and encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_protocol::link::{self, LinkFrame};
use tally_protocol::{Envelope, FrameHeader, LinkType, split_frame};

fuzz_target!(|input: (u16, &[u8])| {
    let (code, body) = input;
    let some = LinkType::ALL[usize::from(code) % LinkType::ALL.len()];
    let link_type = LinkType::from_code(code).unwrap_or(some);
    let header = FrameHeader::of_link(link_type, 7, body.len());
    if let Ok(frame) = link::decode(&header, body) {
        let mut again = Vec::new();
        frame.append_to(&mut again, Envelope::request(7));
        let (header_again, body_again) = split_frame(&again).expect("our own header").expect("a whole frame");
        assert_eq!((header_again, body_again), (&header, body));
        if let LinkFrame::Routes(routes) = frame {
            assert!(routes.iter().count() <= link::LINK_ROUTES_MAX);
        }
        let _ = format!("{frame:?}");
    }
});
