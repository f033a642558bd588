//! Every queue is bounded, and full means `Busy`.

use super::{Violation, hold};

/// How full the queues are, and how full they may be.
#[derive(Clone, Copy, Debug)]
pub struct Depths {
    /// Requests taken from clients and not yet answered.
    pub open_requests: usize,
    /// What queues, workers and look-ups have room for together.
    pub open_requests_max: usize,
    /// Open holds, and room secured for some.
    pub holds: usize,
    /// As configured.
    pub holds_max: usize,
    /// Bytes of the log that are not durable.
    pub log_len_bytes: u64,
    /// The ring.
    pub log_len_bytes_max: u64,
}

/// Checks the depths.
///
/// # Errors
/// When a queue is longer than it may be.
pub fn check(depths: &Depths) -> Result<(), Violation> {
    hold!(Bounded, depths.open_requests <= depths.open_requests_max, "requests: {depths:?}");
    hold!(Bounded, depths.holds <= depths.holds_max, "holds: {depths:?}");
    hold!(Bounded, depths.log_len_bytes <= depths.log_len_bytes_max, "log: {depths:?}");
    Ok(())
}
