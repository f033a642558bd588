//! Every acknowledged transfer in eight bytes, and the comparison with what the branch has recorded.
//!
//! A transfer is remembered as a fingerprint of all that it was: id, accounts, amount and outcome. Two lists of
//! fingerprints that agree, each as often as in the other, then agree in every transfer; that two transfers
//! share one by chance does no harm to that, and a wrong one slips through once in 2^64.
//!
//! Memory: 8 bytes for each transfer while load runs, 16 while it is checked.

use std::cmp::Ordering;

use super::traffic::Sent;

/// A list of this many is never moved again: growing one long list would stall the load for its copy.
const CHUNK_LEN: usize = 1 << 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Only the last is added to.
    chunks: Vec<Vec<u64>>,
}

impl Acknowledged {
    /// Remembers a transfer that was done (`refusal_code` 0) or refused.
    #[inline]
    pub(crate) fn add(&mut self, sent: &Sent, refusal_code: u16) {
        let fingerprint = fingerprint(sent, refusal_code);
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_LEN => chunk.push(fingerprint),
            Some(_) | None => self.add_chunk(fingerprint),
        }
    }

    /// Takes another thread's as well.
    pub(crate) fn merge(&mut self, other: Self) {
        // At the front, so that the last one stays the one that has room.
        self.chunks.splice(0..0, other.chunks);
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// All of them, for a comparison. What held them until now is given back, before anything else is kept.
    pub(crate) fn into_sorted(self) -> Sorted {
        let mut fingerprints = Vec::with_capacity(self.len());
        self.chunks.into_iter().for_each(|chunk| fingerprints.extend(chunk));
        fingerprints.sort_unstable();
        Sorted(fingerprints)
    }

    #[cold]
    fn add_chunk(&mut self, fingerprint: u64) {
        let mut chunk = Vec::with_capacity(CHUNK_LEN);
        chunk.push(fingerprint);
        self.chunks.push(chunk);
    }
}

/// Acknowledged transfers in the order of their fingerprints.
#[derive(Debug)]
pub(crate) struct Sorted(Vec<u64>);

impl Sorted {
    /// How these and those that were `recorded` differ.
    pub(crate) fn compare(self, mut recorded: Vec<u64>) -> Difference {
        recorded.sort_unstable();
        let mut difference = Difference::default();
        let (mut acknowledged, mut recorded) = (self.0.into_iter().peekable(), recorded.into_iter().peekable());
        loop {
            let order = match (acknowledged.peek(), recorded.peek()) {
                (Some(ours), Some(theirs)) => ours.cmp(theirs),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return difference,
            };
            match order {
                Ordering::Less => difference.missing += 1,
                Ordering::Equal => difference.found += 1,
                Ordering::Greater => difference.surplus += 1,
            }
            if order.is_le() {
                acknowledged.next();
            }
            if order.is_ge() {
                recorded.next();
            }
        }
    }
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Acknowledged, and recorded once with the same outcome.
    pub(crate) found: u64,
    /// Acknowledged and not recorded, or otherwise.
    pub(crate) missing: u64,
    /// Recorded and not acknowledged, or twice, or otherwise.
    pub(crate) surplus: u64,
}

/// See the module.
#[inline]
pub(crate) fn fingerprint(sent: &Sent, refusal_code: u16) -> u64 {
    let id = sent.id.get();
    let accounts = (u64::from(sent.pair.debit) << 32) | u64::from(sent.pair.credit);
    let rest = (u64::from(sent.amount) << 32) | u64::from(refusal_code);
    // Digits of pi: any odd-looking numbers do.
    let mixed = fold(id as u64 ^ 0x243f_6a88_85a3_08d3, (id >> 64) as u64 ^ 0x1319_8a2e_0370_7344);
    fold(mixed ^ accounts, rest ^ 0xa409_3822_299f_31d0)
}

/// Both halves of the product: each bit depends on all of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use tally_protocol::TransferId;

    use super::super::choose::Pair;
    use super::*;

    fn sent(number: u128) -> Sent {
        Sent { id: TransferId::new(number + 1), pair: Pair { debit: 3, credit: 4 }, amount: 5 }
    }

    #[test]
    fn whatever_differs_in_a_transfer_is_seen() {
        let one = sent(1);
        let others = [
            fingerprint(&sent(2), 0),
            fingerprint(&Sent { id: TransferId::new(one.id.get() << 64), ..one }, 0),
            fingerprint(&Sent { pair: Pair { debit: 4, credit: 3 }, ..one }, 0),
            fingerprint(&Sent { amount: 6, ..one }, 0),
            fingerprint(&one, 229),
        ];
        assert!(others.iter().all(|&other| other != fingerprint(&one, 0)), "{others:x?}");
        let mut many: Vec<u64> = (0..200_000).map(|number| fingerprint(&sent(number), 0)).collect();
        many.sort_unstable();
        assert!(many.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn each_must_be_there_once_with_its_outcome() {
        const COUNT: u128 = 3 * CHUNK_LEN as u128 / 2;
        let code = |number: u128| if number % 7 == 0 { 229 } else { 0 };
        let acknowledged = || {
            let mut halves = [Acknowledged::default(), Acknowledged::default()];
            (0..COUNT).for_each(|number| halves[(number % 2) as usize].add(&sent(number), code(number)));
            let [mut all, other] = halves;
            all.merge(other);
            all.add(&sent(COUNT), 0);
            assert_eq!(all.len() as u128, COUNT + 1);
            all
        };
        let recorded: Vec<u64> = (0..=COUNT).rev().map(|number| fingerprint(&sent(number), code(number))).collect();
        let check = |recorded: &[u64]| {
            let Difference { found, missing, surplus } = acknowledged().into_sorted().compare(recorded.to_vec());
            (COUNT as u64 + 1 - found, missing, surplus)
        };
        assert_eq!(check(&recorded), (0, 0, 0));
        assert_eq!(check(&recorded[2..]), (2, 2, 0), "two were lost");
        assert_eq!(check(&[&recorded[..], &recorded[5..6]].concat()), (0, 0, 1), "one was done twice");
        let mut other = recorded.clone();
        other[0] = fingerprint(&sent(COUNT), 229);
        assert_eq!(check(&other), (1, 1, 1), "one was done and is recorded as refused");
    }
}
