//! Which two accounts a transfer is between. Nothing here allocates.

use super::args::Choice;
use super::zipf::Zipf;
use crate::Random;

/// Two different accounts, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) debit: u32,
    pub(crate) credit: u32,
}

/// Draws pairs out of `count` accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chooser {
    count: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Uniform,
    /// Rank r is account `r * stride mod count`, so that accounts often used together are not neighbours in the
    /// branch's memory; a bijection, since the stride has no factor in common with the count.
    Zipf {
        zipf: Zipf,
        stride: u64,
    },
    OneHot,
}

impl Chooser {
    /// `count` from 2 to `u32::MAX`.
    pub(crate) fn new(choice: Choice, count: u64) -> Self {
        assert!((2..=u64::from(u32::MAX)).contains(&count), "pairs out of {count} accounts");
        let kind = match choice {
            Choice::Uniform => Kind::Uniform,
            Choice::Zipf { theta } => Kind::Zipf { zipf: Zipf::new(count, theta), stride: stride(count) },
            Choice::OneHot => Kind::OneHot,
        };
        Self { count, kind }
    }

    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> Pair {
        match self.kind {
            Kind::Uniform => {
                let debit = random.below(self.count);
                self.pair(debit, self.other_than(debit, random))
            }
            Kind::Zipf { zipf, stride } => {
                let debit = zipf.draw(random);
                let credit = loop {
                    let credit = zipf.draw(random);
                    if credit != debit {
                        break credit;
                    }
                };
                // Both factors are below 2^32, as the count is.
                let place = |rank: u64| rank * stride % self.count;
                self.pair(place(debit), place(credit))
            }
            Kind::OneHot => {
                let other = self.other_than(0, random);
                if random.bits() & 1 == 0 { self.pair(0, other) } else { self.pair(other, 0) }
            }
        }
    }

    /// One account, for reads: with the same likelihood as a debit side.
    #[inline]
    pub(crate) fn draw_one(&self, random: &mut Random) -> u32 {
        self.draw(random).debit
    }

    #[inline]
    fn other_than(&self, taken: u64, random: &mut Random) -> u64 {
        let other = random.below(self.count - 1);
        if other >= taken { other + 1 } else { other }
    }

    #[inline]
    fn pair(&self, debit: u64, credit: u64) -> Pair {
        Pair { debit: debit as u32, credit: credit as u32 }
    }
}

/// A multiplier without a factor in common with `count`, about 0.618 of it.
fn stride(count: u64) -> u64 {
    let start = (count as f64 * 0.618_033_988_749_895) as u64;
    (start.max(1)..).find(|&stride| greatest_common_divisor(stride, count) == 1).expect("count + 1 is one such")
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(choice: Choice, count: u64) -> Vec<f64> {
        const DRAWS: u32 = 200_000;
        let chooser = Chooser::new(choice, count);
        let mut random = Random::from_seed(3);
        let mut counts = vec![0u32; count as usize];
        for _ in 0..DRAWS {
            let Pair { debit, credit } = chooser.draw(&mut random);
            assert_ne!(debit, credit);
            counts[debit as usize] += 1;
            counts[credit as usize] += 1;
        }
        counts.iter().map(|&count| f64::from(count) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn uniform_is_even_and_one_hot_is_not() {
        assert!(shares(Choice::Uniform, 20).iter().all(|share| (0.095..0.105).contains(share)));
        assert!(shares(Choice::Uniform, 2).iter().all(|share| *share == 1.0));
        let hot = shares(Choice::OneHot, 11);
        assert_eq!(hot[0], 1.0);
        assert!(hot[1..].iter().all(|share| (0.09..0.11).contains(share)));
    }

    #[test]
    fn zipf_reaches_every_account_and_spreads_the_hot_ones() {
        let mut shares = shares(Choice::Zipf { theta: 0.99 }, 100);
        assert!(shares.iter().all(|&share| share > 0.0), "the stride is a bijection");
        let hottest = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("some").0;
        let next = shares[(hottest + 1) % 100];
        shares.sort_by(f64::total_cmp);
        assert!(next < shares[98], "the two hottest are neighbours");
        assert!(shares[99] > 10.0 * shares[50]);
    }
}
