//! Every byte on every link of Tallystick, and the words they are made of. No IO.

#[macro_use]
pub mod wire;

pub mod amount_text;
pub mod frame;
pub mod header;
pub mod link;
pub mod message;
pub mod primitives;
pub mod refusal;
pub mod reply;
pub mod request;

pub use amount_text::AmountTextError;
pub use frame::{Envelope, append_frame};
pub use header::{FRAME_HEADER_LEN_BYTES, FRAME_LEN_BYTES_MAX, FrameError, FrameHeader, PROTOCOL_VERSION, split_frame};
pub use link::LinkType;
pub use message::MessageType;
pub use primitives::{
    AccountId, AccountKind, AccountStatus, Amount, BranchId, Currency, CustomerId, Lsn, Timestamp, TransferId,
};
pub use refusal::{Refusal, RefusalGroup};
pub use reply::Reply;
pub use request::Request;
