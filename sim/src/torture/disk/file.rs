//! One file of the failing disk: what processes see, and what a power cut would leave of it.
//!
//! Written data stays in memory, in blocks, until a flush moves it to the platter (a file of the backing
//! folder). **Invariant:** the platter holds exactly what was flushed, and nothing else, except where
//! [`FileData::power_cut`] is told to let some of the rest survive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is kept in memory as one piece; a flush of any part of it flushes all of it.
pub(crate) const BLOCK_LEN_BYTES: usize = 4096;
/// What a power cut keeps or loses as one piece.
pub(crate) const SECTOR_LEN_BYTES: usize = 512;

type Block = Box<[u8; BLOCK_LEN_BYTES]>;

/// A file. All offsets and lengths in bytes.
#[derive(Debug)]
pub(crate) struct FileData {
    platter: File,
    /// Length as processes see it.
    len: u64,
    /// Length after a power cut.
    platter_len: u64,
    /// `platter_valid <= platter_len`: how much of the platter can still be seen. Less than all of it
    /// once the file was cut shorter and that was not flushed yet.
    platter_valid: u64,
    /// Written and not flushed.
    dirty: BTreeMap<u64, Block>,
    /// Written, and their flush failed: still seen, never flushed again, gone after a power cut. This is
    /// what Linux does to pages whose write-back failed, and why a failed flush must not be retried.
    doomed: BTreeMap<u64, Block>,
}

impl FileData {
    /// An empty file, whose flushed data goes to `platter` (empty too).
    pub(crate) fn new(platter: File) -> Self {
        Self { platter, len: 0, platter_len: 0, platter_valid: 0, dirty: BTreeMap::new(), doomed: BTreeMap::new() }
    }

    /// Length as processes see it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Up to `len` bytes from `offset` on; fewer at the end of the file.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = self.len.min(offset.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        self.read_platter(offset, &mut out)?;
        let blocks = offset / BLOCK_LEN_BYTES as u64..end.div_ceil(BLOCK_LEN_BYTES as u64);
        if blocks.is_empty() {
            return Ok(out);
        }
        // Doomed first, so that what was written since lies on top.
        for (&number, block) in self.doomed.range(blocks.clone()).chain(self.dirty.range(blocks)) {
            let at = number * BLOCK_LEN_BYTES as u64;
            let (from, to) = (at.max(offset), (at + BLOCK_LEN_BYTES as u64).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - at) as usize..(to - at) as usize]);
        }
        Ok(out)
    }

    /// The part of the platter that can be seen; zeros behind it.
    fn read_platter(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let seen = self.platter_valid.saturating_sub(offset).min(out.len() as u64) as usize;
        self.platter.read_exact_at(&mut out[..seen], offset)
    }

    /// Writes into memory.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let number = at / BLOCK_LEN_BYTES as u64;
            let inside = (at % BLOCK_LEN_BYTES as u64) as usize;
            let count = (BLOCK_LEN_BYTES - inside).min(bytes.len() - done);
            let block = self.block_for_write(number, count == BLOCK_LEN_BYTES)?;
            block[inside..inside + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn block_for_write(&mut self, number: u64, whole: bool) -> io::Result<&mut Block> {
        if !self.dirty.contains_key(&number) {
            let mut block: Block = match self.doomed.remove(&number) {
                Some(block) => block,
                None => Box::new([0; BLOCK_LEN_BYTES]),
            };
            if !whole {
                let at = number * BLOCK_LEN_BYTES as u64;
                let seen = self.read(at, BLOCK_LEN_BYTES)?;
                block[..seen.len()].copy_from_slice(&seen);
            }
            self.dirty.insert(number, block);
        }
        Ok(self.dirty.get_mut(&number).expect("was there or was just put there"))
    }

    /// Makes the file `len` long: cut off, or zeros appended.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let first_gone = len.div_ceil(BLOCK_LEN_BYTES as u64);
            for blocks in [&mut self.dirty, &mut self.doomed] {
                blocks.split_off(&first_gone);
                // The rest of the last block must read as zeros if the file grows again.
                if let Some(block) = blocks.get_mut(&(len / BLOCK_LEN_BYTES as u64)) {
                    block[(len % BLOCK_LEN_BYTES as u64) as usize..].fill(0);
                }
            }
            self.platter_valid = self.platter_valid.min(len);
        }
        self.len = len;
    }

    /// Everything written so far survives a power cut from here on: `fsync` and `fdatasync`.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.flush_len()?;
        for (number, block) in std::mem::take(&mut self.dirty) {
            self.to_platter(number, &block[..])?;
        }
        Ok(())
    }

    /// What was written into `offset..offset + len` survives from here on, and the file's length: one
    /// write to a file that was opened with `O_DSYNC`.
    pub(crate) fn flush_range(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.flush_len()?;
        let end = (offset + len as u64).div_ceil(BLOCK_LEN_BYTES as u64);
        for number in offset / BLOCK_LEN_BYTES as u64..end {
            if let Some(block) = self.dirty.remove(&number) {
                self.to_platter(number, &block[..])?;
            }
        }
        Ok(())
    }

    fn flush_len(&mut self) -> io::Result<()> {
        if self.platter_valid < self.platter_len {
            self.platter.set_len(self.platter_valid)?;
        }
        if self.platter_len != self.len || self.platter_valid != self.len {
            self.platter.set_len(self.len)?;
        }
        (self.platter_len, self.platter_valid) = (self.len, self.len);
        Ok(())
    }

    /// Writes the part of a block that lies inside the platter's length.
    fn to_platter(&self, number: u64, block: &[u8]) -> io::Result<()> {
        let at = number * BLOCK_LEN_BYTES as u64;
        let inside = self.platter_len.saturating_sub(at).min(block.len() as u64) as usize;
        self.platter.write_all_at(&block[..inside], at)
    }

    /// A flush that failed: what was waiting for it can still be seen, and is never written.
    pub(crate) fn doom(&mut self) {
        self.doomed.append(&mut self.dirty);
    }

    /// Forgets what was not flushed. A disk may have written any of it already: `survives` is asked for
    /// each sector of it (never for what lay behind the flushed length). Returns the blocks that lost
    /// something.
    pub(crate) fn power_cut(&mut self, survives: &mut dyn FnMut() -> bool) -> io::Result<u64> {
        let mut lost = self.doomed.len() as u64;
        self.doomed.clear();
        for (number, block) in std::mem::take(&mut self.dirty) {
            let mut whole = true;
            for (sector, bytes) in block.chunks_exact(SECTOR_LEN_BYTES).enumerate() {
                let at = number * BLOCK_LEN_BYTES as u64 + (sector * SECTOR_LEN_BYTES) as u64;
                if at + SECTOR_LEN_BYTES as u64 <= self.platter_len && survives() {
                    self.platter.write_all_at(bytes, at)?;
                } else {
                    whole = false;
                }
            }
            lost += u64::from(!whole);
        }
        (self.len, self.platter_valid) = (self.platter_len, self.platter_len);
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> FileData {
        FileData::new(tempfile::tempfile().expect("a temporary file"))
    }

    fn all(file: &FileData) -> Vec<u8> {
        file.read(0, 1 << 20).expect("readable")
    }

    #[test]
    fn what_was_not_flushed_is_seen_and_then_lost() {
        let mut file = empty();
        file.write(0, b"flushed").unwrap();
        file.flush().unwrap();
        file.write(3, b"SEEN AND LOST").unwrap();
        assert_eq!(all(&file), b"fluSEEN AND LOST");
        assert_eq!(file.power_cut(&mut || false).unwrap(), 1);
        assert_eq!(all(&file), b"flushed");
    }

    #[test]
    fn a_synchronous_write_makes_only_its_own_blocks_durable() {
        let mut file = empty();
        file.write(0, &[1; 3 * BLOCK_LEN_BYTES]).unwrap();
        file.flush().unwrap();
        file.write(0, &[2; BLOCK_LEN_BYTES]).unwrap();
        file.write(BLOCK_LEN_BYTES as u64, &[3; BLOCK_LEN_BYTES]).unwrap();
        file.flush_range(BLOCK_LEN_BYTES as u64, BLOCK_LEN_BYTES).unwrap();
        file.power_cut(&mut || false).unwrap();
        let blocks: Vec<u8> = all(&file).iter().step_by(BLOCK_LEN_BYTES).copied().collect();
        assert_eq!(blocks, [1, 3, 1]);
    }

    #[test]
    fn a_shorter_file_comes_back_unless_that_was_flushed_and_never_shows_old_bytes() {
        for flush in [false, true] {
            let mut file = empty();
            file.write(0, &[7; 5_000]).unwrap();
            file.flush().unwrap();
            file.set_len(10);
            file.set_len(6_000);
            assert_eq!(all(&file)[..12], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
            assert!(all(&file)[10..].iter().all(|&byte| byte == 0), "bytes behind a cut must read as zeros");
            if flush {
                file.flush().unwrap();
            }
            file.power_cut(&mut || false).unwrap();
            let sevens = all(&file).iter().filter(|&&byte| byte == 7).count();
            assert_eq!((file.len(), sevens), if flush { (6_000, 10) } else { (5_000, 5_000) });
        }
    }

    #[test]
    fn a_failed_flush_leaves_bytes_that_a_second_flush_does_not_save() {
        let mut file = empty();
        file.write(0, &[1; 8]).unwrap();
        file.flush().unwrap();
        file.write(0, &[2; 8]).unwrap();
        file.doom();
        file.flush().unwrap();
        assert_eq!(all(&file), [2; 8]);
        assert_eq!(file.power_cut(&mut || true).unwrap(), 1);
        assert_eq!(all(&file), [1; 8]);
    }

    #[test]
    fn sectors_survive_one_by_one_but_not_behind_the_flushed_length() {
        let mut file = empty();
        file.write(0, &[1; 2 * SECTOR_LEN_BYTES]).unwrap();
        file.flush().unwrap();
        file.write(0, &[2; 4 * SECTOR_LEN_BYTES]).unwrap();
        let mut turn = false;
        file.power_cut(&mut || {
            turn = !turn;
            turn
        })
        .unwrap();
        let sectors: Vec<u8> = all(&file).iter().step_by(SECTOR_LEN_BYTES).copied().collect();
        assert_eq!(sectors, [2, 1]);
    }

    #[test]
    fn it_reads_like_a_plain_vector_under_random_writes_and_lengths() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..20 {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let (mut file, mut model, mut durable) = (empty(), Vec::new(), Vec::new());
            for step in 0..300 {
                match random.random_range(0..8) {
                    0..=3 => {
                        let (at, len) = (random.random_range(0..20_000usize), random.random_range(1..9_000usize));
                        let bytes = vec![random.random::<u8>(); len];
                        file.write(at as u64, &bytes).unwrap();
                        model.resize(model.len().max(at + len), 0u8);
                        model[at..at + len].copy_from_slice(&bytes);
                    }
                    4 => {
                        let len = random.random_range(0..20_000usize);
                        file.set_len(len as u64);
                        model.resize(len, 0);
                    }
                    5 | 6 => {
                        file.flush().unwrap();
                        durable = model.clone();
                    }
                    _ => {
                        file.power_cut(&mut || false).unwrap();
                        model = durable.clone();
                    }
                }
                assert_eq!(all(&file), model, "seed {seed} step {step}");
            }
        }
    }
}
