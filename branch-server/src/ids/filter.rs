//! Answers "certainly not in this run" with one cache line: a Bloom filter whose eight bits for a hash all lie in
//! one block of 64 bytes, one in each of its words.
//!
//! Blocks lie in hash order, as the entries of a run do, so a filter is filled from front to back while a run is
//! written. At 20 bits per entry about 1 absent id in 4,000 is taken for present.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::hash::place;
use crate::prefetch::prefetch;

const WORDS_PER_BLOCK: usize = 8;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([u64; WORDS_PER_BLOCK]);

/// A block as it is stored.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawBlock([U64; WORDS_PER_BLOCK]);

/// The filter of one run. Invariant: at least one block.
pub(super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// An empty filter for `entry_count` entries.
    pub(super) fn new(entry_count: u64, bits_per_entry: u32) -> Self {
        let bits = entry_count * u64::from(bits_per_entry);
        let blocks = usize::try_from(bits.div_ceil(512).max(1)).expect("a filter fits the address space");
        Self { blocks: vec![Block([0; WORDS_PER_BLOCK]); blocks] }
    }

    /// A filter read back; `None` without a block.
    pub(super) fn from_raw(raw: impl Iterator<Item = RawBlock>) -> Option<Self> {
        let blocks: Vec<_> = raw.map(|block| Block(block.0.map(U64::get))).collect();
        (!blocks.is_empty()).then_some(Self { blocks })
    }

    pub(super) fn to_raw(&self) -> impl ExactSizeIterator<Item = RawBlock> {
        self.blocks.iter().map(|block| RawBlock(block.0.map(U64::new)))
    }

    pub(super) const fn memory_len_bytes(&self) -> usize {
        self.blocks.len() * size_of::<Block>()
    }

    /// Asks the CPU to fetch the block that `hash` falls into.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(&self.blocks[place(hash, self.blocks.len())]).cast());
    }

    /// Adds a hash.
    pub(super) fn add(&mut self, hash: u64) {
        let index = place(hash, self.blocks.len());
        let bits = bits(hash);
        for (word, shift) in self.blocks[index].0.iter_mut().zip(shifts(bits)) {
            *word |= 1 << shift;
        }
    }

    /// `false`: certainly never added.
    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let block = &self.blocks[place(hash, self.blocks.len())].0;
        let mut shifts = shifts(bits(hash));
        let mut half =
            |words: &[u64]| words.iter().fold(1, |all, word| all & (word >> shifts.next().unwrap_or(0))) == 1;
        // Half of the words settle it nearly always; a branch on each would be mispredicted too often.
        half(&block[..4]) && half(&block[4..])
    }
}

/// Bits that do not follow from the block's index: the index is the hash's top, and multiplying carries the
/// bottom up.
#[inline]
const fn bits(hash: u64) -> u64 {
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Six bits for each word, from the top 48.
#[inline]
fn shifts(bits: u64) -> impl Iterator<Item = u32> {
    (0..WORDS_PER_BLOCK as u32).map(move |word| (bits >> (16 + 6 * word)) as u32 & 63)
}

#[cfg(test)]
mod tests {
    use super::super::hash::IdHasher;
    use super::*;
    use tally_protocol::TransferId;

    #[test]
    fn holds_what_was_added_and_little_else() {
        let hasher = IdHasher::new(11);
        let count = 200_000;
        let mut filter = Filter::new(count, 20);
        let hash = |raw: u64| hasher.hash(TransferId::new(raw.into()));
        (0..count).for_each(|raw| filter.add(hash(raw)));
        assert!((0..count).all(|raw| filter.may_hold(hash(raw))));

        let false_positives = (count..count + 1_000_000).filter(|&raw| filter.may_hold(hash(raw))).count();
        assert!(false_positives < 500, "{false_positives} of 1,000,000: the promise is less than 0.05 %");
        assert_eq!(filter.memory_len_bytes(), 200_000 * 20 / 8 / 64 * 64 + 64 * usize::from(200_000 * 20 % 512 != 0));
    }

    #[test]
    fn survives_being_stored() {
        let mut filter = Filter::new(100, 20);
        filter.add(42);
        let read = Filter::from_raw(filter.to_raw()).expect("has blocks");
        assert!(read.may_hold(42));
        assert!(!read.may_hold(u64::MAX));
        assert!(Filter::from_raw([].into_iter()).is_none());
    }
}
