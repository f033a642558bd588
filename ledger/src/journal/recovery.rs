//! What a scanned tail means: go on, cut, or refuse to start.
//!
//! A crash may tear the group that was being written; that one was never acknowledged, and is cut off. A
//! group that *had been* durable and cannot be read is something else: cutting there would take back what
//! customers were told. The two look alike. What tells them apart is the durable position that every later
//! group and every checkpoint carries.
//!
//! | group at the place | follows the one before | older run | durable was known beyond | verdict |
//! |---|---|---|---|---|
//! | whole | yes | no | any | go on |
//! | whole | yes | yes | no / yes | cut: a leftover / refuse |
//! | whole | no | any | no / yes | cut: a leftover / refuse |
//! | damaged | - | - | no / yes | cut: torn / refuse |
//! | none | - | - | no / yes | end, or cut if something lies behind it / refuse |

use tally_protocol::Lsn;

use super::group::{Chain, Epoch, GroupHeader};

/// What lies where the next group should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole group that says it belongs to this position.
    Whole {
        /// Whether it repeats the checksum of the group before.
        follows: bool,
        /// Whether an older run wrote it than the group before.
        stale: bool,
    },
    /// The start of a group, but not all of it, or not as it was written.
    Damaged,
    /// No group of this position.
    None,
}

impl Found {
    /// What a whole group at its place is, behind a group of `epoch` with checksum `chain`; `None` where
    /// replay begins and the one before was not read.
    pub fn whole(header: &GroupHeader, epoch: Epoch, chain: Option<Chain>) -> Self {
        Self::Whole { follows: chain.is_none_or(|chain| chain == header.previous), stale: header.epoch < epoch }
    }
}

/// What is known of the log from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Some whole group or checkpoint says that more was durable than what lies before this place.
    pub known_durable: bool,
    /// Something else than zeros lies at the place or behind it.
    pub anything: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Replay the group and look behind it.
    GoOn,
    /// The log ends here, as it does after a clean stop.
    End,
    /// The log ends here; what lies behind was never durable and must be zeroed before anything is written.
    Cut,
    /// Records that were durable are gone: do not start.
    Refuse(Loss),
}

/// How durable records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// A group does not have the content that it was written with.
    #[error("a group that was durable is damaged")]
    Damaged,
    /// There is nothing where a group was.
    #[error("a group that was durable is missing")]
    Missing,
    /// There is a whole group, but not the one that was written last.
    #[error("a group that was durable is replaced by another one")]
    Replaced,
}

/// See the module's table.
pub const fn verdict(found: Found, behind: Behind) -> Verdict {
    match (found, behind.known_durable) {
        (Found::Whole { follows: true, stale: false }, _) => Verdict::GoOn,
        (Found::Whole { .. }, true) => Verdict::Refuse(Loss::Replaced),
        (Found::Damaged, true) => Verdict::Refuse(Loss::Damaged),
        (Found::None, true) => Verdict::Refuse(Loss::Missing),
        (Found::Whole { .. } | Found::Damaged, false) => Verdict::Cut,
        (Found::None, false) if behind.anything => Verdict::Cut,
        (Found::None, false) => Verdict::End,
    }
}

/// The highest durable position that anything in the log speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDurable(Lsn);

impl KnownDurable {
    /// What a checkpoint knows; [`Lsn::ZERO`] without one.
    pub const fn from_checkpoint(durable: Lsn) -> Self {
        Self(durable)
    }

    /// A whole group was seen. It must lie where it says that it belongs: one that a recycled segment still
    /// holds speaks of another time.
    pub fn saw(&mut self, header: &GroupHeader) {
        self.0 = self.0.max(header.durable);
    }

    /// Whether something above `end` was durable.
    pub fn beyond(&self, end: Lsn) -> bool {
        self.0 > end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::Timestamp;

    #[test]
    fn every_combination() {
        use Verdict::{Cut, End, GoOn, Refuse};
        let whole = |follows, stale| Found::Whole { follows, stale };
        // found -> [nothing behind, something behind], each [not known durable, known durable]
        let table = [
            (whole(true, false), [[GoOn, GoOn], [GoOn, GoOn]]),
            (whole(true, true), [[Cut, Refuse(Loss::Replaced)], [Cut, Refuse(Loss::Replaced)]]),
            (whole(false, false), [[Cut, Refuse(Loss::Replaced)], [Cut, Refuse(Loss::Replaced)]]),
            (whole(false, true), [[Cut, Refuse(Loss::Replaced)], [Cut, Refuse(Loss::Replaced)]]),
            (Found::Damaged, [[Cut, Refuse(Loss::Damaged)], [Cut, Refuse(Loss::Damaged)]]),
            (Found::None, [[End, Refuse(Loss::Missing)], [Cut, Refuse(Loss::Missing)]]),
        ];
        let mut combinations = 0;
        for (found, verdicts) in table {
            for (anything, verdicts) in [false, true].into_iter().zip(verdicts) {
                for (known_durable, expected) in [false, true].into_iter().zip(verdicts) {
                    let behind = Behind { known_durable, anything };
                    assert_eq!(verdict(found, behind), expected, "{found:?} {behind:?}");
                    combinations += 1;
                }
            }
        }
        assert_eq!(combinations, (4 + 2) * 2 * 2);
    }

    #[test]
    fn nothing_that_was_durable_is_ever_cut() {
        for found in [Found::Damaged, Found::None].into_iter().chain(
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(follows, stale)| Found::Whole { follows, stale }),
        ) {
            for anything in [false, true] {
                let verdict = verdict(found, Behind { known_durable: true, anything });
                assert!(matches!(verdict, Verdict::GoOn | Verdict::Refuse(_)), "{found:?}: {verdict:?}");
            }
        }
    }

    #[test]
    fn a_group_follows_by_checksum_and_by_run() {
        let header = GroupHeader {
            epoch: Epoch::new(5),
            start: Lsn::new(4096),
            payload_len_bytes: 0,
            record_count: 0,
            previous: Chain::new(77),
            durable: Lsn::new(4096),
            last_timestamp: Timestamp::from_nanos(1),
        };
        for (epoch, chain, follows, stale) in [
            (5, Some(77), true, false),
            (4, Some(77), true, false),
            (6, Some(77), true, true),
            (5, Some(78), false, false),
            (5, None, true, false),
            (6, None, true, true),
        ] {
            let found = Found::whole(&header, Epoch::new(epoch), chain.map(Chain::new));
            assert_eq!(found, Found::Whole { follows, stale }, "{epoch} {chain:?}");
        }
        let mut known = KnownDurable::from_checkpoint(Lsn::new(8));
        assert!(!known.beyond(Lsn::new(8)) && known.beyond(Lsn::new(7)));
        known.saw(&header);
        assert!(known.beyond(Lsn::new(4095)) && !known.beyond(Lsn::new(4096)));
    }
}
