//! A run: an immutable file of ids in hash order, with its filter and a sparse index in memory, so that a look-up
//! costs one page. And the set of runs that count at a moment.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tally_protocol::{Lsn, TransferId};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Facts;
use super::error::IdError;
use super::filter::{Filter, RawBlock};
use super::hash::IdHasher;
use super::run_format::{Entry, Header, Page, PageKind, RawEntry, RawHeader, items_per_page};

/// Pages to one read where many are read in a row: 256 KiB, so that the journal's writes need not wait long.
pub(super) const PAGES_PER_READ: u64 = 64;

/// The name of run `number`'s file.
pub(super) fn run_file_name(number: u64) -> String {
    format!("run-{number:010}.ids")
}

/// An open run. Numbers are never used twice in a ledger's life.
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) header: Header,
    path: PathBuf,
    file: File,
    filter: Filter,
    /// The hash of the first entry of each entry page.
    first_hashes: Vec<u64>,
}

impl Run {
    /// A run that was just written.
    pub(super) fn written(
        number: u64,
        header: Header,
        path: PathBuf,
        file: File,
        filter: Filter,
        first_hashes: Vec<u64>,
    ) -> Self {
        Self { number, header, path, file, filter, first_hashes }
    }

    /// Opens the run `number` in `dir` and reads its index and filter; its entries are checked as they are read.
    pub(super) fn open(dir: &Path, number: u64, hasher: IdHasher) -> Result<Self, IdError> {
        let path = dir.join(run_file_name(number));
        let file = File::open(&path).map_err(IdError::io(&path))?;
        let pages = PageFile { run: number, path: &path, file: &file };
        let page = pages.read(0, PageKind::Header)?;
        let header = match page.open::<RawHeader>(number, 0, PageKind::Header) {
            Some([raw]) => Header::from_raw(raw),
            Some(_) | None => None,
        };
        let header = header.filter(|header| header.seed == hasher.seed());
        let header = header.ok_or(IdError::PageDamaged { run: number, page: 0, what: "header" })?;

        let len_bytes = file.metadata().map_err(IdError::io(&path))?.len();
        if header.entry_count.max(header.filter_block_count) > len_bytes {
            return Err(IdError::PageDamaged { run: number, page: 0, what: "header" });
        }
        let entry_pages = header.entry_page_count();
        let index_pages = entry_pages.div_ceil(items_per_page(size_of::<U64>()) as u64);
        let filter_pages = header.filter_block_count.div_ceil(items_per_page(size_of::<RawBlock>()) as u64);
        let index_start = 1 + entry_pages;
        let mut first_hashes = Vec::new();
        pages.read_items(index_start, index_pages, PageKind::Index, |hash: &U64| first_hashes.push(hash.get()))?;
        let mut blocks = Vec::new();
        pages.read_items(index_start + index_pages, filter_pages, PageKind::Filter, |raw: &RawBlock| {
            blocks.push(*raw)
        })?;
        let filter = Filter::from_raw(blocks.into_iter());
        let filter = filter.ok_or(IdError::PageDamaged { run: number, page: index_start, what: "filter" })?;
        if first_hashes.len() as u64 != entry_pages {
            return Err(IdError::PageDamaged { run: number, page: index_start, what: "index" });
        }
        Ok(Self { number, header, path, file, filter, first_hashes })
    }

    pub(super) const fn filter_len_bytes(&self) -> usize {
        self.filter.memory_len_bytes()
    }

    pub(super) const fn index_len_bytes(&self) -> usize {
        self.first_hashes.len() * size_of::<u64>()
    }

    /// Adds to `facts` what this run says of `id`. One page is read, two where the id's entries lie in two.
    fn look_up(&self, hash: u64, id: TransferId, facts: &mut Facts) -> Result<(), IdError> {
        let last = self.first_hashes.partition_point(|&first| first <= hash);
        let first = self.first_hashes[..last].partition_point(|&first| first < hash).saturating_sub(1);
        for index in first..last {
            let (number, pages) = (index as u64 + 1, self.pages());
            let page = pages.read(number, PageKind::Entries)?;
            let entries: &[RawEntry] = pages.items(&page, number, PageKind::Entries)?;
            entries.iter().filter(|raw| raw.id() == id).for_each(|raw| Entry::from_raw(raw, hash).add_to(facts));
        }
        Ok(())
    }

    /// Hands out the entries of up to [`PAGES_PER_READ`] pages from entry page `from` (counted from 0) on.
    pub(super) fn read_entries(&self, from: u64, hasher: IdHasher, entries: &mut Vec<Entry>) -> Result<u64, IdError> {
        let count = PAGES_PER_READ.min(self.header.entry_page_count() - from);
        self.pages().read_items(from + 1, count, PageKind::Entries, |raw: &RawEntry| {
            entries.push(Entry::from_raw(raw, hasher.hash(raw.id())));
        })?;
        // Reading a run from end to end must not push out of the page cache what look-ups need. Only a hint.
        let page_len = size_of::<Page>() as u64;
        let len_bytes = NonZeroU64::new(count * page_len);
        let _ = rustix::fs::fadvise(&self.file, (from + 1) * page_len, len_bytes, rustix::fs::Advice::DontNeed);
        Ok(count)
    }

    fn pages(&self) -> PageFile<'_> {
        PageFile { run: self.number, path: &self.path, file: &self.file }
    }
}

/// A run's file, read page by page.
struct PageFile<'a> {
    run: u64,
    path: &'a Path,
    file: &'a File,
}

impl PageFile<'_> {
    fn read(&self, number: u64, kind: PageKind) -> Result<Page, IdError> {
        let mut page = Page::new(kind);
        self.fill(number, kind, page.as_mut_bytes())?;
        Ok(page)
    }

    /// The checked items of a page.
    fn items<'p, T>(&self, page: &'p Page, number: u64, kind: PageKind) -> Result<&'p [T], IdError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        page.open(self.run, number, kind).ok_or(IdError::PageDamaged { run: self.run, page: number, what: kind.name() })
    }

    /// Every item of `count` pages from `from` on.
    fn read_items<T>(&self, from: u64, count: u64, kind: PageKind, mut each: impl FnMut(&T)) -> Result<(), IdError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let mut pages = vec![Page::new_zeroed(); PAGES_PER_READ.min(count) as usize];
        let mut number = from;
        while number < from + count {
            let wanted = PAGES_PER_READ.min(from + count - number) as usize;
            self.fill(number, kind, pages[..wanted].as_mut_bytes())?;
            for page in &pages[..wanted] {
                self.items(page, number, kind)?.iter().for_each(&mut each);
                number += 1;
            }
        }
        Ok(())
    }

    /// A file that ends too early is damaged, not merely short: its length is in its header.
    fn fill(&self, number: u64, kind: PageKind, bytes: &mut [u8]) -> Result<(), IdError> {
        self.file.read_exact_at(bytes, number * size_of::<Page>() as u64).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                IdError::PageDamaged { run: self.run, page: number, what: kind.name() }
            }
            _ => IdError::io(self.path)(source),
        })
    }
}

/// The runs that count, at one moment. Immutable: a change makes a new set.
#[derive(Default)]
pub(super) struct RunSet {
    pub(super) runs: Vec<Arc<Run>>,
}

impl RunSet {
    /// Asks the CPU to fetch what [`Self::may_hold`] will read.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.prefetch_since(0, hash);
    }

    /// Asks the CPU to fetch what [`Self::may_hold_since`] will read.
    #[inline]
    pub(super) fn prefetch_since(&self, runs_from: u64, hash: u64) {
        self.runs.iter().filter(|run| run.number >= runs_from).for_each(|run| run.filter.prefetch(hash));
    }

    /// `false`: certainly in no run.
    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.runs.iter().any(|run| run.filter.may_hold(hash))
    }

    /// `false`: certainly in no run with a number of at least `runs_below`.
    #[inline]
    pub(super) fn may_hold_since(&self, runs_below: u64, hash: u64) -> bool {
        self.runs.iter().any(|run| run.number >= runs_below && run.filter.may_hold(hash))
    }

    /// Above the number of every run in the set.
    pub(super) fn runs_below(&self) -> u64 {
        self.runs.iter().map(|run| run.number + 1).max().unwrap_or(0)
    }

    /// What the runs say of `id`. Reads the disk.
    pub(super) fn look_up(&self, hash: u64, id: TransferId) -> Result<Facts, IdError> {
        let mut facts = Facts::default();
        for run in self.runs.iter().filter(|run| run.filter.may_hold(hash)) {
            run.look_up(hash, id, &mut facts)?;
        }
        Ok(facts)
    }

    /// The highest LSN of any entry.
    pub(super) fn highest_lsn(&self) -> Lsn {
        self.runs.iter().map(|run| run.header.highest_lsn).max().unwrap_or(Lsn::ZERO)
    }
}
