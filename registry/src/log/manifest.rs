//! Where the log begins, in the file `raft.manifest`: whose it is, from where to read the journal, and what the part
//! that was given up had said.
//!
//! ```text
//!  0  magic "TALLYLOG"
//!  8  format u32, 1             12 len_bytes u32, of the body
//!  16 check u64, xxh3 of the body, seeded with the eight bytes before it
//!  24 body: cluster_id u128, node_id u64, incarnation u128, segment_len_bytes u64,
//!           replay_from u64, anchor (0, or 1 and: durable u64, chain u64, epoch u32, last_timestamp u64),
//!           vote, committed, purged (each 0, or 1 and as `raft::codec` writes it)
//! ```
//!
//! A new one is written beside it, synced and renamed over it, so that a crash leaves the one or the other.

use std::io;
use std::path::{Path, PathBuf};

use tally_journal::aligned::AlignedBuffer;
use tally_journal::{Anchor, Disk, OpenMode};
use tally_ledger::journal::group::{Chain, Epoch};
use tally_protocol::{Lsn, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::identity::Identity;
use super::index::State;
use crate::bytes::{ReadError, Reader, Write};
use crate::raft::codec;

const MAGIC: [u8; 8] = *b"TALLYLOG";
const FORMAT: u32 = 1;
const HEADER_LEN_BYTES: usize = 24;
/// All of it fits into one block of the disk, several times over.
const LEN_BYTES_MAX: usize = 4096;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose log it is.
    pub identity: Identity,
    /// The length of the journal's segments, which cannot be changed later.
    pub segment_len_bytes: u64,
    /// What the journal must lead to, and from where; `None` for a log that begins at its beginning.
    pub anchor: Option<Anchor>,
    /// What the log said when this was written.
    pub state: State,
}

/// Why a manifest cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is something else, or damaged.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Another version wrote it.
    #[error("it has format {0}, this program reads format {FORMAT}")]
    Format(u32),
    /// The checksum is right, but nobody writes this.
    #[error("it makes no sense: {0}")]
    Body(#[from] ReadError),
}

impl Manifest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC);
        out.put_u32(FORMAT);
        out.extend_from_slice(&[0; 12]);
        out.put_u128(self.identity.cluster_id);
        out.put_u64(self.identity.node_id);
        out.put_u128(self.identity.incarnation);
        out.put_u64(self.segment_len_bytes);
        out.put_u8(u8::from(self.anchor.is_some()));
        if let Some(anchor) = &self.anchor {
            out.put_u64(anchor.replay_from.get());
            out.put_u64(anchor.durable.get());
            out.put_u64(anchor.chain.get());
            out.put_u32(anchor.epoch.get());
            out.put_u64(anchor.last_timestamp.as_nanos());
        }
        out.put_u8(u8::from(self.state.vote.is_some()));
        if let Some(vote) = &self.state.vote {
            codec::put_vote(&mut out, vote);
        }
        codec::put_log_id_option(&mut out, &self.state.committed);
        codec::put_log_id_option(&mut out, &self.state.purged);
        let len_bytes = (out.len() - HEADER_LEN_BYTES) as u32;
        out[12..16].copy_from_slice(&len_bytes.to_le_bytes());
        let check = xxh3_64_with_seed(&out[HEADER_LEN_BYTES..], seed(&out));
        out[16..24].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads what [`Manifest::encode`] wrote, with anything behind it.
    ///
    /// # Errors
    /// When that is not what `bytes` are.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8).ok() != Some(&MAGIC) {
            return Err(ManifestError::Damaged("it does not begin as a manifest does"));
        }
        let format = reader.u32()?;
        if format != FORMAT {
            return Err(ManifestError::Format(format));
        }
        let (len_bytes, check) = (reader.u32()? as usize, reader.u64()?);
        let body = reader.take(len_bytes).map_err(|_| ManifestError::Damaged("it is cut short"))?;
        if xxh3_64_with_seed(body, seed(bytes)) != check {
            return Err(ManifestError::Damaged("its checksum is wrong"));
        }
        let mut reader = Reader::new(body);
        let identity = Identity { cluster_id: reader.u128()?, node_id: reader.u64()?, incarnation: reader.u128()? };
        let segment_len_bytes = reader.u64()?;
        let anchor = if reader.flag("anchor")? { Some(anchor(&mut reader)?) } else { None };
        let vote = if reader.flag("vote")? { Some(codec::vote(&mut reader)?) } else { None };
        let state =
            State { vote, committed: codec::log_id_option(&mut reader)?, purged: codec::log_id_option(&mut reader)? };
        reader.end()?;
        Ok(Self { identity, segment_len_bytes, anchor, state })
    }
}

fn anchor(reader: &mut Reader<'_>) -> Result<Anchor, ReadError> {
    Ok(Anchor {
        replay_from: Lsn::new(reader.u64()?),
        durable: Lsn::new(reader.u64()?),
        chain: Chain::new(reader.u64()?),
        epoch: Epoch::new(reader.u32()?),
        last_timestamp: Timestamp::from_nanos(reader.u64()?),
    })
}

/// Format and length: what the checksum of the body does not cover.
fn seed(bytes: &[u8]) -> u64 {
    bytes.get(8..16).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn path(directory: &Path) -> PathBuf {
    directory.join("raft.manifest")
}

/// The manifest in `directory`, if there is one.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Result<Manifest, ManifestError>>> {
    let file = match disk.open(&path(directory), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = [0; LEN_BYTES_MAX];
    let len_bytes = file.read_at(&mut bytes, 0)?;
    Ok(Some(Manifest::decode(&bytes[..len_bytes])))
}

/// Makes `manifest` the one that counts; it is durable when this returns.
pub(super) fn publish(disk: &dyn Disk, directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let temporary = directory.join("raft.manifest.tmp");
    let mut block = AlignedBuffer::zeroed(LEN_BYTES_MAX);
    let bytes = manifest.encode();
    block[..bytes.len()].copy_from_slice(&bytes);
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.write_at(&block, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, &path(directory))?;
    disk.sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use openraft::LeaderId;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::types::{LogId, Vote};

    fn some() -> [Manifest; 2] {
        let identity = Identity { cluster_id: 0xc1, node_id: 2, incarnation: 0x1a };
        let fresh = Manifest { identity, segment_len_bytes: 16 << 20, anchor: None, state: State::default() };
        let anchor = Anchor {
            replay_from: Lsn::new(16 << 20),
            durable: Lsn::new((17 << 20) + 4096),
            chain: Chain::new(77),
            epoch: Epoch::new(3),
            last_timestamp: Timestamp::from_nanos(999),
        };
        let at = |index| Some(LogId::new(LeaderId::new(4, 1), index));
        let vote = Some(Vote { leader_id: LeaderId::new(5, 2), committed: false });
        let used = Manifest { anchor: Some(anchor), state: State { vote, committed: at(9), purged: at(5) }, ..fresh };
        [fresh, used]
    }

    #[test]
    fn what_was_written_is_read_and_no_cut_or_changed_bit_of_it_is() {
        for manifest in some() {
            let bytes = manifest.encode();
            let padded = [&bytes[..], &[0; 100]].concat();
            assert_eq!(Manifest::decode(&padded), Ok(manifest));
            for len in 0..bytes.len() {
                assert!(Manifest::decode(&bytes[..len]).is_err(), "{len} bytes");
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn the_layout_is_what_is_drawn() {
        let bytes = some()[0].encode();
        assert_eq!(bytes.len(), 24 + 16 + 8 + 16 + 8 + 1 + 3);
        assert_eq!(bytes[..16], *b"TALLYLOG\x01\0\0\0\x34\0\0\0");
        assert_eq!((bytes[24], bytes[40], bytes[48], bytes[66]), (0xc1, 2, 0x1a, 0));
        assert_eq!(bytes[64..72], (16_u64 << 20).to_le_bytes());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&body);
            let mut bytes = [&MAGIC[..], &FORMAT.to_le_bytes(), &(body.len() as u32).to_le_bytes(), &[0; 8]].concat();
            bytes.extend_from_slice(&body);
            let check = xxh3_64_with_seed(&body, seed(&bytes));
            bytes[16..24].copy_from_slice(&check.to_le_bytes());
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
