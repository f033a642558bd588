//! Every bound of the session layer, each with its reason. Nothing that a peer can do makes the server
//! use more than these say, and no wait for a peer lasts longer.
//!
//! The ones that an operator may want to move are fields of [`SessionLimits`] (configuration section
//! `[limits]`); the others are constants.

use std::time::Duration;

use tally_protocol::{FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, message};

/// What one read of a socket may bring in at most, and so the size of the buffer that a session thread
/// reads into. Sixteen full TLS records: fewer system calls for batches, still inside the L2 cache.
pub const READ_LEN_BYTES_MAX: usize = 256 * 1024;

/// A frame that is longer than this is gathered in a buffer of its own, which then travels to the worker
/// without another copy. Shorter ones are cheaper to copy than to give a buffer.
pub const LARGE_FRAME_LEN_BYTES: usize = 16 * 1024;

/// The longest frame before login: a hello, or a login with the longest user name and secret.
pub const FRAME_BEFORE_LOGIN_LEN_BYTES_MAX: usize = 8 * 1024;

/// A session whose unsent replies are longer than this is not read from until the peer has taken them.
pub const OUTBOUND_PAUSE_LEN_BYTES: usize = 256 * 1024;

/// Room for long replies (to batches, chains, lists of accounts and feed reads) is set aside when the
/// request is taken; a session that has set aside this much is not read from until some of it came back.
/// Four whole frames: enough to keep a worker busy over a slow network, and what a peer that does not
/// read makes us hold is bounded by it.
pub const REPLY_ROOM_LEN_BYTES_MAX: usize = 4 * FRAME_LEN_BYTES_MAX;

/// The most that one session's unsent replies can grow to.
pub const OUTBOUND_LEN_BYTES_MAX: usize = OUTBOUND_PAUSE_LEN_BYTES
    + REPLY_ROOM_LEN_BYTES_MAX
    + FRAME_LEN_BYTES_MAX
    + IN_FLIGHT_MAX_MAX as usize * SINGLE_REPLY_LEN_BYTES_MAX;

/// The longest reply for which no room is set aside: a transfer that was found, a refusal with its text
/// (see [`REFUSAL_TEXT_LEN_BYTES_MAX`]), a chain or batch of a few.
pub const SINGLE_REPLY_LEN_BYTES_MAX: usize = 512;

/// The longest text for people in a refusal.
pub const REFUSAL_TEXT_LEN_BYTES_MAX: usize = 256;

/// The highest value of [`SessionLimits::in_flight_max`].
pub const IN_FLIGHT_MAX_MAX: u32 = 16_384;

/// A slow link may take this long for each part of a large frame: on top of the stall time, a frame has
/// one second for each so many bytes. (A peer that sends one byte every few seconds would otherwise hold
/// a megabyte for weeks.)
pub const FRAME_LEN_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

/// After the last frame was sent, the peer has this long to take it and to close its side.
pub const LINGER: Duration = Duration::from_secs(2);

/// Bytes that are read and thrown away while we linger, so that the kernel does not answer them with a
/// reset which would take our last frame with it.
pub const LINGER_LEN_BYTES_MAX: usize = 4 << 20;

/// Password hashes that are computed at once. Each takes a core for tens of milliseconds and 19 MiB:
/// logins must not be able to take the machine away from payments.
pub const PASSWORD_HASHES_MAX: usize = 1;

/// Logins that may wait for a password hash; more are told to come back.
pub const LOGINS_WAITING_MAX: usize = 256;

/// Users and addresses whose failed logins are remembered; the oldest are forgotten first.
pub const THROTTLED_MAX: usize = 65_536;

/// How often a session thread looks at its sessions' deadlines, at most.
pub const SWEEP_INTERVAL_MAX: Duration = Duration::from_millis(250);

/// How often the users file is looked at for changes.
pub const USERS_POLL_INTERVAL: Duration = Duration::from_millis(250);

const _: () = assert!(FRAME_BEFORE_LOGIN_LEN_BYTES_MAX <= LARGE_FRAME_LEN_BYTES);
const _: () = assert!(LARGE_FRAME_LEN_BYTES < READ_LEN_BYTES_MAX);
const _: () = assert!(READ_LEN_BYTES_MAX <= FRAME_LEN_BYTES_MAX);
const _: () = assert!(
    FRAME_HEADER_LEN_BYTES
        + message::LoginPrefix::LEN_BYTES
        + message::USER_LEN_BYTES_MAX
        + message::SECRET_LEN_BYTES_MAX
        <= FRAME_BEFORE_LOGIN_LEN_BYTES_MAX
);
const _: () = assert!(FRAME_HEADER_LEN_BYTES + message::TransferFound::LEN_BYTES <= SINGLE_REPLY_LEN_BYTES_MAX);
const _: () = assert!(
    FRAME_HEADER_LEN_BYTES + message::RefusedPrefix::LEN_BYTES + REFUSAL_TEXT_LEN_BYTES_MAX
        <= SINGLE_REPLY_LEN_BYTES_MAX
);
// A peer that never reads costs a connection, not the machine.
const _: () = assert!(OUTBOUND_LEN_BYTES_MAX <= 16 << 20);
// "Ends live sessions within a second": the file is seen, then the sessions are looked at.
const _: () = assert!(USERS_POLL_INTERVAL.as_millis() + SWEEP_INTERVAL_MAX.as_millis() < 1_000);

/// The bounds that the configuration may move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Connections, logged in or not. Each costs about 40 KiB (most of it TLS and kernel buffers).
    pub connections_max: usize,
    /// Connections that have not logged in: a flood of strangers must leave room for customers.
    pub unauthenticated_max: usize,
    /// Requests of one session that wait for their replies. At this many the socket is not read any
    /// more, so that TCP holds the client back. `1..=16_384`.
    pub in_flight_max: u32,
    /// Bytes of large frames (batches) that may be half received at once, over all sessions; above it
    /// no further large frame is begun.
    pub large_frames_len_bytes_max: usize,
    /// From the connection to the login's answer.
    pub login_timeout: Duration,
    /// A frame that was begun must go on arriving (see [`FRAME_LEN_BYTES_PER_SECOND_MIN`]).
    pub frame_stall: Duration,
    /// A peer with unread replies must take some of them.
    pub reply_stall: Duration,
    /// Silence after which the kernel asks whether the peer is still there.
    pub keepalive: Duration,
    /// How long a stopping server waits for what is in flight.
    pub drain_timeout: Duration,
    /// Failed logins of one user or from one address before further ones have to wait.
    pub login_failures_free: u32,
    /// How long a token lives.
    pub token_life: Duration,
    /// Requests that take this long are logged; zero for none.
    pub slow_request: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            unauthenticated_max: 1_000,
            in_flight_max: 1_024,
            large_frames_len_bytes_max: 256 << 20,
            login_timeout: Duration::from_secs(10),
            frame_stall: Duration::from_secs(10),
            reply_stall: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            login_failures_free: 5,
            token_life: Duration::from_secs(15 * 60),
            slow_request: Duration::from_secs(1),
        }
    }
}

impl SessionLimits {
    /// When a frame of `len_bytes` that was begun at `since` must have arrived (monotonic nanoseconds).
    pub fn frame_deadline(&self, since: u64, len_bytes: usize) -> u64 {
        let slow_link = Duration::from_secs(len_bytes as u64 / FRAME_LEN_BYTES_PER_SECOND_MIN);
        since + (self.frame_stall + slow_link).as_nanos() as u64
    }

    /// How often deadlines are looked at: often enough that the shortest is met within a quarter of it.
    pub fn sweep_interval(&self) -> Duration {
        let shortest = self.login_timeout.min(self.frame_stall).min(self.reply_stall);
        (shortest / 4).clamp(Duration::from_millis(5), SWEEP_INTERVAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_frame_has_longer_than_a_small_one_but_not_for_ever() {
        let limits = SessionLimits::default();
        assert_eq!(limits.frame_deadline(5, 152), 5 + 10_000_000_000);
        assert_eq!(limits.frame_deadline(0, FRAME_LEN_BYTES_MAX), 74_000_000_000);
    }

    #[test]
    fn sweeps_are_frequent_enough_for_short_deadlines_and_never_busy() {
        let mut limits = SessionLimits::default();
        assert_eq!(limits.sweep_interval(), SWEEP_INTERVAL_MAX);
        limits.frame_stall = Duration::from_millis(100);
        assert_eq!(limits.sweep_interval(), Duration::from_millis(25));
        limits.frame_stall = Duration::ZERO;
        assert_eq!(limits.sweep_interval(), Duration::from_millis(5));
    }
}
