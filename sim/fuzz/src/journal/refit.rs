//! Makes every checksum of a changed folder fit what it covers, as if the branch had written it so: records,
//! groups, the chain from group to group, checkpoint blocks, manifests.
//!
//! Who repeats a checksum that changes (the next group, a manifest) is given the new one, so that the chain holds;
//! what was changed on purpose is not repeated by anybody and stays.

use std::collections::BTreeMap;

use tally_ledger::journal::checkpoint::block::{BLOCK_HEADER_LEN_BYTES, BLOCK_LEN_BYTES, chain};
use tally_ledger::journal::checkpoint::manifest::MANIFEST_LEN_BYTES;
use tally_ledger::journal::cursor::BLOCK_LEN_BYTES as DISK_BLOCK_LEN_BYTES;
use tally_ledger::journal::group::{Chain, GROUP_HEADER_LEN_BYTES, GroupHeader};
use tally_ledger::journal::record::{RECORD_HEADER_LEN_BYTES, RECORD_LEN_BYTES_MAX};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::is_segment;
use crate::change::File;

// Where the fields lie; the layouts are drawn in the ledger's `journal::checkpoint`.
const BLOCK_PAYLOAD_LEN_AT: usize = 32;
const BLOCK_CHECK_AT: usize = 40;
const MANIFEST_CHECK_AT: usize = 8;
const MANIFEST_CHECKED_FROM: usize = 16;
const MANIFEST_CHAIN_AT: usize = 64;
const MANIFEST_BLOCKS_CHECK_AT: usize = 96;

const _: () = assert!(BLOCK_CHECK_AT + 8 == BLOCK_HEADER_LEN_BYTES);

/// From the checksums that were to those that are.
type Renewed = BTreeMap<u64, u64>;

/// See the top of the file. `before` are the files as they were written.
pub(super) fn refit(before: &[File], files: &mut [File]) {
    let mut renewed = Renewed::new();
    // In order of their names: segments lie in the log's order.
    files.iter_mut().filter(|file| is_segment(file)).for_each(|file| refit_segment(&mut file.bytes, &mut renewed));
    for file in files.iter_mut().filter(|file| file.path.extension().is_some_and(|end| end == "blocks")) {
        let blocks_check = refit_blocks(&mut file.bytes);
        let former = before.iter().find(|former| former.path == file.path);
        renewed.extend(former.map(|former| (chain_of_blocks(&former.bytes), blocks_check)));
    }
    for file in files.iter_mut().filter(|file| file.path.extension().is_some_and(|end| end == "manifest")) {
        refit_manifest(&mut file.bytes, &renewed);
    }
}

fn refit_segment(bytes: &mut [u8], renewed: &mut Renewed) {
    let mut at = 0;
    while at < bytes.len() {
        let len_bytes = refit_group(&mut bytes[at..], renewed).unwrap_or(1);
        at += len_bytes.next_multiple_of(DISK_BLOCK_LEN_BYTES as usize);
    }
}

/// The length of the group at the front, if there is one.
fn refit_group(bytes: &mut [u8], renewed: &mut Renewed) -> Option<usize> {
    let (header, former) = GroupHeader::peek(bytes).ok()?;
    let group = bytes.get_mut(..header.len_bytes())?;
    let (space, payload) = group.split_first_chunk_mut::<GROUP_HEADER_LEN_BYTES>()?;
    let mut rest = &mut payload[..];
    while let Some(len_bytes) = refit_record(rest) {
        rest = &mut rest[len_bytes..];
    }
    let previous = header.previous.get();
    let previous = Chain::new(*renewed.get(&previous).unwrap_or(&previous));
    let chain = GroupHeader { previous, ..header }.seal(space, payload);
    renewed.insert(former.get(), chain.get());
    Some(header.len_bytes())
}

fn refit_record(bytes: &mut [u8]) -> Option<usize> {
    let len_bytes = usize::from(u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    if !(RECORD_HEADER_LEN_BYTES..=RECORD_LEN_BYTES_MAX).contains(&len_bytes) {
        return None;
    }
    let check = xxh3_64(bytes.get(4..len_bytes)?) as u32;
    bytes[..4].copy_from_slice(&check.to_le_bytes());
    Some(len_bytes)
}

/// The checksum over all blocks.
fn refit_blocks(bytes: &mut [u8]) -> u64 {
    for block in bytes.chunks_mut(BLOCK_LEN_BYTES) {
        if let Some(payload_len_bytes) = block.get(BLOCK_PAYLOAD_LEN_AT..).and_then(|bytes| bytes.first_chunk())
            && let Some(payload) = block
                .get(BLOCK_HEADER_LEN_BYTES..)
                .and_then(|rest| rest.get(..u32::from_le_bytes(*payload_len_bytes) as usize))
        {
            let check = xxh3_64_with_seed(&block[..BLOCK_CHECK_AT], xxh3_64(payload));
            put(block, BLOCK_CHECK_AT, check);
        }
    }
    chain_of_blocks(bytes)
}

fn chain_of_blocks(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK_LEN_BYTES).filter_map(|block| get(block, BLOCK_CHECK_AT)).fold(0, chain)
}

fn refit_manifest(bytes: &mut [u8], renewed: &Renewed) {
    for at in [MANIFEST_CHAIN_AT, MANIFEST_BLOCKS_CHECK_AT] {
        if let Some(&check) = get(bytes, at).and_then(|former| renewed.get(&former)) {
            put(bytes, at, check);
        }
    }
    if let Some(covered) = bytes.get(MANIFEST_CHECKED_FROM..MANIFEST_LEN_BYTES) {
        let check = xxh3_64(covered);
        put(bytes, MANIFEST_CHECK_AT, check);
    }
}

fn get(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|number| u64::from_le_bytes(*number))
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}
