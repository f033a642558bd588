//! The only two clocks of the server: one that never goes back, for deadlines and latencies, and the
//! wall clock, from which the ledger takes its time stamps.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tally_protocol::Timestamp;

/// Nanoseconds since the process first asked; never goes back.
pub fn monotonic_nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // One nanosecond is added so that 0 can mean "no deadline".
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// The wall clock. May jump; the journal keeps the stamps that it hands out strictly increasing.
pub fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set after 1970");
    Timestamp::from_nanos(since_epoch.as_nanos() as u64)
}
