//! Any bytes are no batch, or one whose commands are written alike; what they lead to is a state that a snapshot holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_registry::state::{BatchBuilder, BatchReader, State};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = BatchReader::new(bytes) else { return };
    let header = reader.header();
    let (mut builder, mut state) = (BatchBuilder::default(), State::default());
    loop {
        match reader.next_command() {
            Ok(Some(command)) => {
                builder.push(&command);
                let _ = state.apply(&command);
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    assert_eq!(builder.take(header.node_id, header.boot, header.number), bytes);
    assert_eq!(State::decode(&state.encode()), Ok(state));
});
