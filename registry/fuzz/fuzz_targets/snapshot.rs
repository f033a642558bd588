//! Any bytes with a good checksum are an error, or a state: reading them never panics, nor asks for much memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_registry::state::State;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = b"TALLYST1".to_vec();
    whole.extend_from_slice(bytes);
    let checksum = xxhash_rust::xxh3::xxh3_64(&whole);
    whole.extend_from_slice(&checksum.to_le_bytes());
    if let Ok(state) = State::decode(&whole) {
        assert_eq!(State::decode(&state.encode()), Ok(state));
    }
});
