//! A stream of bytes is split into frames: the same ones, however it is cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_protocol::{FRAME_HEADER_LEN_BYTES, FrameError, split_frame};

/// The frames at the front of `stream`: where each begins and ends, and the error that ended it.
fn frames(stream: &[u8]) -> (Vec<(usize, usize)>, Option<FrameError>) {
    let (mut found, mut start) = (Vec::new(), 0);
    loop {
        match split_frame(&stream[start..]) {
            Ok(Some((header, body))) => {
                let len_bytes = header.len_bytes.get() as usize;
                assert_eq!(body.len() + FRAME_HEADER_LEN_BYTES, len_bytes);
                assert_eq!(body.len(), header.body_len_bytes());
                found.push((start, start + len_bytes));
                start += len_bytes;
            }
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, stream) = input;
    let (all, error) = frames(stream);
    // A stream that is cut short has the same frames as far as it goes, and never another error.
    let cut = usize::from(cut) % (stream.len() + 1);
    let (some, early) = frames(&stream[..cut]);
    assert_eq!(some, all[..some.len()]);
    assert!(early.is_none() || early == error);
});
