//! Makes the checksums of a changed file fit again: of each page of a run, and of the manifest's text.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::run_number;
use crate::change::File;

/// The layout is drawn in the index's `run_format`: the checksum comes first and covers the rest, with a seed that
/// binds the page to its run and place.
const PAGE_LEN_BYTES: usize = 4096;
const PAGE_CHECKED_FROM: usize = 8;
const MANIFEST_CHECK: &[u8] = b"check ";

/// See the top of the file.
pub(super) fn refit(file: &mut File) {
    match run_number(file) {
        Some(run) => refit_run(run, &mut file.bytes),
        None => refit_manifest(&mut file.bytes),
    }
}

fn refit_run(run: u64, bytes: &mut [u8]) {
    for (number, page) in (0u64..).zip(bytes.chunks_exact_mut(PAGE_LEN_BYTES)) {
        let check = xxh3_64_with_seed(&page[PAGE_CHECKED_FROM..], run.rotate_left(32) ^ number);
        page[..PAGE_CHECKED_FROM].copy_from_slice(&check.to_le_bytes());
    }
}

fn refit_manifest(bytes: &mut Vec<u8>) {
    let starts = bytes.windows(MANIFEST_CHECK.len());
    if let Some(body_len) = starts.into_iter().rposition(|window| window == MANIFEST_CHECK) {
        bytes.truncate(body_len);
        let check = xxh3_64(bytes);
        bytes.extend_from_slice(format!("check {check:016x}\n").as_bytes());
    }
}
