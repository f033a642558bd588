//! On whose behalf a request comes.

use tally_protocol::CustomerId;
use tally_protocol::message::Role;

/// The logged-in user behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// What the session may do.
    pub role: Role,
    /// Whom it acts for; a customer may debit only accounts that this id owns.
    pub customer: CustomerId,
}
