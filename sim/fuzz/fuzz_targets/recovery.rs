//! Whatever the files of a journal hold, its recovery says what is wrong or brings back books: never a panic, a
//! hang or memory without end.
//!
//! Where no checksum was refitted, the books are those of a time that was, and not before what the checkpoint knew
//! to be durable. Where they were, they may be those of no time, and what the branch asks before it starts is all
//! that can be asked. Either way a second recovery finds the same, and nothing left to cut.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tally_branch_server::accounts::Accounts;
use tally_branch_server::holds::Holds;
use tally_branch_server::ids::{IdConfig, IdIndex};
use tally_branch_server::journal::{Recovered, RecoveryError, recover};
use tally_branch_server::recovery::Rebuilding;
use tally_journal::Disk;
use tally_ledger::check;
use tally_sim::disk::SimDisk;
use tally_sim_fuzz::change::Change;
use tally_sim_fuzz::journal::{BRANCH, Books, Careful, JournalFolder, SEGMENT_LEN_BYTES, directory};
use tally_sim_fuzz::scratch::Scratch;

/// Folders are made once and kept: making one takes longer than recovering it. A long one takes 7 MiB.
const FOLDERS: usize = 40;
/// More than any folder opens.
const ACCOUNTS_MAX: u32 = 512;
const HOLDS_MAX: usize = 512;

#[derive(Debug, Arbitrary)]
struct Input {
    folder: u8,
    is_refitted: bool,
    changes: Vec<Change>,
}

fn folder(number: u8) -> &'static JournalFolder {
    static KEPT: [OnceLock<JournalFolder>; FOLDERS] = [const { OnceLock::new() }; FOLDERS];
    let number = usize::from(number) % FOLDERS;
    KEPT[number].get_or_init(|| JournalFolder::write(number as u64))
}

/// What recovery brings back; `None` where a record would have stopped the branch.
fn rebuild(disk: &SimDisk, scratch: &Scratch) -> Result<Option<(Recovered, Books)>, RecoveryError> {
    // Without its keeper the index writes nothing out: it must take what a folder holds into memory.
    let config = IdConfig { generation_len_max: 1 << 12, shard_count: 1, ..IdConfig::default() };
    let (ids, _keeper) = IdIndex::open_by_hand(scratch.path(), config, 1).expect("an empty index opens");
    let rebuilding = Rebuilding::new(BRANCH, ids, || (Accounts::new(ACCOUNTS_MAX, 1), Holds::new(HOLDS_MAX)));
    let mut target = Careful::new(rebuilding);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let recovered = recover(&disk, directory(), SEGMENT_LEN_BYTES, &mut target)?;
    let Careful { inner, has_stopped, .. } = target;
    Ok((!has_stopped).then(|| (recovered, Books::of(inner.accounts.iter(), inner.holds.iter()))))
}

fuzz_target!(|input: Input| {
    let folder = folder(input.folder);
    let disk = folder.damaged(&input.changes, input.is_refitted);
    let scratch = Scratch::new();
    let (recovered, books) = match rebuild(&disk, &scratch) {
        Ok(Some(rebuilt)) => rebuilt,
        Ok(None) => {
            assert!(input.is_refitted, "a record that nobody changed would stop the branch");
            return;
        }
        Err(error) => {
            assert!(!input.changes.is_empty(), "an undamaged folder is refused: {error}");
            return;
        }
    };
    if !input.is_refitted {
        let next = recovered.journal.next;
        assert_eq!(books, folder.books_at(next), "at {next}");
        check::conservation(books.accounts.values()).expect("they balanced whenever that was");
        let durable = recovered.checkpoint.as_ref().map_or(next, |meta| meta.durable);
        assert!(durable <= next, "{durable} was durable, and {next} is the end");
    }
    let (again, books_again) =
        rebuild(&disk, &scratch).expect("what was recovered can be recovered again").expect("as before");
    let place = |recovered: &Recovered| (recovered.journal.next, recovered.journal.chain, recovered.records);
    assert_eq!(place(&again), place(&recovered));
    assert_eq!((again.journal.torn_tail, books_again), (None, books));
});
