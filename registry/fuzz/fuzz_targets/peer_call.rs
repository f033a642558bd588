//! Any bytes are an error, or what nodes ask and answer, written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_registry::raft::rpc::{Answer, Call};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = Call::decode(bytes) {
        assert_eq!(call.encode(), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode(), bytes);
    }
});
