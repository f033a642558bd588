//! Transfer ids for load, from a fast random source.

use std::time::{SystemTime, UNIX_EPOCH};

use super::args::IdChoice;
use crate::Random;

/// Makes ids, each different from every other with overwhelming likelihood.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ids {
    Random,
    V7 {
        /// Milliseconds since 1970 at the run's start.
        start_ms: u64,
    },
    Sequence {
        next: u128,
    },
}

impl Ids {
    pub(crate) fn new(choice: IdChoice, random: &mut Random) -> Self {
        match choice {
            IdChoice::Random => Self::Random,
            IdChoice::V7 => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Self::V7 { start_ms: since_epoch.as_millis() as u64 }
            }
            // A random start keeps runs apart; the lower half is free to count.
            IdChoice::Sequence => Self::Sequence { next: u128::from(random.bits() >> 1 | 1) << 64 },
        }
    }

    /// `now_ms`: milliseconds since the run's start.
    #[inline]
    pub(crate) fn next(&mut self, now_ms: u64, random: &mut Random) -> u128 {
        match self {
            // Neither 0 nor all ones, which mean something else.
            Self::Random => (random.bits_128() | 1) & !(1 << 127),
            Self::V7 { start_ms } => {
                const VERSION: u128 = 7 << 76;
                const VARIANT: u128 = 2 << 62;
                const RANDOM: u128 = !((0xf << 76) | (3 << 62)) & ((1 << 80) - 1);
                let unix_ms = (*start_ms + now_ms) & ((1 << 48) - 1);
                (u128::from(unix_ms) << 80) | VERSION | VARIANT | (random.bits_128() & RANDOM)
            }
            Self::Sequence { next } => {
                *next += 1;
                *next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_keep_their_form() {
        let mut random = Random::from_seed(5);
        for choice in [IdChoice::Random, IdChoice::V7, IdChoice::Sequence] {
            let mut ids = Ids::new(choice, &mut random);
            let drawn: Vec<u128> = (0..10_000).map(|now_ms| ids.next(now_ms, &mut random)).collect();
            assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), drawn.len(), "{choice:?}");
            assert!(drawn.iter().all(|&id| id != 0 && id != u128::MAX));
            match choice {
                IdChoice::Random => {}
                IdChoice::V7 => {
                    assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
                    let uuid = uuid::Uuid::from_u128(drawn[0]);
                    assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
                }
                IdChoice::Sequence => assert!(drawn.windows(2).all(|pair| pair[0] + 1 == pair[1])),
            }
        }
    }
}
