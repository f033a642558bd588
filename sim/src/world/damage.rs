//! Damage at rest: one bit of what was durable is changed, on a copy of the disk. The branch must refuse to start
//! from that, or come to the very same state; what it must not do is to start with another.

use std::path::PathBuf;
use std::sync::Arc;

use tally_branch_server::accounts::Accounts;
use tally_branch_server::holds::Holds;
use tally_branch_server::journal::recover;
use tally_branch_server::recovery::Rebuilding;
use tally_journal::Disk;
use tally_ledger::{Account, Hold};
use tally_protocol::Lsn;

use super::World;
use super::boot::{ACCOUNTS_MAX, SEGMENT_LEN_BYTES};
use crate::invariants::{Violation, hold, replay_equals_served};
use crate::trace::trace;

impl World {
    /// Changes one bit below `durable` on a copy of the disk, and recovers from that.
    pub(super) fn damage_a_copy(&mut self, durable: Lsn) -> Result<(), Violation> {
        let copy = self.disk.copy();
        let Some((path, offset)) = self.place_to_damage(durable) else { return Ok(()) };
        let bit = self.random.below(8) as u8;
        if !copy.flip_bit(&path, offset, bit) {
            return Ok(());
        }
        let Ok((ids, _keeper)) = self.ids.open() else { return Ok(()) };
        let holds_max = self.setting.holds_max;
        let fresh = move || (Accounts::new(ACCOUNTS_MAX, 1), Holds::new(holds_max));
        let mut target = Rebuilding::new(self.setting.branch, ids, fresh);
        let disk: Arc<dyn Disk> = Arc::new(copy);
        let recovered = recover(&disk, &self.setting.directory, SEGMENT_LEN_BYTES, &mut target);
        trace!(self.trace, "bit {bit} of {} at {offset} damaged: refused {}", path.display(), recovered.is_err());
        let Ok(recovered) = recovered else { return Ok(()) };
        hold!(
            Recoverable,
            recovered.journal.next >= durable,
            "a bit of {} at {offset}, below {durable}, was damaged, and the journal goes on at {}",
            path.display(),
            recovered.journal.next
        );
        let accounts: Vec<Account> = target.accounts.iter().collect();
        let holds: Vec<Hold> = target.holds.iter().collect();
        replay_equals_served::check(&accounts, &holds, self.audit.model())
    }

    /// A durable byte of a journal segment or of a checkpoint.
    fn place_to_damage(&mut self, durable: Lsn) -> Option<(PathBuf, u64)> {
        let files = self.disk.files();
        let path = self.random.pick(&files).clone();
        let len_bytes = self.disk.contents(&path)?.len() as u64;
        let number = tally_journal::segment::segment_number(&path);
        let end = match number {
            Some(number) => durable.get().saturating_sub(number * SEGMENT_LEN_BYTES).min(len_bytes),
            None => len_bytes,
        };
        (end > 0).then(|| (path, self.random.below(end)))
    }
}
