//! The wire code of every refusal. A refusal is a normal answer: it says why nothing was done.
//!
//! Numbers are never reused. The order of the variants within a group is the order in which the ledger
//! checks, so the first that applies is the one that is answered (docs/PROTOCOL.md, "Refusals").

macro_rules! refusals {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal $text:literal; )+) => {
        /// Why a request was refused, or why it could not be taken at all.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Refusal {
            $( $(#[doc = $doc])+ $name = $code, )+
        }

        impl Refusal {
            /// Every refusal, by rising code: within a group, in the order in which they are checked.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Reads a wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $( $code => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// The name on the wire's documentation, in logs, metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )+
                }
            }
        }
    };
}

refusals! {
    // 1..=49: the session. Nothing was looked at; the id stays free.
    /// A queue is full; try again after the hint in the reply.
    Busy = 1 "busy";
    /// The deadline in the header passed before the request was begun.
    DeadlinePassed = 2 "deadline_passed";
    /// The first frame must be a hello; the connection is closed.
    HelloExpected = 3 "hello_expected";
    /// No version is spoken by both sides, or a frame's header names another one; the connection is closed.
    VersionUnsupported = 4 "version_unsupported";
    /// Log in first.
    LoginRequired = 5 "login_required";
    /// Unknown user, wrong password, or a token that is not ours, expired or not yet valid.
    LoginFailed = 6 "login_failed";
    /// The role may not do this, or the account belongs to somebody else.
    NotPermitted = 7 "not_permitted";
    /// The message type is unknown.
    MessageTypeUnknown = 8 "message_type_unknown";
    /// The body's length does not fit its message type.
    BodyLenInvalid = 9 "body_len_invalid";
    /// A field holds a value that its description rules out.
    FieldInvalid = 10 "field_invalid";
    /// The frame header is broken (length or reserved field); the connection is closed.
    FrameInvalid = 11 "frame_invalid";
    /// A frame was begun and not finished in time; the connection is closed.
    FrameStalled = 12 "frame_stalled";
    /// Replies were not read in time; the connection is closed.
    ReplyStalled = 13 "reply_stalled";
    /// The server is stopping; ask again elsewhere or later.
    ShuttingDown = 14 "shutting_down";
    /// The disk is nearly full: reads go on, writes are refused.
    DiskFull = 15 "disk_full";
    /// Too many failed logins; wait.
    LoginThrottled = 16 "login_throttled";
    /// More requests in flight than the session may have.
    InFlightLimit = 17 "in_flight_limit";
    /// The user's rights changed or the session was ended; log in again.
    SessionEnded = 18 "session_ended";
    /// The position lies before the oldest record that is kept, or beyond the newest.
    PositionOutOfRange = 19 "position_out_of_range";
    /// A limit of this branch is reached (accounts, open holds); nothing was changed.
    CapacityReached = 20 "capacity_reached";
    /// The registry cannot be reached just now: nothing was begun between branches.
    RegistryUnreachable = 21 "registry_unreachable";
    /// The account is being moved to another branch, which takes a moment; try again.
    AccountMoving = 22 "account_moving";
    /// The account was at another branch before, and that one cannot be asked just now whether it knows the id; try again.
    FormerBranchUnreachable = 23 "former_branch_unreachable";
    /// A look-up with a stamp that no clock of the bank can have given out yet.
    StampAhead = 24 "stamp_ahead";
    /// A look-up with a stamp: what has it could not be shown in time.
    StampNotReached = 25 "stamp_not_reached";

    // 50..=99: malformed. Depends on the request alone; the id stays free.
    /// The id is zero.
    IdMustNotBeZero = 50 "id_must_not_be_zero";
    /// The id is all ones.
    IdMustNotBeMax = 51 "id_must_not_be_max";
    /// A flag that has no meaning is set.
    FlagReserved = 52 "flag_reserved";
    /// The kind is unknown.
    KindInvalid = 53 "kind_invalid";
    /// Flags that exclude each other, or do not go with the kind.
    FlagsConflict = 54 "flags_conflict";
    /// The debit account is missing.
    DebitAccountMustNotBeZero = 55 "debit_account_must_not_be_zero";
    /// The debit account id is all ones.
    DebitAccountMustNotBeMax = 56 "debit_account_must_not_be_max";
    /// The credit account is missing.
    CreditAccountMustNotBeZero = 57 "credit_account_must_not_be_zero";
    /// The credit account id is all ones.
    CreditAccountMustNotBeMax = 58 "credit_account_must_not_be_max";
    /// Debit and credit account are the same.
    AccountsMustDiffer = 59 "accounts_must_differ";
    /// This kind takes no reference.
    ReferenceMustBeZero = 60 "reference_must_be_zero";
    /// This kind must name the transfer that it settles, voids or reverses.
    ReferenceMustNotBeZero = 61 "reference_must_not_be_zero";
    /// The reference is all ones.
    ReferenceMustNotBeMax = 62 "reference_must_not_be_max";
    /// A transfer cannot refer to itself.
    ReferenceMustDiffer = 63 "reference_must_differ";
    /// Only a hold takes a time-out.
    TimeoutReservedForHold = 64 "timeout_reserved_for_hold";
    /// The amount is zero where this kind needs one.
    AmountMustNotBeZero = 65 "amount_must_not_be_zero";
    /// The currency is missing or not an ISO 4217 numeric code.
    CurrencyInvalid = 66 "currency_invalid";
    /// The code is zero.
    CodeMustNotBeZero = 67 "code_must_not_be_zero";
    /// The account belongs to another branch.
    WrongBranch = 68 "wrong_branch";
    /// The id lies in the range of the branch's own accounts.
    AccountIdReserved = 69 "account_id_reserved";
    /// The account's kind is unknown or cannot be opened by a client.
    AccountKindInvalid = 70 "account_kind_invalid";
    /// A linked chain is still open where the request ends.
    ChainOpen = 71 "chain_open";
    /// A batch or chain has no entry, or too many.
    CountInvalid = 72 "count_invalid";
    /// A deposit names no debit account, a withdrawal no credit account: that side is the branch's cash account.
    CashSideMustBeZero = 73 "cash_side_must_be_zero";
    /// The first of the request is imported, this one is not: all are, or none.
    ImportedEventExpected = 74 "imported_event_expected";
    /// The first of the request is not imported, this one is: all are, or none.
    ImportedEventNotExpected = 75 "imported_event_not_expected";
    /// An imported event's own time, in `user_data_64`, is 0 or all ones.
    ImportedEventTimestampOutOfRange = 76 "imported_event_timestamp_out_of_range";
    /// An imported hold has no time-out: its time has passed.
    ImportedEventTimeoutMustBeZero = 77 "imported_event_timeout_must_be_zero";

    // 100..=149: the id is known already.
    /// A transfer with this id and other flags exists.
    ExistsWithDifferentFlags = 100 "exists_with_different_flags";
    /// ... and another kind.
    ExistsWithDifferentKind = 101 "exists_with_different_kind";
    /// ... and another reference.
    ExistsWithDifferentReference = 102 "exists_with_different_reference";
    /// ... and another time-out.
    ExistsWithDifferentTimeout = 103 "exists_with_different_timeout";
    /// ... and another debit account.
    ExistsWithDifferentDebitAccount = 104 "exists_with_different_debit_account";
    /// ... and another credit account.
    ExistsWithDifferentCreditAccount = 105 "exists_with_different_credit_account";
    /// ... and another amount.
    ExistsWithDifferentAmount = 106 "exists_with_different_amount";
    /// ... and other user data (128 bits).
    ExistsWithDifferentUserData128 = 107 "exists_with_different_user_data_128";
    /// ... and other user data (64 bits).
    ExistsWithDifferentUserData64 = 108 "exists_with_different_user_data_64";
    /// ... and other user data (32 bits).
    ExistsWithDifferentUserData32 = 109 "exists_with_different_user_data_32";
    /// ... and another currency.
    ExistsWithDifferentCurrency = 110 "exists_with_different_currency";
    /// ... and another code.
    ExistsWithDifferentCode = 111 "exists_with_different_code";
    /// ... and another owner (accounts).
    ExistsWithDifferentOwner = 112 "exists_with_different_owner";
    /// ... and other limits (accounts).
    ExistsWithDifferentLimits = 113 "exists_with_different_limits";
    /// The id was burnt by a cancel: no transfer will ever carry it.
    IdCancelled = 114 "id_cancelled";
    /// A cancel came too late: a transfer with this id was already posted or refused. In a chain: the id is twice in it, or
    /// is known while the chain is not.
    IdAlreadyUsed = 115 "id_already_used";

    // 190..=199: between branches. Nothing was recorded; the id stays free.
    /// No branch of the bank has the number that the account's id begins with.
    BranchUnknown = 190 "branch_unknown";
    /// The account is at another branch; the hint is that branch's number.
    AccountMoved = 191 "account_moved";
    /// The id was used at the branch where the account was before: ask there; the hint is that branch's number.
    IdUsedElsewhere = 192 "id_used_elsewhere";
    /// An account that has moved takes part in single requests only: not in a batch or chain.
    MovedAccountSinglesOnly = 193 "moved_account_singles_only";
    /// The hold is ended at another branch, that of the payer; the hint is that branch's number.
    HoldElsewhere = 194 "hold_elsewhere";

    // 200..=299: the state of the ledger. Recorded; the id is used up.
    /// Another entry of the chain was refused. For an account: not recorded.
    ChainBroken = 200 "chain_broken";
    /// The transfer that the reference names does not exist, or was refused.
    ReferenceNotFound = 201 "reference_not_found";
    /// The reference names a transfer that is not a hold (settle, void) or did not post (reverse).
    ReferenceKindMismatch = 202 "reference_kind_mismatch";
    /// The hold was settled before.
    HoldAlreadySettled = 203 "hold_already_settled";
    /// The hold was voided before.
    HoldAlreadyVoided = 204 "hold_already_voided";
    /// The hold's time ran out.
    HoldExpired = 205 "hold_expired";
    /// The transfer was reversed before.
    AlreadyReversed = 206 "already_reversed";
    /// The debit account does not exist.
    DebitAccountNotFound = 207 "debit_account_not_found";
    /// The credit account does not exist.
    CreditAccountNotFound = 208 "credit_account_not_found";
    /// The session's customer does not own the account that decides: the credit account for settle and void, else the debit account.
    NotOwner = 209 "not_owner";
    /// The two accounts have different currencies.
    AccountsCurrencyMismatch = 210 "accounts_currency_mismatch";
    /// The transfer's currency is not that of the accounts.
    TransferCurrencyMismatch = 211 "transfer_currency_mismatch";
    /// The reference leads to another debit account.
    ReferenceHasDifferentDebitAccount = 212 "reference_has_different_debit_account";
    /// The reference leads to another credit account.
    ReferenceHasDifferentCreditAccount = 213 "reference_has_different_credit_account";
    /// The reference has another currency.
    ReferenceHasDifferentCurrency = 214 "reference_has_different_currency";
    /// The hold has another code (settle, void).
    HoldHasDifferentCode = 215 "hold_has_different_code";
    /// More than the hold holds.
    AmountExceedsHold = 216 "amount_exceeds_hold";
    /// A void or a reversal must name the whole amount, or none.
    ReferenceHasDifferentAmount = 217 "reference_has_different_amount";
    /// The debit account is closed.
    DebitAccountClosed = 218 "debit_account_closed";
    /// The credit account is closed.
    CreditAccountClosed = 219 "credit_account_closed";
    /// The debit account is frozen.
    DebitAccountFrozen = 220 "debit_account_frozen";
    /// The credit account is frozen.
    CreditAccountFrozen = 221 "credit_account_frozen";
    /// The held debits would not fit in 64 bits.
    OverflowsDebitsHeld = 222 "overflows_debits_held";
    /// The held credits would not fit in 64 bits.
    OverflowsCreditsHeld = 223 "overflows_credits_held";
    /// The posted debits would not fit in 64 bits.
    OverflowsDebitsPosted = 224 "overflows_debits_posted";
    /// The posted credits would not fit in 64 bits.
    OverflowsCreditsPosted = 225 "overflows_credits_posted";
    /// Held and posted debits together would not fit in 64 bits.
    OverflowsDebits = 226 "overflows_debits";
    /// Held and posted credits together would not fit in 64 bits.
    OverflowsCredits = 227 "overflows_credits";
    /// The time-out lies beyond what a time stamp can say.
    OverflowsTimeout = 228 "overflows_timeout";
    /// The debit account has too little: its debits would exceed its credits and overdraft.
    InsufficientFunds = 229 "insufficient_funds";
    /// The credit account's credits would exceed its debits.
    ExceedsDebits = 230 "exceeds_debits";
    /// The debit account's limit for the day is used up.
    DayLimitExceeded = 231 "day_limit_exceeded";
    /// Settling would close the debit account for good, and there would be money or another hold on it.
    DebitAccountNotEmpty = 232 "debit_account_not_empty";
    /// Settling would close the credit account for good, and there would be money or another hold on it.
    CreditAccountNotEmpty = 233 "credit_account_not_empty";
    /// An imported event's own time has not come yet.
    ImportedEventTimestampMustNotAdvance = 234 "imported_event_timestamp_must_not_advance";
    /// An imported transfer's own time is not after the opening of the debit account.
    ImportedEventTimestampMustPostdateDebitAccount = 235 "imported_event_timestamp_must_postdate_debit_account";
    /// An imported transfer's own time is not after the opening of the credit account.
    ImportedEventTimestampMustPostdateCreditAccount = 236 "imported_event_timestamp_must_postdate_credit_account";
    /// The other branch could not take part, or the registry lost the transfer before it was decided: nothing moved.
    TransferAborted = 250 "transfer_aborted";
    /// The other branch did not answer in time: nothing moved.
    BranchTimedOut = 251 "branch_timed_out";
    /// An operator ended the transfer before it was decided: nothing moved.
    TransferResolved = 252 "transfer_resolved";
    /// The credit account moved from one branch to another while the transfer was under way: nothing moved.
    CreditAccountMoved = 253 "credit_account_moved";

    // 300..=349: operations on accounts.
    /// No account with this id.
    AccountNotFound = 300 "account_not_found";
    /// The account was closed before, or an open hold closes it.
    AccountClosed = 301 "account_closed";
    /// The account has money or holds on it.
    AccountNotEmpty = 302 "account_not_empty";
    /// The account is frozen already.
    AccountAlreadyFrozen = 303 "account_already_frozen";
    /// The account is not frozen.
    AccountNotFrozen = 304 "account_not_frozen";
    /// No transfer with this id is known; it may still arrive. Cancel the id to make sure that it never does.
    TransferNotFound = 305 "transfer_not_found";
    /// The account takes part in transfers or holds between branches that are not decided, or of which the end or another account is
    /// on its way: it cannot be moved now.
    AccountHasHolds = 306 "account_has_holds";
    /// The account is frozen: it cannot be moved.
    AccountFrozen = 307 "account_frozen";
    /// The account has been at as many branches as one account may be.
    AccountMovedTooOften = 308 "account_moved_too_often";
    /// An open hold on the account cannot go along: the branch that the account is to go to knows its id, and has not the rest of
    /// it; or it closes an account when it is settled; or there are more than may go along.
    AccountHoldsStay = 309 "account_holds_stay";
}

impl Refusal {
    /// The wire code.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the ledger records this refusal and uses up the transfer's id. The others leave no
    /// trace: the same id can be tried again.
    pub const fn consumes_id(self) -> bool {
        let code = self as u16;
        code >= 200 && code < 300
    }
}

/// What kind of refusal a code is; told by its range, so that codes of a newer branch are understood too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusalGroup {
    /// `1..=49`: the session or the server; nothing was looked at and the id stays free.
    Session,
    /// `50..=99`: the request can never be done as it is; the id stays free.
    Malformed,
    /// `100..=199`: the id is known already, with other content or burnt.
    Known,
    /// `200..=299`: the state of the ledger forbids it; recorded, and the id is used up.
    State,
    /// `300..`: an operation or question about an account or transfer; nothing was recorded.
    Account,
}

impl RefusalGroup {
    /// The group of a wire code, whether this build knows the code or not. 0 is no refusal.
    pub const fn of_code(code: u16) -> Option<Self> {
        Some(match code {
            0 => return None,
            1..=49 => Self::Session,
            50..=99 => Self::Malformed,
            100..=199 => Self::Known,
            200..=299 => Self::State,
            300.. => Self::Account,
        })
    }
}

impl Refusal {
    /// Which range the code lies in.
    pub const fn group(self) -> RefusalGroup {
        match self as u16 {
            0..=49 => RefusalGroup::Session,
            50..=99 => RefusalGroup::Malformed,
            100..=199 => RefusalGroup::Known,
            200..=299 => RefusalGroup::State,
            300.. => RefusalGroup::Account,
        }
    }

    /// Whether the same request, with the same id, may well be done when it is sent again later. Nothing
    /// about the request is wrong then, only the moment.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::DeadlinePassed
                | Self::ShuttingDown
                | Self::DiskFull
                | Self::LoginThrottled
                | Self::InFlightLimit
                | Self::CapacityReached
                | Self::AccountMoving
                | Self::FormerBranchUnreachable
        )
    }

    /// Whether the hint that comes with it is the number of the branch to ask instead.
    pub const fn names_branch(self) -> bool {
        matches!(self, Self::AccountMoved | Self::IdUsedElsewhere | Self::HoldElsewhere)
    }

    /// Whether the server closes the connection behind this refusal, whenever it is sent. `LoginRequired` and
    /// `ShuttingDown` may be the last words too: with request id 0 they are about the connection.
    pub const fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::HelloExpected
                | Self::VersionUnsupported
                | Self::FrameInvalid
                | Self::FrameStalled
                | Self::ReplyStalled
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DebitAccountNotFound` and `UserData128` as the wire's documentation writes them.
    fn snake_case(name: &str) -> String {
        let mut out = String::new();
        let mut before = ' ';
        for c in name.chars() {
            let digits_begin = c.is_ascii_digit() && !before.is_ascii_digit();
            if (c.is_ascii_uppercase() || digits_begin) && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
            before = c;
        }
        out
    }

    #[test]
    fn codes_rise_and_names_are_those_of_the_variants() {
        assert!(Refusal::ALL.is_sorted_by(|a, b| a.code() < b.code()));
        for &refusal in Refusal::ALL {
            assert_eq!(refusal.name(), snake_case(&format!("{refusal:?}")));
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
            assert_eq!(RefusalGroup::of_code(refusal.code()), Some(refusal.group()));
            assert_eq!(refusal.consumes_id(), refusal.group() == RefusalGroup::State, "{refusal}");
        }
        assert_eq!(Refusal::from_code(0), None);
        assert_eq!(RefusalGroup::of_code(0), None);
    }

    #[test]
    fn only_the_session_is_transient_or_closes() {
        for &refusal in Refusal::ALL {
            if refusal.is_transient() || refusal.closes_connection() {
                assert_eq!(refusal.group(), RefusalGroup::Session, "{refusal}");
            }
            assert!(!(refusal.is_transient() && refusal.closes_connection()), "{refusal}");
        }
    }
}
