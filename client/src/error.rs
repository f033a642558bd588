//! What can go wrong between a program and a branch, sorted by whose fault it is.

use tally_protocol::reply::{self, ReplyError};
use tally_protocol::{BranchId, Refusal};

/// Why no session could be opened. Nothing that was asked for was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// What the caller gave cannot work: a file, a name, a certificate.
    #[error("{0}")]
    Config(String),
    /// The branch could not be reached, or hung up.
    #[error("{endpoint}: {kind}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the operating system or TLS said.
        kind: String,
    },
    /// The branch answered the handshake or the login with a refusal.
    #[error("login refused: {0}")]
    Refused(Refused),
    /// The other side does not speak this protocol.
    #[error("{endpoint} does not speak the protocol: {why}")]
    NotABranch {
        /// Where it was looked for.
        endpoint: String,
        /// What it sent instead.
        why: String,
    },
    /// No branch of the bank has this number: an account id begins with a wrong one.
    #[error("the bank has no branch {0}")]
    BranchUnknown(BranchId),
    /// Another branch than the one meant: the bank is not where it was.
    #[error("{endpoint} is branch {found}, not {expected}")]
    OtherBranch {
        /// Where it was looked for.
        endpoint: String,
        /// Which was meant.
        expected: BranchId,
        /// Which is there.
        found: BranchId,
    },
    /// The caller's deadline passed first.
    #[error("no session before the deadline")]
    DeadlinePassed,
}

impl ConnectError {
    /// Whether trying again later may help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::OtherBranch { .. } => true,
            Self::Refused(refused) => matches!(
                refused.refusal(),
                Some(Refusal::Busy | Refusal::ShuttingDown | Refusal::LoginThrottled | Refusal::DeadlinePassed)
            ),
            Self::Config(_) | Self::NotABranch { .. } | Self::BranchUnknown(_) | Self::DeadlinePassed => false,
        }
    }
}

/// A refusal as the branch sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The wire code; a newer branch may have codes that this build does not know.
    pub code: u16,
    /// When it makes sense to try again, in milliseconds; 0 for "not without a change". See [`Self::branch`] too.
    pub retry_after_ms: u32,
    /// For people; may be empty.
    pub text: Box<str>,
}

impl Refused {
    /// The refusal, if this build knows its code.
    pub const fn refusal(&self) -> Option<Refusal> {
        Refusal::from_code(self.code)
    }

    /// The branch to ask instead, where the refusal names one and that is known.
    pub fn branch(&self) -> Option<BranchId> {
        let named = self.refusal().filter(|refusal| refusal.names_branch()).map(|_| self.retry_after_ms);
        named.and_then(|number| u16::try_from(number).ok()).filter(|&number| number != 0).map(BranchId::new)
    }

    /// Whether it comes from the session (codes 1 to 49): the request was not looked at, and another attempt
    /// with the same id may fare otherwise.
    pub const fn is_of_session(&self) -> bool {
        self.code < 50
    }

    /// A refusal of which only the code is known, as in [`tally_protocol::message::TransferReply`].
    pub fn of_code(code: u16) -> Self {
        Self { code, retry_after_ms: 0, text: Box::default() }
    }
}

impl From<reply::Refused<'_>> for Refused {
    fn from(refused: reply::Refused<'_>) -> Self {
        Self { code: refused.code, retry_after_ms: refused.retry_after_ms, text: refused.text.into() }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.refusal() {
            Some(refusal) => write!(f, "{refusal}")?,
            None => write!(f, "refusal {}", self.code)?,
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " ({})", self.text) }
    }
}

/// Why a request that was sent got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// The connection ended.
    #[error("the connection ended before the answer came")]
    Closed,
    /// The branch said nothing for so long that it is taken for gone.
    #[error("the branch has gone silent")]
    Silent,
    /// The branch sent bytes that are no frame.
    #[error("the branch sent bytes that are not a frame")]
    NotAFrame,
    /// The client was dropped or told to close.
    #[error("the client was closed")]
    ClientClosed,
}

/// Why a request other than a transfer was not answered as hoped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The branch refused it.
    #[error("{0}")]
    Refused(Refused),
    /// No session could be had; the request was never sent.
    #[error(transparent)]
    NotSent(#[from] ConnectError),
    /// It was sent, and no answer came. It may have been done.
    #[error("{0}")]
    Lost(LostReason),
    /// It was sent, and no answer came in time. It may have been done.
    #[error("no answer before the deadline")]
    DeadlinePassed,
    /// The answer does not fit the question: the peer's fault.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
}

impl RequestError {
    /// The refusal, where that is what it was.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refused) => refused.refusal(),
            Self::NotSent(_) | Self::Lost(_) | Self::DeadlinePassed | Self::Unexpected(_) => None,
        }
    }
}

impl From<ReplyError> for RequestError {
    fn from(error: ReplyError) -> Self {
        Self::Unexpected(error.to_string())
    }
}
