//! When to try again, and how long to wait before.
//!
//! Every request of the protocol can be sent twice without harm: transfers, chains and cancels are known by
//! their ids, openings by the account's, and the rest set a state or read one. So a retry sends the same bytes.

use std::time::Duration;

use tally_protocol::Refusal;

use crate::{Random, RequestError};

/// How often, and how long between. Waiting doubles from `backoff_min` to `backoff_max`, less up to half of it at
/// random, so that clients that lost the same branch do not come back at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most attempts at one request, the first included; at least 1.
    pub attempts_max: u32,
    /// Before the second attempt.
    pub backoff_min: Duration,
    /// Before any later one.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 10, backoff_min: Duration::from_millis(20), backoff_max: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// One attempt only.
    pub const NEVER: Self = Self { attempts_max: 1, backoff_min: Duration::ZERO, backoff_max: Duration::ZERO };

    /// How long to wait after the failure of attempt `attempt_index` (from 0), or `None` to give up. `hint` is
    /// the branch's own wish, which is kept to: never less is waited.
    pub fn backoff(&self, attempt_index: u32, hint: Option<Duration>, random: &mut Random) -> Option<Duration> {
        if attempt_index + 1 >= self.attempts_max {
            return None;
        }
        let doubled = self.backoff_min.saturating_mul(1u32.checked_shl(attempt_index).unwrap_or(u32::MAX));
        let full = doubled.min(self.backoff_max);
        let jittered = full.mul_f64(0.5 + 0.5 * random.unit());
        Some(match hint {
            Some(hint) => hint + jittered / 2,
            None => jittered,
        })
    }
}

/// Whether the same request may fare better on another attempt; with the branch's hint, if it gave one.
pub(crate) fn worth_another_attempt(error: &RequestError) -> Option<Option<Duration>> {
    match error {
        RequestError::Refused(refused) => {
            let hint = (refused.retry_after_ms > 0).then(|| Duration::from_millis(refused.retry_after_ms.into()));
            match refused.refusal() {
                Some(
                    Refusal::Busy
                    | Refusal::InFlightLimit
                    | Refusal::ShuttingDown
                    | Refusal::SessionEnded
                    | Refusal::AccountMoving
                    | Refusal::FormerBranchUnreachable,
                ) => Some(hint),
                Some(_) | None => None,
            }
        }
        RequestError::NotSent(error) => error.is_transient().then_some(None),
        RequestError::Lost(_) => Some(None),
        RequestError::DeadlinePassed | RequestError::Unexpected(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_with_jitter_and_end() {
        let policy = RetryPolicy {
            attempts_max: 6,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(400),
        };
        let mut random = Random::from_seed(1);
        for (attempt_index, full_ms) in [(0, 100), (1, 200), (2, 400), (3, 400), (4, 400)] {
            let waits: Vec<Duration> =
                (0..100).map(|_| policy.backoff(attempt_index, None, &mut random).expect("goes on")).collect();
            let (min, max) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
            assert!(
                *min >= Duration::from_millis(full_ms / 2) && *max <= Duration::from_millis(full_ms),
                "{min:?} {max:?}"
            );
            assert!(max.saturating_sub(*min) > Duration::from_millis(full_ms / 4), "no jitter");
        }
        assert_eq!(policy.backoff(5, None, &mut random), None);
        let hint = Duration::from_secs(3);
        assert!(policy.backoff(0, Some(hint), &mut random).expect("goes on") >= hint);
        assert_eq!(RetryPolicy::NEVER.backoff(0, None, &mut random), None);
    }
}
