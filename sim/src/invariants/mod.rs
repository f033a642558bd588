//! What must be true at every moment of a run, one file each. The audit asks them about every record, every
//! reply and every recovery.
//!
//! | invariant | asked about |
//! |---|---|
//! | [`conservation`] debits equal credits, per currency, at every journal position | every record |
//! | [`reply_after_durable`] no reply before its record is durable, and none is ever taken back | every reply, every recovery |
//! | [`one_effect`] one transfer id, one effect | every record, every reply |
//! | [`limits`] no account passes its limit | every record |
//! | [`holds_match`] what is held on an account is what its open holds hold | every record |
//! | [`rising`] positions and stamps rise, over restarts too | every record |
//! | [`bounded`] every queue is bounded, and full means `Busy` | every step |
//! | [`replay_equals_served`] what recovery brings back is what was served up to there | every recovery |

pub mod bounded;
pub mod conservation;
pub mod holds_match;
pub mod images;
pub mod limits;
pub mod one_effect;
pub mod replay_equals_served;
pub mod reply_after_durable;
pub mod rising;

use std::fmt;

/// What does not hold, and how it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// What was seen.
    pub seen: String,
}

/// The rules that can be violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// See [`conservation`].
    Conservation,
    /// See [`reply_after_durable`].
    ReplyAfterDurable,
    /// See [`one_effect`].
    OneEffect,
    /// See [`limits`].
    Limits,
    /// See [`holds_match`].
    HoldsMatch,
    /// See [`rising`].
    Rising,
    /// See [`bounded`].
    Bounded,
    /// See [`replay_equals_served`].
    ReplayEqualsServed,
    /// Every answer is the one that the model gives.
    AnswersMatchModel,
    /// A read shows what was, and nothing older than what its reader had been told.
    Reads,
    /// Every request is answered once, unless the branch goes down first.
    Answered,
    /// What the branch wrote down can be read back; what was damaged is refused.
    Recoverable,
    /// Both branches, the registry and the client know one end of a transfer between branches.
    Agreement,
    /// What a branch has promised or acknowledged outlives its crashes.
    Promises,
    /// The settlement accounts of two branches mirror each other, at every consistent cut.
    Mirrored,
    /// Causes are stamped before their effects, across branches.
    Causality,
    /// When nothing fails any more, every transfer is decided and every hold resolved.
    ComesToRest,
    /// The server must not panic.
    NoPanic,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.seen)
    }
}

impl std::error::Error for Violation {}

/// Returns a violation of a rule, described with the arguments of [`format!`].
macro_rules! violated {
    ($rule:ident, $($arg:tt)*) => {
        return Err($crate::invariants::Violation {
            rule: $crate::invariants::Rule::$rule,
            seen: format!($($arg)*),
        })
    };
}
pub(crate) use violated;

/// Returns a violation of a rule unless the condition is true.
macro_rules! hold {
    ($rule:ident, $condition:expr, $($arg:tt)*) => {
        if !$condition {
            $crate::invariants::violated!($rule, $($arg)*);
        }
    };
}
pub(crate) use hold;
