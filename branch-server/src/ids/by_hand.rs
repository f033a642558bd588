//! The keeper without its thread: the simulator decides when it works.

use super::keeper::Keeper;

/// Writes generations out and merges runs when it is told to, and at no other time.
pub struct KeeperByHand(Keeper);

impl std::fmt::Debug for KeeperByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeeperByHand")
    }
}

impl KeeperByHand {
    pub(super) const fn new(keeper: Keeper) -> Self {
        Self(keeper)
    }

    /// Writes out what the recent table holds and does every merge that is due then. Call it only when every record
    /// that the index knows of is durable: it would wait for that, and nobody else works meanwhile. `false` after a
    /// failure that ends a keeper for good.
    pub fn rotate_and_merge(&mut self) -> bool {
        self.0.rotate_and_merge()
    }
}
