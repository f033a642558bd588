//! The bank's rules. Events and `now` in, outcomes and effects out: no IO, no clock, no threads.
//!
//! The path of one transfer:
//!
//! ```text
//!   Transfer::from_wire    well formed?                          refused: no trace, the id stays free
//!   repeat                 id known?                             the first answer again, or Exists...
//!   effective_accounts     which two accounts?                   (lock them)
//!   decide                 the ladder of rules                   refused: recorded, the id is used up
//!   transfer_record        what happened, for the journal
//!   Outcome::apply         both accounts after it
//!   RecordEffect           holds opened and ended
//! ```

pub mod account;
pub mod account_change;
pub mod actor;
pub mod audit;
pub mod chain;
pub mod chain_between;
pub mod check;
pub mod closing;
pub mod decide;
pub mod ending;
pub mod hold;
pub mod imported;
pub mod joining;
pub mod journal;
pub mod leg;
pub mod moving;
pub mod opening;
pub mod outcome;
pub mod permissions;
pub mod reference;
pub mod repeat;
pub mod replay;
pub mod state_hash;
pub mod transfer;
pub mod two_phase;
pub mod wire;

pub use account::{Account, Residence, Sums};
pub use account_change::{cash_account, close_account, freeze_account, is_here, set_limits, unfreeze_account};
pub use actor::Actor;
pub use chain::{ChainOutcome, ChainStep, Stretch, chain_accounts, decide_chain, stretches};
pub use chain_between::{ChainPlace, chain_form, member_refusal};
pub use closing::{Closes, StatusChange};
pub use decide::{decide, expire_hold};
pub use ending::{Ending, end_leg};
pub use hold::{Hold, HoldEnd, HoldStage};
pub use imported::mixed;
pub use joining::{Joining, may_join};
pub use leg::{Leg, decide_leg, settlement_account, settlement_account_id};
pub use moving::{MoveStep, arrive, end_move, seal};
pub use opening::{ChainOpened, Opened, open_account, open_chain};
pub use outcome::{Outcome, hold_end_record, transfer_of_record, transfer_record};
pub use permissions::{Action, may_read, permit, permit_opening, permit_transfer};
pub use reference::{Ended, Posted, Reference, effective_accounts};
pub use repeat::{cancel_id, repeat, same_content};
pub use replay::{RecordEffect, redo_account, redo_credit, redo_debit};
pub use state_hash::StateHash;
pub use transfer::{Guests, Transfer, cash_account_id, check_transfer_id};
