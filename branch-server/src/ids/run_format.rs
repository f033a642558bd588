//! What a run file looks like: pages of 4,096 bytes, each with a checksum that binds it to its run and place.
//!
//! ```text
//! page 0        header: counts, the hash seed, the highest LSN
//! entry pages   up to 170 entries each, in order of (hash of the id, id, tag)
//! index pages   the hash of the first entry of each entry page, 510 to a page
//! filter pages  the run's filter, 63 blocks of 64 bytes to a page
//!
//! page   | check 8 | kind 2 | count 2 | reserved 4 | 4,080 bytes of items ... |
//! entry  | id 16 | tagged LSN 8: bit 63 set for "ended", clear for "record" |
//! ```

use tally_protocol::{Lsn, TransferId};
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::byteorder::little_endian::{U16, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Facts;

/// One page; also the unit and alignment of direct IO.
pub(super) const PAGE_LEN_BYTES: usize = 4096;
const PAGE_HEADER_LEN_BYTES: usize = 16;
/// Items of a page, in bytes.
pub(super) const PAGE_BODY_LEN_BYTES: usize = PAGE_LEN_BYTES - PAGE_HEADER_LEN_BYTES;
/// Entries to a page.
pub(super) const ENTRIES_PER_PAGE: usize = PAGE_BODY_LEN_BYTES / size_of::<RawEntry>();

const FORMAT_VERSION: u16 = 1;
const TAG_ENDED: u64 = 1 << 63;

/// One fact about one id: where its record lies, or where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The ledger's hash of `id`; not stored.
    pub(super) hash: u64,
    pub(super) id: TransferId,
    tagged_lsn: u64,
}

impl Entry {
    pub(super) fn record(hash: u64, id: TransferId, lsn: Lsn) -> Self {
        assert!(lsn.get() < TAG_ENDED, "LSN {lsn} leaves no room for the tag");
        Self { hash, id, tagged_lsn: lsn.get() }
    }

    pub(super) fn ended(hash: u64, id: TransferId, lsn: Lsn) -> Self {
        assert!(lsn.get() < TAG_ENDED, "LSN {lsn} leaves no room for the tag");
        Self { hash, id, tagged_lsn: lsn.get() | TAG_ENDED }
    }

    pub(super) const fn lsn(&self) -> Lsn {
        Lsn::new(self.tagged_lsn & !TAG_ENDED)
    }

    /// The order of entries in a run. Two with the same key say the same about the same id.
    #[inline]
    pub(super) const fn key(&self) -> (u64, TransferId, bool) {
        (self.hash, self.id, self.tagged_lsn & TAG_ENDED != 0)
    }

    /// Adds what this says to what is known of its id.
    pub(super) fn add_to(&self, facts: &mut Facts) {
        let fact = if self.tagged_lsn & TAG_ENDED == 0 { &mut facts.record } else { &mut facts.ended };
        *fact = (*fact).max(Some(self.lsn()));
    }

    pub(super) const fn to_raw(self) -> RawEntry {
        RawEntry { id: U128::new(self.id.get()), tagged_lsn: U64::new(self.tagged_lsn) }
    }

    pub(super) const fn from_raw(raw: &RawEntry, hash: u64) -> Self {
        Self { hash, id: raw.id(), tagged_lsn: raw.tagged_lsn.get() }
    }
}

/// An [`Entry`] as it is stored.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    id: U128,
    tagged_lsn: U64,
}

const _: () = assert!(size_of::<RawEntry>() == 24 && ENTRIES_PER_PAGE == 170);

impl RawEntry {
    #[inline]
    pub(super) const fn id(&self) -> TransferId {
        TransferId::new(self.id.get())
    }
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum PageKind {
    Header = 1,
    Entries = 2,
    Index = 3,
    Filter = 4,
}

impl PageKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Entries => "entries",
            Self::Index => "index",
            Self::Filter => "filter",
        }
    }
}

/// One page of a run file, aligned for direct IO.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub(super) struct Page {
    check: U64,
    kind: U16,
    count: U16,
    reserved: [u8; 4],
    body: [u8; PAGE_BODY_LEN_BYTES],
}

const _: () = assert!(size_of::<Page>() == PAGE_LEN_BYTES);

impl Page {
    /// An empty page of `kind`.
    pub(super) fn new(kind: PageKind) -> Self {
        let mut page = Self::new_zeroed();
        page.kind = U16::new(kind as u16);
        page
    }

    /// Puts `items` into the page and seals it as page `number` of run `run`. They must fit.
    pub(super) fn seal<T: IntoBytes + Immutable>(&mut self, run: u64, number: u64, items: &[T]) {
        let bytes = items.as_bytes();
        self.body[..bytes.len()].copy_from_slice(bytes);
        self.body[bytes.len()..].fill(0);
        self.count = U16::new(u16::try_from(items.len()).expect("a page holds at most 4,080 items"));
        self.check = U64::new(self.checksum(run, number));
    }

    /// The items of page `number` of run `run`, or `None` when it is not that page, whole and of that kind.
    pub(super) fn open<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        run: u64,
        number: u64,
        kind: PageKind,
    ) -> Option<&[T]> {
        if self.check.get() != self.checksum(run, number) || self.kind.get() != kind as u16 {
            return None;
        }
        let count = usize::from(self.count.get());
        let bytes = self.body.get(..count.checked_mul(size_of::<T>())?)?;
        <[T]>::ref_from_bytes(bytes).ok()
    }

    fn checksum(&self, run: u64, number: u64) -> u64 {
        xxh3_64_with_seed(&self.as_bytes()[size_of::<U64>()..], run.rotate_left(32) ^ number)
    }
}

/// The header page's only item.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    magic: [u8; 8],
    version: U16,
    reserved: [u8; 6],
    seed: U64,
    entry_count: U64,
    filter_block_count: U64,
    highest_lsn: U64,
}

/// How much a run file holds, from which all places in it follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The seed of the hash that orders the file.
    pub(super) seed: u64,
    pub(super) entry_count: u64,
    pub(super) filter_block_count: u64,
    /// The highest LSN of any entry.
    pub(super) highest_lsn: Lsn,
}

const MAGIC: [u8; 8] = *b"tallyids";

impl Header {
    pub(super) fn to_raw(self) -> RawHeader {
        RawHeader {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            reserved: [0; 6],
            seed: U64::new(self.seed),
            entry_count: U64::new(self.entry_count),
            filter_block_count: U64::new(self.filter_block_count),
            highest_lsn: U64::new(self.highest_lsn.get()),
        }
    }

    /// `None` when the header is of another format.
    pub(super) fn from_raw(raw: &RawHeader) -> Option<Self> {
        (raw.magic == MAGIC && raw.version.get() == FORMAT_VERSION).then(|| Self {
            seed: raw.seed.get(),
            entry_count: raw.entry_count.get(),
            filter_block_count: raw.filter_block_count.get(),
            highest_lsn: Lsn::new(raw.highest_lsn.get()),
        })
    }

    pub(super) const fn entry_page_count(&self) -> u64 {
        self.entry_count.div_ceil(ENTRIES_PER_PAGE as u64)
    }
}

/// Items to a page when each takes `item_len_bytes`.
pub(super) const fn items_per_page(item_len_bytes: usize) -> usize {
    PAGE_BODY_LEN_BYTES / item_len_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Page {
        let entry = Entry::record(0, TransferId::new(7), Lsn::new(64)).to_raw();
        let mut page = Page::new(PageKind::Entries);
        page.seal(3, 9, &[entry]);
        page
    }

    #[test]
    fn a_page_opens_only_as_what_it_is() {
        let page = sealed();
        let entries: &[RawEntry] = page.open(3, 9, PageKind::Entries).expect("just sealed");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].id(), TransferId::new(7));
        for (run, number, kind) in [(4, 9, PageKind::Entries), (3, 8, PageKind::Entries), (3, 9, PageKind::Index)] {
            assert!(page.open::<RawEntry>(run, number, kind).is_none(), "run {run} page {number} {kind:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for byte in 0..PAGE_LEN_BYTES {
            let mut page = sealed();
            page.as_mut_bytes()[byte] ^= 1 << (byte % 8);
            assert!(page.open::<RawEntry>(3, 9, PageKind::Entries).is_none(), "byte {byte}");
        }
    }

    #[test]
    fn entries_of_one_id_are_neighbours_and_the_later_end_wins() {
        let id = TransferId::new(1);
        let (record, ended) = (Entry::record(5, id, Lsn::new(8)), Entry::ended(5, id, Lsn::new(16)));
        assert!(record.key() < ended.key());
        let mut facts = Facts::default();
        for entry in [ended, record, Entry::ended(5, id, Lsn::new(24)), ended] {
            entry.add_to(&mut facts);
        }
        assert_eq!(facts, Facts { record: Some(Lsn::new(8)), ended: Some(Lsn::new(24)) });
    }
}
