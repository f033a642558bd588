//! The codes of the messages.

#[allow(unused_imports, reason = "the documentation links to them")]
use super::*;

macro_rules! message_types {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal; )+) => {
        /// What a frame carries.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum MessageType { $( $(#[doc = $doc])+ $name = $code, )+ }

        impl MessageType {
            /// Every message type.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// Reads a wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $( $code => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

message_types! {
    /// Version handshake: the first frame of a connection. Body [`Hello`].
    Hello = 0x0001;
    /// Password or token. Body: [`LoginPrefix`], then the user name, then the secret.
    Login = 0x0002;
    /// Answered at once with an empty [`MessageType::Pong`].
    Ping = 0x0003;
    /// Empty body; answered with [`Status`].
    GetStatus = 0x0004;
    /// Empty body; answered with [`MessageType::RoutesReply`].
    GetRoutes = 0x0005;
    /// Body: 1 to 8,190 [`AccountOpen`], each on its own unless its `LINKED` flag joins it to the next.
    OpenAccounts = 0x0010;
    /// Body [`AccountRef`].
    CloseAccount = 0x0011;
    /// Body [`AccountRef`].
    FreezeAccount = 0x0012;
    /// Body [`AccountRef`].
    UnfreezeAccount = 0x0013;
    /// Body [`LimitsSet`].
    SetLimits = 0x0014;
    /// One transfer of any kind. Body [`Transfer`].
    Transfer = 0x0020;
    /// All or nothing: 1 to 256 [`Transfer`].
    Chain = 0x0021;
    /// 1 to 8,190 [`Transfer`], each on its own unless its `LINKED` flag joins it to the next.
    Batch = 0x0022;
    /// Body [`TransferRef`]: burns an id that was never used.
    CancelId = 0x0023;
    /// Body [`AccountRef`]; answered with [`Balance`].
    GetBalance = 0x0030;
    /// Body [`AccountRef`]; answered with [`Account`].
    GetAccount = 0x0031;
    /// Body [`TransferRef`]; answered with [`TransferFound`].
    GetTransfer = 0x0032;
    /// Body [`FeedRead`]: durable outcomes from a position on.
    ReadFeed = 0x0040;

    /// Body [`HelloReply`].
    HelloReply = 0x8001;
    /// Body: [`LoginReplyPrefix`], then the access token (a JWT in ASCII).
    LoginReply = 0x8002;
    /// Empty.
    Pong = 0x8003;
    /// Body [`Status`].
    StatusReply = 0x8004;
    /// The branches of the bank: [`crate::link::Routes`].
    RoutesReply = 0x8005;
    /// One [`ItemResult`] for each account, in order.
    OpenAccountsReply = 0x8010;
    /// Body [`ItemResult`].
    CloseAccountReply = 0x8011;
    /// Body [`ItemResult`].
    FreezeAccountReply = 0x8012;
    /// Body [`ItemResult`].
    UnfreezeAccountReply = 0x8013;
    /// Body [`ItemResult`].
    SetLimitsReply = 0x8014;
    /// Body [`TransferReply`], followed by two [`Sums`] (debit side, credit side) when asked for.
    TransferReply = 0x8020;
    /// One [`ItemResult`] for each transfer, in order.
    ChainReply = 0x8021;
    /// One [`ItemResult`] for each transfer, in order.
    BatchReply = 0x8022;
    /// Body [`ItemResult`].
    CancelIdReply = 0x8023;
    /// Body [`Balance`].
    BalanceReply = 0x8030;
    /// Body [`Account`].
    AccountReply = 0x8031;
    /// Body [`TransferFound`].
    TransferFoundReply = 0x8032;
    /// Body: [`FeedPagePrefix`], then the entries.
    FeedPage = 0x8040;
    /// Body: [`RefusedPrefix`], then a text for people (UTF-8).
    Refused = 0xFFFF;
}
