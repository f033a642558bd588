//! One hash per id, from which everything else follows: shard, slot, order in a run, filter bits.
//!
//! XXH3 because its result is specified for ever: run files are ordered by it. The seed is drawn at random when
//! the ledger is made and never leaves the server, so that clients, who choose their ids, cannot aim them at one slot.

use tally_protocol::TransferId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The ledger's own hash function.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdHasher {
    seed: u64,
}

impl IdHasher {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(super) const fn seed(self) -> u64 {
        self.seed
    }

    /// Uniform over 64 bits for whoever does not know the seed.
    #[inline]
    pub(super) fn hash(self, id: TransferId) -> u64 {
        xxh3_64_with_seed(&id.get().to_le_bytes(), self.seed)
    }
}

/// Where `hash` falls when the whole range of hashes is spread over `len` places: monotone in `hash`, so places
/// in order are hashes in order.
#[inline]
pub(super) const fn place(hash: u64, len: usize) -> usize {
    ((hash as u128 * len as u128) >> 64) as usize
}
