//! What to do about a refusal, in a few words for whoever sits at the prompt.

use tally_client::{ConnectError, Refused};
use tally_protocol::Refusal;

/// What may help, if anything does.
pub(crate) fn for_refused(refused: &Refused) -> &'static str {
    use Refusal::*;
    match refused.refusal() {
        Some(InsufficientFunds) => "the account has less than that; `balance NAME` tells how much it has",
        Some(DayLimitExceeded) => "the account's limit for today is used up; tomorrow there is a new one",
        Some(DebitAccountNotFound | CreditAccountNotFound | AccountNotFound) => {
            "there is no such account; `accounts` lists the sample customers'"
        }
        Some(DebitAccountFrozen | CreditAccountFrozen) => "the account is frozen; staff can lift that",
        Some(DebitAccountClosed | CreditAccountClosed | AccountClosed) => "the account is closed for good; use another",
        Some(AccountsCurrencyMismatch | TransferCurrencyMismatch) => {
            "the account is kept in another currency; `balance NAME` tells which"
        }
        Some(AccountsMustDiffer) => "an account cannot pay itself",
        Some(AmountMustNotBeZero) => "give an amount above zero",
        Some(NotOwner) => "only its owner may take money from that account; or log in as teller",
        Some(NotPermitted) => "this user may not do that; log in as teller (--user teller)",
        Some(LoginFailed) => "check name and password; connect.json has those of the sample users",
        Some(LoginThrottled) => "too many logins have failed; wait a little",
        Some(RegistryUnreachable) => {
            "payments to other branches need the registry; try again when it is back. Those within a branch go on"
        }
        Some(StampNotReached | StampAhead) => "the branch has not heard of that yet; ask again",
        Some(BranchUnknown) => "the bank has no branch of that number; `status` lists them",
        Some(BranchTimedOut) => {
            "nothing was moved: the other branch did not answer in time. `status` tells how it is; pay again when it serves"
        }
        Some(TransferAborted) => "nothing was moved; pay again",
        Some(TransferResolved) => "nothing was moved: an operator ended it; pay again if it is still due",
        Some(Busy | InFlightLimit | DeadlinePassed) => "nothing was moved; try again",
        Some(ShuttingDown | SessionEnded) => "the branch is stopping or starting; try again in a moment",
        Some(DiskFull | CapacityReached) => "the branch has no room left; tell its operator",
        Some(TransferNotFound) => "no such transfer is known; it may still arrive",
        Some(_) | None => "docs/PROTOCOL.md, Refusals, tells more",
    }
}

/// What may help where no session could be had.
pub(crate) fn for_connect(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Unreachable { .. } | ConnectError::DeadlinePassed => {
            "does it run? `tally up` starts what is missing; `status` tells how the branches are"
        }
        ConnectError::Refused(refused) => for_refused(refused),
        ConnectError::BranchUnknown(_) => "the account's number begins with a wrong branch; `status` lists them",
        ConnectError::OtherBranch { .. } => "the bank is being moved; try again in a moment",
        ConnectError::NotABranch { .. } => "something else listens there; check the endpoint",
        ConnectError::Config(_) => "check the connect file, or the flags",
    }
}
