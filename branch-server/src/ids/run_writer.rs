//! Writes a run from entries that come in order: a generation that is written out, or runs that are merged. Memory
//! is the run's filter and index, which are needed anyway, and one buffer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use tally_protocol::Lsn;
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{Immutable, IntoBytes};

use super::dir::Dir;
use super::error::IdError;
use super::filter::{Filter, RawBlock};
use super::hash::IdHasher;
use super::run::Run;
use super::run_format::{ENTRIES_PER_PAGE, Entry, Header, PAGE_LEN_BYTES, Page, PageKind, RawEntry, items_per_page};

/// Pages to one write: 128 KiB take the disk half a millisecond, which is how long a journal write may wait behind one.
const PAGES_PER_WRITE: usize = 32;

/// A run in the making. Dropping it leaves a file behind that no manifest names.
pub(super) struct RunWriter {
    dir: Arc<Dir>,
    number: u64,
    seed: u64,
    path: PathBuf,
    file: File,
    filter: Filter,
    first_hashes: Vec<u64>,
    /// The last entry pushed: the next may say the same of the same id.
    last: Option<Entry>,
    /// Entries of the page being filled.
    entries: Vec<RawEntry>,
    /// Full pages that are not written yet.
    pages: Vec<Page>,
    /// The number of the first page in `pages`.
    page_number: u64,
    entry_count: u64,
    highest_lsn: Lsn,
}

impl RunWriter {
    /// Begins run `number` for about `id_count_max` ids.
    pub(super) fn create(
        dir: &Arc<Dir>,
        number: u64,
        hasher: IdHasher,
        id_count_max: u64,
        filter_bits_per_id: u32,
    ) -> Result<Self, IdError> {
        let filter = Filter::new(id_count_max, filter_bits_per_id);
        let page_count = id_count_max.div_ceil(ENTRIES_PER_PAGE as u64);
        let len_bytes = (page_count + 2) * PAGE_LEN_BYTES as u64 + filter.memory_len_bytes() as u64;
        let (path, file) = dir.create_run(number, len_bytes)?;
        Ok(Self {
            dir: Arc::clone(dir),
            number,
            seed: hasher.seed(),
            path,
            file,
            filter,
            first_hashes: Vec::new(),
            last: None,
            entries: Vec::with_capacity(ENTRIES_PER_PAGE),
            pages: Vec::with_capacity(PAGES_PER_WRITE),
            page_number: 1,
            entry_count: 0,
            highest_lsn: Lsn::ZERO,
        })
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes handed to the disk so far.
    pub(super) const fn written_len_bytes(&self) -> u64 {
        (self.page_number - 1) * PAGE_LEN_BYTES as u64
    }

    /// Adds the next entry in order.
    pub(super) fn push(&mut self, entry: Entry) -> Result<(), IdError> {
        let Some(last) = self.last.replace(entry) else { return Ok(()) };
        if last.key() != entry.key() {
            assert!(last.key() < entry.key(), "entries of a run come in order");
            return self.place(last);
        }
        // Replay can bring an entry that a run has already. Of two ends the later counts.
        if last.lsn() > entry.lsn() {
            self.last = Some(last);
        }
        Ok(())
    }

    /// Writes the rest, makes the file durable and opens it.
    pub(super) fn finish(mut self) -> Result<Run, IdError> {
        if let Some(last) = self.last.take() {
            self.place(last)?;
        }
        if !self.entries.is_empty() {
            self.end_entry_page()?;
        }
        let first_hashes = std::mem::take(&mut self.first_hashes);
        self.push_pages(PageKind::Index, first_hashes.iter().map(|&hash| U64::new(hash)))?;
        let filter = std::mem::replace(&mut self.filter, Filter::new(0, 0));
        let filter_block_count = filter.to_raw().len() as u64;
        self.push_pages(PageKind::Filter, filter.to_raw())?;
        self.write()?;

        let Self { seed, entry_count, highest_lsn, .. } = self;
        let header = Header { seed, entry_count, filter_block_count, highest_lsn };
        let mut page = Page::new(PageKind::Header);
        page.seal(self.number, 0, &[header.to_raw()]);
        self.file.write_all_at(page.as_bytes(), 0).map_err(IdError::io(&self.path))?;
        self.file.set_len(self.page_number * PAGE_LEN_BYTES as u64).map_err(IdError::io(&self.path))?;
        self.dir.sync_run(&self.path, &self.file)?;
        // Look-ups read through the page cache, unlike this writer.
        let file = File::open(&self.path).map_err(IdError::io(&self.path))?;
        Ok(Run::written(self.number, header, self.path, file, filter, first_hashes))
    }

    fn place(&mut self, entry: Entry) -> Result<(), IdError> {
        if self.entries.is_empty() {
            self.first_hashes.push(entry.hash);
        }
        self.filter.add(entry.hash);
        self.entries.push(entry.to_raw());
        self.entry_count += 1;
        self.highest_lsn = self.highest_lsn.max(entry.lsn());
        if self.entries.len() == ENTRIES_PER_PAGE { self.end_entry_page() } else { Ok(()) }
    }

    fn end_entry_page(&mut self) -> Result<(), IdError> {
        let entries = std::mem::take(&mut self.entries);
        self.push_page(PageKind::Entries, &entries)?;
        self.entries = entries;
        self.entries.clear();
        Ok(())
    }

    fn push_pages<T: IntoBytes + Immutable>(
        &mut self,
        kind: PageKind,
        items: impl Iterator<Item = T>,
    ) -> Result<(), IdError> {
        let mut page = Vec::new();
        for item in items {
            page.push(item);
            if page.len() == items_per_page(size_of::<T>()) {
                self.push_page(kind, &page)?;
                page.clear();
            }
        }
        if page.is_empty() { Ok(()) } else { self.push_page(kind, &page) }
    }

    fn push_page<T: IntoBytes + Immutable>(&mut self, kind: PageKind, items: &[T]) -> Result<(), IdError> {
        let mut page = Page::new(kind);
        page.seal(self.number, self.page_number + self.pages.len() as u64, items);
        self.pages.push(page);
        if self.pages.len() == PAGES_PER_WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), IdError> {
        let offset = self.page_number * PAGE_LEN_BYTES as u64;
        self.file.write_all_at(self.pages.as_bytes(), offset).map_err(IdError::io(&self.path))?;
        self.page_number += self.pages.len() as u64;
        self.pages.clear();
        Ok(())
    }
}

const _: () = assert!(items_per_page(size_of::<RawBlock>()) == 63);
