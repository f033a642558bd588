//! Any body under any type is an error, or is read and encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_protocol::{Envelope, MessageType, append_frame, reply, split_frame};

fuzz_target!(|input: (u16, &[u8])| {
    let (code, body) = input;
    let some = MessageType::ALL[usize::from(code) % MessageType::ALL.len()];
    let message_type = MessageType::from_code(code).unwrap_or(some);
    let mut frame = Vec::new();
    append_frame(&mut frame, Envelope::request(7), message_type, &[body]);
    let (header, body) = split_frame(&frame).expect("our own header").expect("a whole frame");
    if let Ok(reply) = reply::decode(header, body) {
        let mut again = Vec::new();
        reply.append_to(&mut again, Envelope::request(7));
        assert_eq!(frame, again);
        let _ = format!("{reply:?}");
    }
});
