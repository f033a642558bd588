//! What an action led to: for people, and as JSON for programs.

use std::fmt;

use serde_json::{Value, json};
use tally_client::{ConnectError, Refused, RequestError};
use tally_protocol::message::{Balance, TransferState};
use tally_protocol::{AccountId, Amount, BranchId, Currency, TransferId};

use super::advice;

/// What somebody has.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    name: String,
    account_id: AccountId,
    currency: Currency,
    credits: Amount,
    debits: Amount,
    held: Amount,
}

/// A branch, as the registry and it itself tell.
#[derive(Clone, Debug)]
pub(crate) struct BranchLine {
    pub(crate) branch_id: BranchId,
    pub(crate) endpoint: String,
    pub(crate) status: &'static str,
    /// Accounts, transfers since it began to serve; or why it did not answer.
    pub(crate) answered: Result<(u64, u64), String>,
}

/// What one branch knows of a transfer.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) branch_id: BranchId,
    pub(crate) what: Result<TransferState, String>,
    /// Why it was refused.
    pub(crate) refusal: Option<String>,
    /// What was moved, and its currency.
    pub(crate) money: Option<(Amount, Currency)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Holdings(Vec<Holding>),
    /// It is done; what those have who took part. `was_unknown` tells why that was not known at first.
    Done {
        id: TransferId,
        was_unknown: Option<String>,
        holdings: Vec<Holding>,
    },
    Refused {
        id: Option<TransferId>,
        refused: Refused,
    },
    NotSent(ConnectError),
    /// It was not done, and never will be.
    Never {
        id: TransferId,
        why: String,
    },
    /// It is not known yet.
    Unknown {
        id: TransferId,
        why: String,
    },
    Failed(String),
    Branches(Vec<BranchLine>),
    Transfer {
        id: TransferId,
        known: Vec<Known>,
    },
}

impl Holding {
    /// Out of what the branch said.
    pub(crate) fn new(name: &str, balance: &Balance) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            account_id: AccountId::new(balance.id.get()),
            currency: Currency::new(balance.currency.get())?,
            credits: Amount::new(balance.sums.credits_posted.get()),
            debits: Amount::new(balance.sums.debits_posted.get()),
            held: Amount::new(balance.sums.debits_held.get()),
        })
    }

    fn amount(&self) -> String {
        let (credits, debits) = (self.credits.get(), self.debits.get());
        let sign = if credits < debits { "-" } else { "" };
        format!("{sign}{}", Amount::new(credits.abs_diff(debits)).display(self.currency))
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "account": format!("{:#x}", self.account_id.get()),
            "balance": self.amount(),
            "held": self.held.display(self.currency).to_string(),
            "currency": self.currency.to_string(),
        })
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.amount(), self.currency)?;
        if self.held.is_zero() { Ok(()) } else { write!(f, " ({} held)", self.held.display(self.currency)) }
    }
}

impl Answer {
    /// A request that was not answered as hoped.
    pub(crate) fn of_error(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refused) => Self::Refused { id: None, refused },
            RequestError::NotSent(why) => Self::NotSent(why),
            error @ (RequestError::Lost(_) | RequestError::DeadlinePassed | RequestError::Unexpected(_)) => {
                Self::Failed(format!("no answer: {error}"))
            }
        }
    }

    /// Whether what was asked for was done.
    pub(crate) fn is_good(&self) -> bool {
        match self {
            Self::Holdings(_) | Self::Done { .. } | Self::Branches(_) | Self::Transfer { .. } => true,
            Self::Refused { .. } | Self::NotSent(_) | Self::Never { .. } | Self::Unknown { .. } | Self::Failed(_) => {
                false
            }
        }
    }

    /// One object; `result` says what it is.
    pub(crate) fn json(&self) -> Value {
        let all = |holdings: &[Holding]| holdings.iter().map(Holding::json).collect::<Vec<_>>();
        match self {
            Self::Holdings(holdings) => json!({ "result": "balances", "balances": all(holdings) }),
            Self::Done { id, was_unknown, holdings } => json!({
                "result": "done", "id": id.to_string(), "was_unknown": was_unknown, "balances": all(holdings),
            }),
            Self::Refused { id, refused } => json!({
                "result": "refused",
                "id": id.map(|id| id.to_string()),
                "refusal": refused.refusal().map(|refusal| refusal.name()),
                "code": refused.code,
                "advice": advice::for_refused(refused),
            }),
            Self::NotSent(why) => {
                json!({ "result": "not_sent", "why": why.to_string(), "advice": advice::for_connect(why) })
            }
            Self::Never { id, why } => json!({ "result": "never", "id": id.to_string(), "why": why }),
            Self::Unknown { id, why } => json!({ "result": "unknown", "id": id.to_string(), "why": why }),
            Self::Failed(why) => json!({ "result": "failed", "why": why }),
            Self::Branches(branches) => json!({
                "result": "status",
                "branches": branches.iter().map(BranchLine::json).collect::<Vec<_>>(),
            }),
            Self::Transfer { id, known } => json!({
                "result": "transfer",
                "id": id.to_string(),
                "branches": known.iter().map(Known::json).collect::<Vec<_>>(),
            }),
        }
    }
}

impl BranchLine {
    fn json(&self) -> Value {
        let (accounts, transfers, why) = match &self.answered {
            Ok((accounts, transfers)) => (Some(accounts), Some(transfers), None),
            Err(why) => (None, None, Some(why)),
        };
        json!({
            "branch": self.branch_id.get(), "endpoint": self.endpoint, "status": self.status,
            "accounts": accounts, "transfers": transfers, "problem": why,
        })
    }
}

impl fmt::Display for BranchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "branch {:<4} {:<21} {:<8} ", self.branch_id, self.endpoint, self.status)?;
        match &self.answered {
            Ok((accounts, transfers)) => write!(f, "{accounts} accounts, {transfers} transfers since its start"),
            Err(why) => write!(f, "does not answer: {why}"),
        }
    }
}

/// The name of a state, as in docs/PROTOCOL.md.
fn state_name(state: TransferState) -> &'static str {
    match state {
        TransferState::Done => "done",
        TransferState::Refused => "refused",
        TransferState::InFlight => "in flight",
        TransferState::Settled => "settled",
        TransferState::Voided => "voided",
        TransferState::Expired => "expired",
        TransferState::Cancelled => "cancelled",
        TransferState::Reversed => "reversed",
        TransferState::Prepared => "prepared, not decided",
    }
}

impl Known {
    fn json(&self) -> Value {
        let (state, problem) = match &self.what {
            Ok(state) => (Some(state_name(*state)), None),
            Err(why) => (None, Some(why)),
        };
        json!({
            "branch": self.branch_id.get(), "state": state, "refusal": self.refusal, "problem": problem,
            "amount": self.money.map(|(amount, currency)| amount.display(currency).to_string()),
            "currency": self.money.map(|(_, currency)| currency.to_string()),
        })
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "branch {}: ", self.branch_id)?;
        match &self.what {
            Ok(state) => f.write_str(state_name(*state))?,
            Err(why) => f.write_str(why)?,
        }
        if let Some((amount, currency)) = self.money {
            write!(f, ", {} {currency}", amount.display(currency))?;
        }
        match &self.refusal {
            Some(refusal) => write!(f, " ({refusal})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn lines<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
            let lines: Vec<_> = all.iter().map(T::to_string).collect();
            f.write_str(&lines.join("\n"))
        }
        match self {
            Self::Holdings(holdings) => lines(f, holdings),
            Self::Done { id, was_unknown, holdings } => {
                match was_unknown {
                    None => writeln!(f, "done: {id}")?,
                    Some(why) => writeln!(f, "done, though at first it was not known ({why}): {id}")?,
                }
                lines(f, holdings)
            }
            Self::Refused { refused, .. } => write!(f, "refused: {refused}: {}", advice::for_refused(refused)),
            Self::NotSent(why) => write!(f, "not sent: {why}: {}", advice::for_connect(why)),
            Self::Never { id, why } => write!(f, "not done, and never will be ({why}): {id}"),
            Self::Unknown { id, why } => write!(f, "not known yet ({why}); ask again with `show {id}`"),
            Self::Failed(why) => f.write_str(why),
            Self::Branches(branches) => lines(f, branches),
            Self::Transfer { known, .. } => lines(f, known),
        }
    }
}
