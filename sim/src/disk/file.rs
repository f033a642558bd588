//! The bytes of one file: as they are read now, and what they may be after a crash.

use std::collections::BTreeMap;

use super::Fate;
use crate::random::Random;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_LEN_BYTES: usize = 512;

type Sector = [u8; SECTOR_LEN_BYTES];

/// See the top of the file.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    /// How long the file is after a crash, at least.
    durable_len_bytes: usize,
    /// Sectors that differ, or differed, from the durable ones: their earlier versions, the durable one first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, all of them durable.
    pub(super) fn copy(&self) -> Self {
        Self { bytes: self.bytes.clone(), durable_len_bytes: self.bytes.len(), unsynced: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, new: &[u8], offset: usize) {
        let end = offset + new.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        let mut at = offset;
        while at < end {
            let sector = at / SECTOR_LEN_BYTES;
            let piece_end = end.min((sector + 1) * SECTOR_LEN_BYTES);
            let piece = &new[at - offset..piece_end - offset];
            // Writing what is there already leaves nothing to tear.
            if self.bytes[at..piece_end] != *piece {
                let before = self.sector(sector);
                self.unsynced.entry(sector).or_default().push(before);
                self.bytes[at..piece_end].copy_from_slice(piece);
            }
            at = piece_end;
        }
    }

    /// Makes the file at least so long.
    pub(super) fn allocate(&mut self, len_bytes: usize) {
        if len_bytes > self.bytes.len() {
            self.bytes.resize(len_bytes, 0);
        }
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable_len_bytes = self.bytes.len();
    }

    /// Makes `start..end` durable, and the length that it needs.
    pub(super) fn sync_range(&mut self, start: usize, end: usize) {
        let sectors: Vec<usize> =
            self.unsynced.range(start / SECTOR_LEN_BYTES..end.div_ceil(SECTOR_LEN_BYTES)).map(|(&at, _)| at).collect();
        for sector in sectors {
            self.unsynced.remove(&sector);
        }
        self.durable_len_bytes = self.durable_len_bytes.max(end);
    }

    pub(super) fn crash(&mut self, random: &mut Random, fate: Fate) {
        for (sector, mut versions) in std::mem::take(&mut self.unsynced) {
            versions.push(self.sector(sector));
            let version = fate.version(random, versions.len());
            let start = sector * SECTOR_LEN_BYTES;
            let end = self.bytes.len().min(start + SECTOR_LEN_BYTES);
            self.bytes[start..end].copy_from_slice(&versions[version][..end - start]);
        }
        if self.bytes.len() > self.durable_len_bytes && fate.version(random, 2) == 0 {
            self.bytes.truncate(self.durable_len_bytes);
        }
        self.durable_len_bytes = self.bytes.len();
    }

    pub(super) fn flip_bit(&mut self, offset: usize, bit: u8) -> bool {
        match self.bytes.get_mut(offset) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        }
    }

    fn sector(&self, sector: usize) -> Sector {
        let start = sector * SECTOR_LEN_BYTES;
        let end = self.bytes.len().min(start + SECTOR_LEN_BYTES);
        let mut copy = [0; SECTOR_LEN_BYTES];
        copy[..end - start].copy_from_slice(&self.bytes[start..end]);
        copy
    }
}
