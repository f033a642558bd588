//! When something was done: for the longest time in which nothing was.
//!
//! A bit for each [`SLOT`] of the window, so that what several threads have seen is put together by an "or".

use super::traffic::Window;
use crate::lane::Nanos;

/// How finely time is cut: what is said of a pause is true to this.
const SLOT: Nanos = 5_000_000;
/// A bit each: the window of a week fits into 15 MiB.
const SLOTS_MAX: u64 = 7 * 86_400_000_000_000 / SLOT;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    begin: Nanos,
    slots: u64,
    words: Vec<u64>,
}

impl Pulse {
    /// For a window in which nothing was done yet. Of one that is longer than a week, the first week is watched.
    pub(crate) fn new(window: Window) -> Self {
        let slots = (window.end.saturating_sub(window.begin) / SLOT).min(SLOTS_MAX);
        Self { begin: window.begin, slots, words: vec![0; slots.div_ceil(64) as usize] }
    }

    /// Something was done.
    #[inline]
    pub(crate) fn mark(&mut self, at: Nanos) {
        let slot = at.saturating_sub(self.begin) / SLOT;
        if at >= self.begin && slot < self.slots {
            self.words[(slot / 64) as usize] |= 1 << (slot % 64);
        }
    }

    /// Takes another thread's as well.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.words.is_empty() {
            *self = other;
        } else {
            self.words.iter_mut().zip(other.words).for_each(|(word, theirs)| *word |= theirs);
        }
    }

    /// The longest time within the window in which nothing was done, in seconds.
    pub(crate) fn pause_max_s(&self) -> f64 {
        let (mut longest, mut current) = (0u64, 0u64);
        for slot in 0..self.slots {
            let is_marked = self.words[(slot / 64) as usize] >> (slot % 64) & 1 == 1;
            current = if is_marked { 0 } else { current + 1 };
            longest = longest.max(current);
        }
        (longest * SLOT) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_found_wherever_it_is() {
        const SECOND: Nanos = 1_000_000_000;
        let window = Window { begin: 2 * SECOND, end: 6 * SECOND };
        let of = |times: &[f64]| {
            let mut pulse = Pulse::new(window);
            times.iter().for_each(|&seconds| pulse.mark((seconds * 1e9) as Nanos));
            pulse
        };
        for (times, expected) in [
            (&[][..], 4.0),
            (&[1.0, 6.0, 7.0], 4.0),
            (&[2.0, 3.0, 5.9], 2.895),
            (&[4.0], 2.0),
            (&[2.5, 3.0, 3.5, 4.0, 4.5, 5.0], 0.995),
        ] {
            assert_eq!(of(times).pause_max_s(), expected, "{times:?}");
        }
        let mut both = of(&[2.5, 3.5]);
        both.merge(of(&[3.0, 4.5, 5.5]));
        assert_eq!(both.pause_max_s(), 0.995);
        let mut first = Pulse::default();
        first.merge(of(&[4.0]));
        assert_eq!(first, of(&[4.0]));
    }
}
