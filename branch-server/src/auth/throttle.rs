//! Slows down guessing: after a few failures of one user or from one address, each further try has to
//! wait, twice as long every time.

use std::collections::HashMap;
use std::net::IpAddr;

use tally_protocol::Refusal;

use super::LoginRefused;
use crate::limits::THROTTLED_MAX;

const WAIT_FIRST_NANOS: u64 = 1_000_000_000;
const WAIT_MAX_NANOS: u64 = 60_000_000_000;
/// A user or address without a failure for so long starts afresh.
const FORGIVEN_AFTER_NANOS: u64 = 15 * 60 * 1_000_000_000;
/// One address may stand for many people, so it has more tries than one user.
const ADDRESS_FACTOR: u32 = 4;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Who {
    User(String),
    Address(IpAddr),
}

#[derive(Debug)]
struct Record {
    failures: u32,
    failed_last: u64,
    wait_until: u64,
}

/// Failed logins by user and by address. Times are monotonic nanoseconds.
#[derive(Debug)]
pub(super) struct Throttle {
    failures_free: u32,
    records: HashMap<Who, Record>,
}

impl Throttle {
    pub(super) fn new(failures_free: u32) -> Self {
        Self { failures_free, records: HashMap::new() }
    }

    /// Whether this login may be tried at all.
    pub(super) fn check(&self, user: Option<&str>, address: IpAddr, now: u64) -> Result<(), LoginRefused> {
        let wait_until = who(user, address)
            .filter_map(|(who, _)| self.records.get(&who))
            .map(|record| record.wait_until)
            .max()
            .unwrap_or(0);
        if wait_until <= now {
            return Ok(());
        }
        let retry_after_ms = ((wait_until - now) / 1_000_000) as u32 + 1;
        Err(LoginRefused { refusal: Refusal::LoginThrottled, retry_after_ms })
    }

    /// Remembers how it went.
    pub(super) fn note(&mut self, user: Option<&str>, address: IpAddr, succeeded: bool, now: u64) {
        if succeeded {
            // The address is not forgiven: whoever owns one user could otherwise guess at all others.
            if let Some(user) = user {
                self.records.remove(&Who::User(user.to_owned()));
            }
            return;
        }
        for (who, factor) in who(user, address) {
            if self.records.len() >= THROTTLED_MAX {
                self.forget(now);
            }
            let record = self.records.entry(who).or_insert(Record { failures: 0, failed_last: now, wait_until: 0 });
            if now.saturating_sub(record.failed_last) > FORGIVEN_AFTER_NANOS {
                record.failures = 0;
            }
            record.failures += 1;
            record.failed_last = now;
            if let Some(over) = record.failures.checked_sub(self.failures_free * factor) {
                record.wait_until = now + (WAIT_FIRST_NANOS << over.min(6)).min(WAIT_MAX_NANOS);
            }
        }
    }

    /// Makes room: first what is forgiven anyway, and if that is nothing, everything that does not wait
    /// now.
    fn forget(&mut self, now: u64) {
        let count = self.records.len();
        self.records.retain(|_, record| now.saturating_sub(record.failed_last) <= FORGIVEN_AFTER_NANOS);
        if self.records.len() == count {
            self.records.retain(|_, record| record.wait_until > now);
        }
        if self.records.len() == count {
            self.records.clear();
        }
    }
}

fn who(user: Option<&str>, address: IpAddr) -> impl Iterator<Item = (Who, u32)> {
    user.map(|user| (Who::User(user.to_owned()), 1)).into_iter().chain([(Who::Address(address), ADDRESS_FACTOR)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn waits_double_and_end() {
        let mut throttle = Throttle::new(3);
        let mut now = SECOND;
        let mut waits = Vec::new();
        for _ in 0..10 {
            throttle.note(Some("alice"), HOME, false, now);
            let wait_ms = throttle.check(Some("alice"), AWAY, now).err().map_or(0, |refused| refused.retry_after_ms);
            waits.push(wait_ms / 1_000);
            now += wait_ms as u64 * 1_000_000;
            assert_eq!(throttle.check(Some("alice"), AWAY, now), Ok(()), "the wait is over");
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(throttle.check(Some("bob"), AWAY, now), Ok(()), "others are not held up");
    }

    #[test]
    fn an_address_that_tries_many_users_waits_too() {
        let mut throttle = Throttle::new(2);
        for user in 0..8 {
            assert_eq!(throttle.check(Some("x"), HOME, SECOND), Ok(()), "{user} failures so far");
            throttle.note(Some(&user.to_string()), HOME, false, SECOND);
        }
        assert!(throttle.check(Some("x"), HOME, SECOND).is_err());
        assert_eq!(throttle.check(Some("x"), AWAY, SECOND), Ok(()));
    }

    #[test]
    fn success_and_time_forgive() {
        let mut throttle = Throttle::new(2);
        throttle.note(Some("alice"), HOME, false, SECOND);
        throttle.note(Some("alice"), HOME, true, SECOND);
        throttle.note(Some("alice"), HOME, false, SECOND);
        assert_eq!(throttle.check(Some("alice"), HOME, SECOND), Ok(()));
        let later = SECOND + FORGIVEN_AFTER_NANOS + 1;
        throttle.note(Some("alice"), HOME, false, later);
        assert_eq!(throttle.check(Some("alice"), HOME, later), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut throttle = Throttle::new(1);
        for index in 0..THROTTLED_MAX as u64 + 10 {
            throttle.note(Some(&index.to_string()), AWAY, false, SECOND);
        }
        assert!(throttle.records.len() <= THROTTLED_MAX);
    }
}
