//! The journal on a disk in memory that crashes anywhere, and on the real one.

mod crashes;
mod flushing;
mod space;

use std::path::Path;
use std::sync::Arc;

use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::record::Record;
use tally_protocol::{CustomerId, Lsn, Timestamp};

use crate::disk::Disk;
use crate::flusher::Step;
use crate::recovery::{Recovered, RecoveryError, open_directory, recover_groups};
use crate::testing::{Manual, MemoryDisk, SEGMENT_LEN_BYTES as SEGMENT, append, body, decode_group, directory};

/// Where the journal in `directory` goes on, and all its records.
fn recover(disk: &dyn Disk, directory: &Path, segment_len: u64) -> Result<(Recovered, Vec<Record>), RecoveryError> {
    let geometry = open_directory(disk, directory, segment_len)?;
    let mut records = Vec::new();
    let recovered = recover_groups(disk, directory, geometry, None, &mut |first, count, bytes| {
        records.extend(decode_group(first, count, bytes));
        Ok::<_, RecoveryError>(())
    })?;
    Ok((recovered, records))
}

fn recover_from(disk: &MemoryDisk) -> Result<(Recovered, Vec<Record>), RecoveryError> {
    recover(disk, directory(), SEGMENT)
}
