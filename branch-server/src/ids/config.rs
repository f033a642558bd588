//! How large the parts of the id index are.

/// Sizes of an [`super::IdIndex`]. The defaults suit a branch that takes hundreds of thousands of transfers a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdConfig {
    /// Ids in memory before they are written out as a run. Memory: up to twice this many entries of 50 bytes, because
    /// one generation fills while another is written; and replay after a crash reads as many records.
    pub generation_len_max: usize,
    /// Parts of the recent table, each with its own lock: a power of two.
    pub shard_count: usize,
    /// Memory of the filters per id on disk, in bits. 20 take 1 new id in 4,000 for a known one, per run; such an
    /// id costs a read of the disk.
    pub filter_bits_per_id: u32,
    /// How many runs of about one size are merged into one.
    pub merge_fan_in: usize,
    /// What writing and merging runs may take from the disk, so that the journal's writes do not wait for it.
    /// 100 million ids are rewritten about three times: 64 MiB/s sustain 800,000 new ids a second.
    pub write_bytes_per_second: u64,
}

impl Default for IdConfig {
    fn default() -> Self {
        Self {
            generation_len_max: 2 << 20,
            shard_count: 64,
            filter_bits_per_id: 20,
            merge_fan_in: 4,
            write_bytes_per_second: 64 << 20,
        }
    }
}

impl IdConfig {
    /// Entries of one shard at which the generation is written out.
    pub(super) const fn shard_len_max(&self) -> usize {
        let share = self.generation_len_max / self.shard_count;
        if share == 0 { 1 } else { share }
    }

    /// Homes of a shard's table: those that a whole generation needs at two thirds full. Tables begin at this
    /// size: as ids spread evenly, all shards would grow at nearly the same moment, and workers would stand still
    /// for a tenth of a second.
    pub(super) const fn shard_home_count(&self) -> usize {
        self.shard_len_max() * 3 / 2 + 1
    }

    /// Entries of one shard at which new ids are refused: the disk has fallen two generations behind.
    pub(super) const fn shard_len_full(&self) -> usize {
        self.shard_len_max() * 3
    }

    /// Leading bits of the hash that choose the shard.
    ///
    /// # Panics
    /// When `shard_count` is not a power of two.
    pub(super) const fn shard_bits(&self) -> u32 {
        assert!(self.shard_count.is_power_of_two(), "the shard count must be a power of two");
        self.shard_count.ilog2()
    }
}
