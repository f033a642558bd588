//! When the disk fails: which flush answers `EIO`, and what the disk is like afterwards.

/// What happens after the flush that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next flush succeeds, without the data of the one that failed: a server that only tries again
    /// is told that all is well, and is not.
    Lies,
    /// Every write and flush fails until the disk is repaired.
    StaysBroken,
}

/// The disk's state of health. Repaired by a new `Health::default()`.
#[derive(Debug, Default)]
pub(crate) struct Health {
    armed: Option<(u64, After)>,
    broken: bool,
    failed: u64,
}

impl Health {
    /// The flush after `flushes` more of the files that [`matters`] fails.
    pub(crate) fn arm(&mut self, flushes: u64, after: After) {
        self.armed = Some((flushes, after));
    }

    /// Whether this flush of `path` fails.
    pub(crate) fn flush_fails(&mut self, path: &str) -> bool {
        if self.broken {
            self.failed += 1;
            return true;
        }
        let Some((left, after)) = &mut self.armed else { return false };
        if !matters(path) {
            return false;
        }
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.broken = *after == After::StaysBroken;
        self.armed = None;
        self.failed += 1;
        true
    }

    /// Whether a write fails before it reaches memory.
    pub(crate) fn write_fails(&self) -> bool {
        self.broken
    }

    /// Flushes that were failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

/// Whether the file is one whose failed flush must stop the server: a segment of the journal under its final
/// name. A checkpoint, an id file or a segment in preparation may be given up and made again.
fn matters(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with("segment-") && name.ends_with(".log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_armed_flush_of_the_journal_fails_and_what_follows_depends() {
        for (after, next) in [(After::Lies, false), (After::StaysBroken, true)] {
            let mut health = Health::default();
            health.arm(1, after);
            let fails: Vec<bool> = [
                "journal/segment-1.log",
                "checkpoints/1",
                "journal/preparing.tmp",
                "journal/segment-1.log",
                "journal/segment-1.log",
                "users.toml",
            ]
            .iter()
            .map(|path| health.flush_fails(path))
            .collect();
            assert_eq!(fails, [false, false, false, true, next, next], "{after:?}");
            assert_eq!(health.write_fails(), next);
        }
    }
}
