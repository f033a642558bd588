//! Ranks after Zipf's law, exactly and without a table.
//!
//! Rejection-inversion after Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone
//! discrete distributions" (1996): the sum of `1 / r^theta` is bounded by an integral that can be inverted; a
//! draw from the integral is kept if it falls under the step of its rank. A table of a million ranks would cost
//! cache misses that belong to the branch.

use crate::Random;

/// Draws ranks `0..count`, rank `r` with a probability in proportion to `1 / (r + 1)^theta`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    theta: f64,
    count: f64,
    /// The integral up to half a step before the first rank, and half a step after the last.
    area_first: f64,
    area_last: f64,
    /// Within this distance of its rank, a draw is always under the step.
    sure: f64,
}

impl Zipf {
    /// `count` at least 1, `theta` above 0.
    pub(crate) fn new(count: u64, theta: f64) -> Self {
        let mut zipf = Self { theta, count: count as f64, area_first: 0.0, area_last: 0.0, sure: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.area_inverse(zipf.area(2.5) - 2f64.powf(-theta));
        zipf
    }

    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_last + random.unit() * (self.area_first - self.area_last);
            let x = self.area_inverse(area);
            let rank = (x + 0.5).floor().clamp(1.0, self.count);
            if rank - x <= self.sure || area >= self.area(rank + 0.5) - (-rank.ln() * self.theta).exp() {
                return rank as u64 - 1;
            }
        }
    }

    /// The integral of `x^-theta` from 1 to `x`.
    #[inline]
    fn area(&self, x: f64) -> f64 {
        let log_x = x.ln();
        exp_minus_1_over((1.0 - self.theta) * log_x) * log_x
    }

    #[inline]
    fn area_inverse(&self, area: f64) -> f64 {
        // Rounding may put it just below what the logarithm takes.
        let scaled = (area * (1.0 - self.theta)).max(-1.0);
        (log_1_plus_over(scaled) * area).exp()
    }
}

/// `(e^x - 1) / x`, also around 0.
#[inline]
fn exp_minus_1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x * 0.5 * (1.0 + x / 3.0) }
}

/// `ln(1 + x) / x`, also around 0.
#[inline]
fn log_1_plus_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x * (0.5 - x / 3.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_the_law() {
        const DRAWS: u32 = 400_000;
        for (count, theta) in [(1, 0.99), (2, 1.0), (10, 0.5), (1_000, 0.99), (1_000, 1.0), (50, 2.5)] {
            let zipf = Zipf::new(count, theta);
            let mut random = Random::from_seed(11);
            let mut counts = vec![0u32; count as usize];
            for _ in 0..DRAWS {
                counts[zipf.draw(&mut random) as usize] += 1;
            }
            let total: f64 = (1..=count).map(|rank| (rank as f64).powf(-theta)).sum();
            for (index, &seen) in counts.iter().enumerate() {
                let expected = f64::from(DRAWS) * ((index + 1) as f64).powf(-theta) / total;
                let sigma = expected.sqrt();
                assert!(
                    (f64::from(seen) - expected).abs() < 6.0 * sigma + 1.0,
                    "count {count} theta {theta} rank {index}: {seen}, expected {expected:.0}"
                );
            }
        }
    }
}
