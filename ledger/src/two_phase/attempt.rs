//! What exactly was prepared under the id of a transfer between branches.
//!
//! A source begins before its own part is durable. A crash may take that part, and the client may send the id again with
//! another content, while the destination holds the first one. So whoever says that it holds a part says of which content,
//! and only what is alike is committed.

use tally_protocol::BranchId;
use tally_protocol::link::CrossTransfer;
use tally_protocol::message;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use crate::journal::record::TransferRecord;
use crate::leg::Leg;

/// A digest over everything that both branches of a transfer record of it, and over which branches they are. Either can
/// tell it from its own record, also after a restart.
///
/// Two contents with one digest would have to be made on purpose, and be met by a crash of the source between begin and
/// flush and by the loss of the second begin: the registry compares two begins in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u64);

impl Attempt {
    /// Of what is prepared only once under its id: the move of an account, whose id the registry has drawn, and which begins
    /// behind its record.
    pub const ONLY: Self = Self(0);

    /// Of a chain that `source` has begun. A branch uses an id once, and begins a chain behind its records, so the branch tells
    /// which chain it is; but a client may use the id for another one at another branch, and what one has promised of the first is
    /// no promise of the second.
    pub const fn of_chain(source: BranchId) -> Self {
        Self(source.get() as u64)
    }

    /// The attempt with this number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What `cross` begins.
    pub fn of_cross(cross: &CrossTransfer) -> Self {
        Self::of(&cross.transfer, BranchId::new(cross.source.get()), BranchId::new(cross.destination.get()))
    }

    /// What `record` has prepared. [`Self::ONLY`] where it is all of a transfer, or part of a move.
    pub fn of_record(record: &TransferRecord) -> Self {
        if record.chain.is_some() {
            return match record.leg {
                Leg::Whole => Self::ONLY,
                Leg::Source => Self::of_chain(record.credit_account_id.branch()),
                // No account that has moved takes part in a chain.
                Leg::Inner => Self::of_chain(record.debit_account_id.branch()),
                Leg::Destination => Self::of_chain(record.peer()),
            };
        }
        let asked = record.as_asked();
        let (source, destination) = match record.leg {
            Leg::Whole | Leg::Inner => return Self::ONLY,
            Leg::Source => (record.credit_account_id.branch(), record.peer()),
            Leg::Destination => (record.peer(), record.debit_account_id.branch()),
        };
        if asked.debit_account_id == asked.credit_account_id {
            return Self::ONLY;
        }
        let wire = message::Transfer {
            id: asked.id.get().into(),
            debit_account_id: asked.debit_account_id.get().into(),
            credit_account_id: asked.credit_account_id.get().into(),
            reference: 0.into(),
            user_data_128: asked.user_data_128.into(),
            amount: asked.amount_asked.get().into(),
            user_data_64: asked.user_data_64.into(),
            user_data_32: asked.user_data_32.into(),
            timeout_s: asked.timeout_s.into(),
            currency: asked.currency.into(),
            code: asked.code.into(),
            flags: 0.into(),
            kind: asked.kind as u8,
            reserved: 0,
        };
        Self::of(&wire, source, destination)
    }

    fn of(transfer: &message::Transfer, source: BranchId, destination: BranchId) -> Self {
        let mut bytes = [0; message::Transfer::LEN_BYTES + 4];
        let (content, branches) = bytes.split_at_mut(message::Transfer::LEN_BYTES);
        content.copy_from_slice(transfer.as_bytes());
        branches[..2].copy_from_slice(&source.get().to_le_bytes());
        branches[2..].copy_from_slice(&destination.get().to_le_bytes());
        Self(xxh3_64(&bytes))
    }
}
