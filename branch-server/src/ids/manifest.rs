//! The one small file that says which runs count and how much of the journal they cover. Replacing it is the moment
//! at which a new run exists; run files that it does not name are left-overs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tally_protocol::Lsn;
use xxhash_rust::xxh3::xxh3_64;

use super::error::IdError;

/// The manifest's name in the index's directory.
pub(super) const MANIFEST_FILE_NAME: &str = "ids.manifest";

/// Far more than a ledger ever writes, and far from where counting on would overflow.
const NEXT_RUN_MAX: u64 = 1 << 62;

const TITLE: &str = "tallystick-ids 1";

/// What the manifest says. It is text, so that an operator can read it:
///
/// ```text
/// tallystick-ids 1
/// seed 8d1f0c2b44a59e07
/// covered 734003200
/// next-run 6
/// run 4
/// run 5
/// check 1f6d2c9a8b3e4d50
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Seed of the hash that orders the runs.
    pub(super) seed: u64,
    /// Every id whose record, or end, lies below this is in the runs.
    pub(super) covered: Lsn,
    /// The number of the next run; never used before.
    pub(super) next_run: u64,
    /// The runs that count.
    pub(super) runs: Vec<u64>,
}

impl Manifest {
    pub(super) fn to_text(&self) -> String {
        let Self { seed, covered, next_run, runs } = self;
        let mut text = format!("{TITLE}\nseed {seed:016x}\ncovered {covered}\nnext-run {next_run}\n");
        for run in runs {
            writeln!(text, "run {run}").expect("writing to a string cannot fail");
        }
        let check = xxh3_64(text.as_bytes());
        writeln!(text, "check {check:016x}").expect("writing to a string cannot fail");
        text
    }

    /// Reads what [`Self::to_text`] wrote; otherwise what is wrong with it.
    pub(super) fn from_text(text: &str) -> Result<Self, &'static str> {
        let body_len = text.rfind("check ").ok_or("no checksum")?;
        let (body, check) = text.split_at(body_len);
        if check.trim_end() != format!("check {:016x}", xxh3_64(body.as_bytes())) {
            return Err("its checksum does not match");
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err("it is of another format");
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let seed = field("seed").and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or("no seed")?;
        let covered = field("covered").and_then(parse).map(Lsn::new).ok_or("no covered position")?;
        let next_run = field("next-run").and_then(parse).ok_or("no next run")?;
        let runs: Option<Vec<u64>> = lines.map(|line| line.strip_prefix("run ").and_then(parse)).collect();
        let runs = runs.ok_or("a run without a number")?;
        if runs.iter().any(|&run| run >= next_run) {
            return Err("a run with a number that was not given out");
        }
        if next_run > NEXT_RUN_MAX {
            return Err("a number for the next run that cannot have been reached");
        }
        Ok(Self { seed, covered, next_run, runs })
    }

    /// Reads the manifest in `dir`, or `None` where there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, IdError> {
        let path: PathBuf = dir.join(MANIFEST_FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdError::Io { path, source }),
        };
        let text = str::from_utf8(&bytes).map_err(|_| "it is not text");
        match text.and_then(Self::from_text) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(what) => Err(IdError::ManifestDamaged { path, what }),
        }
    }
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_noticed() {
        for runs in [vec![], vec![4, 5]] {
            let manifest = Manifest { seed: u64::MAX / 3, covered: Lsn::new(1 << 40), next_run: 6, runs };
            let text = manifest.to_text();
            assert_eq!(Manifest::from_text(&text), Ok(manifest));
            for index in 0..text.len() - 1 {
                let mut bytes = text.clone().into_bytes();
                bytes[index] ^= 1;
                let changed = String::from_utf8(bytes).expect("still ASCII");
                assert!(Manifest::from_text(&changed).is_err(), "byte {index} changed");
                assert!(Manifest::from_text(&text[..index]).is_err(), "cut at {index}");
            }
        }
    }

    #[test]
    fn numbers_that_were_not_given_out_are_refused() {
        for (next_run, runs) in [(3, vec![3]), (u64::MAX, vec![])] {
            let manifest = Manifest { seed: 0, covered: Lsn::ZERO, next_run, runs };
            assert!(Manifest::from_text(&manifest.to_text()).is_err());
        }
    }
}
