//! Any bytes with a good checksum are an error, or a state: reading them never panics, nor asks for much memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_registry::state::State;

const MAGIC_LEN_BYTES: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    // As the encoder has it, so that another version's does not end every input here.
    let mut whole = State::default().encode();
    whole.truncate(MAGIC_LEN_BYTES);
    whole.extend_from_slice(bytes);
    let checksum = xxhash_rust::xxh3::xxh3_64(&whole);
    whole.extend_from_slice(&checksum.to_le_bytes());
    if let Ok(state) = State::decode(&whole) {
        assert_eq!(State::decode(&state.encode()), Ok(state));
    }
});
