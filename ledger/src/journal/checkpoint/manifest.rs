//! The manifest: what makes a file of blocks a checkpoint. It is written last, and a checkpoint counts only
//! once everything that it captured is durable in the journal.

use tally_protocol::{BranchId, Lsn, Timestamp};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CheckpointDamage;
use crate::journal::cursor::POSITION_END;
use crate::journal::group::{Chain, Epoch};

/// The layout that this code writes.
pub const MANIFEST_FORMAT: u32 = 2;
/// How many counters the shell may add.
pub const COUNTERS_MAX: usize = 64;
/// Size in the file.
pub const MANIFEST_LEN_BYTES: usize = 128 + 8 * COUNTERS_MAX;
const MAGIC: [u8; 8] = *b"TSCKMAN\n";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose it is.
    pub branch: BranchId,
    /// Counted from 1.
    pub number: u64,
    /// Size of the journal's segments.
    pub segment_len_bytes: u64,
    /// The start of a group: replay begins here. Everything below was in memory before the first account
    /// was read.
    pub replay_from: Lsn,
    /// Nothing in it is younger.
    pub complete_at: Lsn,
    /// The journal was durable up to here, the start of a group, when the checkpoint was published; not
    /// below `complete_at`.
    pub durable: Lsn,
    /// The checksum of the group before `durable`.
    pub chain: Chain,
    /// The run that wrote it.
    pub epoch: Epoch,
    /// The highest stamp handed out when it was complete.
    pub last_timestamp: Timestamp,
    /// The id index on disk covers everything below this.
    pub ids_covered: Lsn,
    /// Blocks in the file beside it.
    pub blocks: u64,
    /// The checksum over them.
    pub blocks_check: u64,
    /// Accounts in them.
    pub accounts: u64,
    /// Open holds in them.
    pub holds: u64,
    /// The shell's own, at most [`COUNTERS_MAX`].
    pub counters: Vec<u64>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawManifest {
    magic: [u8; 8],
    check: U64,
    format: U32,
    epoch: U32,
    number: U64,
    segment_len_bytes: U64,
    replay_from: U64,
    complete_at: U64,
    durable: U64,
    chain: U64,
    last_timestamp: U64,
    ids_covered: U64,
    blocks: U64,
    blocks_check: U64,
    accounts: U64,
    holds: U64,
    branch: U16,
    counter_count: U16,
    reserved: U32,
    counters: [U64; COUNTERS_MAX],
}

const _: () = assert!(size_of::<RawManifest>() == MANIFEST_LEN_BYTES);
const CHECKED_FROM: usize = 16;

impl Manifest {
    /// The bytes of the file.
    ///
    /// # Panics
    /// When there are too many counters.
    pub fn encode(&self) -> [u8; MANIFEST_LEN_BYTES] {
        assert!(self.counters.len() <= COUNTERS_MAX, "{} counters", self.counters.len());
        let mut counters = [U64::new(0); COUNTERS_MAX];
        for (raw, &counter) in counters.iter_mut().zip(&self.counters) {
            *raw = U64::new(counter);
        }
        let raw = RawManifest {
            magic: MAGIC,
            check: U64::new(0),
            format: U32::new(MANIFEST_FORMAT),
            epoch: U32::new(self.epoch.get()),
            number: U64::new(self.number),
            segment_len_bytes: U64::new(self.segment_len_bytes),
            replay_from: U64::new(self.replay_from.get()),
            complete_at: U64::new(self.complete_at.get()),
            durable: U64::new(self.durable.get()),
            chain: U64::new(self.chain.get()),
            last_timestamp: U64::new(self.last_timestamp.as_nanos()),
            ids_covered: U64::new(self.ids_covered.get()),
            blocks: U64::new(self.blocks),
            blocks_check: U64::new(self.blocks_check),
            accounts: U64::new(self.accounts),
            holds: U64::new(self.holds),
            branch: U16::new(self.branch.get()),
            counter_count: U16::new(self.counters.len() as u16),
            reserved: U32::new(0),
            counters,
        };
        let mut bytes = [0; MANIFEST_LEN_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        let check = xxh3_64(&bytes[CHECKED_FROM..]);
        bytes[8..CHECKED_FROM].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the file's bytes, which may go on behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointDamage> {
        let (raw, _) = RawManifest::ref_from_prefix(bytes).map_err(|_| CheckpointDamage::Short)?;
        if raw.magic != MAGIC {
            return Err(CheckpointDamage::Magic);
        }
        if xxh3_64(&raw.as_bytes()[CHECKED_FROM..]) != raw.check.get() {
            return Err(CheckpointDamage::Check);
        }
        if raw.format.get() != MANIFEST_FORMAT {
            return Err(CheckpointDamage::Format(raw.format.get()));
        }
        let counters =
            raw.counters.get(..raw.counter_count.get() as usize).ok_or(CheckpointDamage::Field("counters"))?;
        if raw.replay_from.get().max(raw.complete_at.get()).max(raw.durable.get()) >= POSITION_END {
            return Err(CheckpointDamage::Field("positions"));
        }
        Ok(Self {
            branch: BranchId::new(raw.branch.get()),
            number: raw.number.get(),
            segment_len_bytes: raw.segment_len_bytes.get(),
            replay_from: Lsn::new(raw.replay_from.get()),
            complete_at: Lsn::new(raw.complete_at.get()),
            durable: Lsn::new(raw.durable.get()),
            chain: Chain::new(raw.chain.get()),
            epoch: Epoch::new(raw.epoch.get()),
            last_timestamp: Timestamp::from_nanos(raw.last_timestamp.get()),
            ids_covered: Lsn::new(raw.ids_covered.get()),
            blocks: raw.blocks.get(),
            blocks_check: raw.blocks_check.get(),
            accounts: raw.accounts.get(),
            holds: raw.holds.get(),
            counters: counters.iter().map(|counter| counter.get()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_every_changed_bit_is_found() {
        let manifest = Manifest {
            branch: BranchId::new(1),
            number: 2,
            segment_len_bytes: 3,
            replay_from: Lsn::new(4),
            complete_at: Lsn::new(5),
            durable: Lsn::new(6),
            chain: Chain::new(7),
            epoch: Epoch::new(8),
            last_timestamp: Timestamp::from_nanos(9),
            ids_covered: Lsn::new(10),
            blocks: 11,
            blocks_check: 12,
            accounts: 13,
            holds: 14,
            counters: vec![15, 16],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(Manifest::decode(&bytes[..100]), Err(CheckpointDamage::Short));
    }
}
