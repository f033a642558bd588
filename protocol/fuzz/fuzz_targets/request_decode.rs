//! Any body under any type is refused by name, or is read and encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_protocol::{Envelope, MessageType, append_frame, request, split_frame};

fuzz_target!(|input: (u16, &[u8])| {
    let (code, body) = input;
    let some = MessageType::ALL[usize::from(code) % MessageType::ALL.len()];
    let message_type = MessageType::from_code(code).unwrap_or(some);
    let mut frame = Vec::new();
    append_frame(&mut frame, Envelope::request(7), message_type, &[body]);
    let (header, body) = split_frame(&frame).expect("our own header").expect("a whole frame");
    match request::decode(header, body) {
        Ok(request) => {
            let mut again = Vec::new();
            request.append_to(&mut again, Envelope::request(7));
            assert_eq!(frame, again);
            let _ = format!("{request:?}");
        }
        Err(refusal) => assert!(!refusal.consumes_id(), "{refusal}"),
    }
});
