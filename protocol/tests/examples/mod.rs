//! One example of each message, every field with a value of its own, so that two swapped fields show.

mod links;

use std::sync::LazyLock;

use tally_protocol::link::LinkFrame;
use tally_protocol::message::*;
use tally_protocol::reply::{FeedPage, LoggedIn, Refused};
use tally_protocol::request::{Login, Lookup};
use tally_protocol::{
    AccountId, AccountKind, AccountStatus, BranchId, Currency, CustomerId, Envelope, Refusal, Reply, Request,
    Timestamp, TransferId,
};

/// A frame in one direction or the other.
#[derive(Clone, Copy)]
pub(crate) enum Frame {
    /// From the client.
    Request(Request<'static>),
    /// From the branch.
    Reply(Reply<'static>),
    /// Between services.
    Link(LinkFrame<'static>),
}

/// One example.
pub(crate) struct Example {
    /// Its file, without the ending.
    pub file: &'static str,
    /// One line for people.
    pub what: &'static str,
    /// What is sent.
    pub frame: Frame,
    /// The parts of the body, in order.
    pub body: Vec<(&'static str, Vec<FieldLayout>)>,
}

impl Example {
    /// What the frame carries.
    pub(crate) fn code(&self) -> u16 {
        match self.frame {
            Frame::Request(request) => request.message_type() as u16,
            Frame::Reply(reply) => reply.message_type() as u16,
            Frame::Link(link) => link.link_type() as u16,
        }
    }

    /// Writes the frame.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        match self.frame {
            Frame::Request(request) => {
                request.append_to(out, Envelope { request_id: 0x1122_3344, trace_id, deadline_ms: 250 });
            }
            Frame::Reply(reply) => {
                reply.append_to(out, Envelope { request_id: 0x1122_3344, trace_id, deadline_ms: 0 });
            }
            Frame::Link(LinkFrame::Call(json)) => {
                LinkFrame::Call(json).append_to(out, Envelope { request_id: 0x1122_3344, trace_id, deadline_ms: 250 });
            }
            Frame::Link(link @ (LinkFrame::CallReply(_) | LinkFrame::PeerCall(_) | LinkFrame::PeerReply(_))) => {
                link.append_to(out, Envelope { request_id: 0x1122_3344, trace_id: 0, deadline_ms: 0 });
            }
            Frame::Link(pushed) => pushed.append_to(out, Envelope::request(0)),
        }
    }
}

const BRANCH: BranchId = BranchId::new(7);
const ALICE: AccountId = AccountId::of_branch(BRANCH, 0xa11ce);
const BOB: AccountId = AccountId::of_branch(BRANCH, 0xb0b);
const PAYMENT: u128 = 0x0192_0000_0000_7000_8000_0000_0000_0001;
const HOLD: u128 = 0x0192_0000_0000_7000_8000_0000_0000_0002;
const SETTLE: u128 = 0x0192_0000_0000_7000_8000_0000_0000_0003;
const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl";

static HELLO: Hello = Hello::current();

static OPENS: LazyLock<[AccountOpen; 2]> = LazyLock::new(|| {
    let alice = AccountOpen {
        id: ALICE.get().into(),
        user_data_128: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10.into(),
        owner: 1_001.into(),
        user_data_64: 0x1112_1314_1516_1718.into(),
        overdraft: 50_000.into(),
        day_limit: u64::MAX.into(),
        user_data_32: 0x191a_1b1c.into(),
        currency: Currency::EUR.get().into(),
        code: 11.into(),
        flags: account_flags::DEBITS_LIMITED.into(),
        kind: AccountKind::Customer as u8,
        reserved: [0; 5],
    };
    let bob = AccountOpen { id: BOB.get().into(), owner: 1_002.into(), overdraft: 0.into(), ..alice };
    [alice, bob]
});

/// The same two from an older ledger: both or none.
static OPENS_LINKED: LazyLock<[AccountOpen; 2]> = LazyLock::new(|| {
    use account_flags::{DEBITS_LIMITED, IMPORTED, LINKED, OPENED_FROZEN};
    let [alice, bob] = *OPENS;
    let opened = 1_600_000_000_000_000_000_u64.into();
    [
        AccountOpen { user_data_64: opened, flags: (DEBITS_LIMITED | IMPORTED | LINKED).into(), ..alice },
        AccountOpen { user_data_64: opened, flags: (DEBITS_LIMITED | IMPORTED | OPENED_FROZEN).into(), ..bob },
    ]
});

/// From an older ledger: a payment, and the end of an account.
static IMPORTED: LazyLock<[Transfer; 2]> = LazyLock::new(|| {
    use transfer_flags::{BALANCING_DEBIT, CLOSING_DEBIT, IMPORTED};
    let [payment, hold, _] = *TRANSFERS;
    let paid = Transfer { user_data_64: 1_600_000_001_000_000_000.into(), flags: IMPORTED.into(), ..payment };
    let flags = (IMPORTED | BALANCING_DEBIT | CLOSING_DEBIT).into();
    let closed = Transfer { user_data_64: 1_600_000_002_000_000_000.into(), timeout_s: 0.into(), flags, ..hold };
    [paid, closed]
});

static LIMITS: LazyLock<LimitsSet> =
    LazyLock::new(|| LimitsSet { id: ALICE.get().into(), overdraft: 70_000.into(), day_limit: 1_000_000.into() });

/// A payment, a hold that expires, and its settle in part, which leaves out what the hold says.
static TRANSFERS: LazyLock<[Transfer; 3]> = LazyLock::new(|| {
    let payment = Transfer {
        id: PAYMENT.into(),
        debit_account_id: ALICE.get().into(),
        credit_account_id: BOB.get().into(),
        reference: 0.into(),
        user_data_128: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10.into(),
        amount: 1_234.into(),
        user_data_64: 0x1112_1314_1516_1718.into(),
        user_data_32: 0x191a_1b1c.into(),
        timeout_s: 0.into(),
        currency: Currency::EUR.get().into(),
        code: 21.into(),
        flags: transfer_flags::WANT_BALANCES.into(),
        kind: TransferKind::Transfer as u8,
        reserved: 0,
    };
    let hold = Transfer {
        id: HOLD.into(),
        amount: 5_000.into(),
        timeout_s: 3_600.into(),
        flags: (transfer_flags::LINKED | transfer_flags::BALANCING_DEBIT).into(),
        kind: TransferKind::Hold as u8,
        ..payment
    };
    let settle = Transfer {
        id: SETTLE.into(),
        debit_account_id: 0.into(),
        credit_account_id: 0.into(),
        reference: HOLD.into(),
        amount: 4_000.into(),
        currency: 0.into(),
        code: 0.into(),
        flags: 0.into(),
        kind: TransferKind::Settle as u8,
        ..payment
    };
    [payment, hold, settle]
});

static FEED_READ: LazyLock<FeedRead> =
    LazyLock::new(|| FeedRead { from: 4_096.into(), count_max: 500.into(), wait_ms: 30_000.into() });

static HELLO_REPLY: LazyLock<HelloReply> = LazyLock::new(|| HelloReply {
    version: 1,
    reserved: 0,
    branch_id: BRANCH.get().into(),
    frame_len_bytes_max: (1 << 20).into(),
    batch_len_max: 8_190.into(),
    in_flight_max: 1_024.into(),
    server_time: 1_790_000_000_123_456_789.into(),
    feed_first: 64.into(),
    routes_version: 17.into(),
});

static STATUS: LazyLock<Status> = LazyLock::new(|| Status {
    branch_id: BRANCH.get().into(),
    accepting: 1,
    reserved: [0; 5],
    accounts: 1_000_000.into(),
    open_holds: 12.into(),
    durable: 987_654_321.into(),
    checkpoint: 900_000_000.into(),
    transfers_posted: 5_000_000.into(),
    transfers_refused: 321.into(),
    server_time: 1_790_000_000_123_456_789.into(),
    started_at: 1_780_000_000_000_000_001.into(),
    sessions: 64.into(),
    reserved_2: 0.into(),
    reserved_3: [0; 16],
});

fn sums(debits_held: u64, debits_posted: u64, credits_held: u64, credits_posted: u64) -> Sums {
    Sums {
        debits_held: debits_held.into(),
        debits_posted: debits_posted.into(),
        credits_held: credits_held.into(),
        credits_posted: credits_posted.into(),
    }
}

static BALANCES: LazyLock<[Sums; 2]> = LazyLock::new(|| [sums(100, 1_234, 0, 50_000), sums(0, 10, 20, 11_234)]);

static TRANSFER_REPLY: LazyLock<TransferReply> = LazyLock::new(|| TransferReply {
    timestamp: 1_790_000_000_123_456_790.into(),
    lsn: 4_160.into(),
    amount: 1_234.into(),
    refusal: 0.into(),
    flags: 0.into(),
    reserved: 0.into(),
});

fn item(timestamp: u64, refusal: Option<Refusal>, flags: u16) -> ItemResult {
    ItemResult {
        timestamp: timestamp.into(),
        refusal: refusal.map_or(0, Refusal::code).into(),
        flags: flags.into(),
        reserved: 0.into(),
    }
}

/// Done, refused by the ledger, and a repeat.
static ITEMS: LazyLock<[ItemResult; 3]> = LazyLock::new(|| {
    [
        item(1_790_000_000_123_456_791, None, 0),
        item(1_790_000_000_123_456_792, Some(Refusal::InsufficientFunds), 0),
        item(1_790_000_000_123_456_790, None, RESULT_REPEATED),
    ]
});

static OPENED: LazyLock<[ItemResult; 2]> = LazyLock::new(|| [ITEMS[0], ITEMS[2]]);

static CHAIN_REFUSED: LazyLock<[ItemResult; 2]> = LazyLock::new(|| {
    [
        item(1_790_000_000_123_456_791, Some(Refusal::ChainBroken), 0),
        item(1_790_000_000_123_456_792, Some(Refusal::HoldHasDifferentCode), 0),
    ]
});

static BALANCE: LazyLock<Balance> = LazyLock::new(|| Balance {
    id: ALICE.get().into(),
    sums: BALANCES[0],
    available: 98_666.into(),
    lsn: 4_160.into(),
    timestamp: 1_790_000_000_123_456_790.into(),
    overdraft: 50_000.into(),
    currency: Currency::EUR.get().into(),
    status: AccountStatus::Open as u8,
    reserved: [0; 5],
});

static ACCOUNT: LazyLock<Account> = LazyLock::new(|| Account {
    open: OPENS[0],
    sums: BALANCES[0],
    day_spent: 1_334.into(),
    opened_at: 1_789_000_000_000_000_002.into(),
    lsn: 4_160.into(),
    timestamp: 1_790_000_000_123_456_790.into(),
    day: 20_717.into(),
    status: AccountStatus::Frozen as u8,
    reserved: [0; 11],
});

static FOUND: LazyLock<TransferFound> = LazyLock::new(|| TransferFound {
    transfer: TRANSFERS[0],
    reply: *TRANSFER_REPLY,
    debit: BALANCES[0],
    credit: BALANCES[1],
    state: TransferState::Reversed as u8,
    reserved: [0; 7],
});

static ENTRIES: LazyLock<[FeedEntry; 2]> = LazyLock::new(|| {
    let payment = FeedEntry {
        lsn: 4_160.into(),
        kind: FeedKind::Transfer as u8,
        account_change: 0,
        reserved: [0; 6],
        transfer: TRANSFERS[0],
        reply: *TRANSFER_REPLY,
        debit: BALANCES[0],
        credit: BALANCES[1],
    };
    let no_transfer = Transfer {
        id: 0.into(),
        debit_account_id: ALICE.get().into(),
        credit_account_id: 0.into(),
        reference: 0.into(),
        user_data_128: 0.into(),
        amount: 0.into(),
        user_data_64: 0.into(),
        user_data_32: 0.into(),
        timeout_s: 0.into(),
        currency: Currency::EUR.get().into(),
        code: 0.into(),
        flags: 0.into(),
        kind: 0,
        reserved: 0,
    };
    let frozen = FeedEntry {
        lsn: 4_384.into(),
        kind: FeedKind::Account as u8,
        account_change: 3,
        transfer: no_transfer,
        reply: TransferReply { lsn: 4_384.into(), amount: 0.into(), ..*TRANSFER_REPLY },
        credit: sums(0, 0, 0, 0),
        ..payment
    };
    [payment, frozen]
});

/// Behind a prefix: bytes that have no struct.
fn tail(name: &'static str, len_bytes: usize) -> (&'static str, Vec<FieldLayout>) {
    (name, vec![FieldLayout { name, offset_bytes: 0, len_bytes }])
}

/// The fields of the struct with this name.
fn layout(name: &'static str) -> (&'static str, Vec<FieldLayout>) {
    let mut structs = STRUCTS.iter().chain(tally_protocol::link::LINK_STRUCTS);
    let (_, _, fields) = structs.find(|(known, _, _)| *known == name).expect("a wire struct");
    (name, fields.to_vec())
}

/// Every example.
pub(crate) fn all() -> Vec<Example> {
    let request = |file, what, request, body| Example { file, what, frame: Frame::Request(request), body };
    let reply = |file, what, reply, body| Example { file, what, frame: Frame::Reply(reply), body };
    let logged_in = LoggedIn {
        role: Role::Teller,
        customer_id: CustomerId::new(1_001),
        expires_at: Timestamp::from_nanos(1_790_000_900_000_000_000),
        token: TOKEN,
    };
    let busy = Refused { code: Refusal::Busy.code(), retry_after_ms: 5, text: "the queue is full" };
    let items = |count| vec![layout("ItemResult"); count];
    let page = FeedPage { next: 4_552, durable: 8_192, entries: &*ENTRIES };
    let mut examples = vec![
        request("hello", "Hello: the first frame of a connection", Request::Hello(&HELLO), vec![layout("Hello")]),
        request(
            "login",
            "Login of user `ana` with password `correct horse`",
            Request::Login(Login::Password { user: "ana", password: b"correct horse" }),
            vec![layout("LoginPrefix"), tail("user", 3), tail("secret", 13)],
        ),
        request(
            "login_token",
            "Login with a token",
            Request::Login(Login::Token(TOKEN)),
            vec![layout("LoginPrefix"), tail("secret", TOKEN.len())],
        ),
        request("ping", "Ping", Request::Ping, vec![]),
        request("get_status", "GetStatus", Request::GetStatus, vec![]),
        request("get_routes", "GetRoutes", Request::GetRoutes, vec![]),
        request(
            "open_accounts",
            "OpenAccounts: two accounts",
            Request::OpenAccounts(&*OPENS),
            vec![layout("AccountOpen"), layout("AccountOpen")],
        ),
        request(
            "open_accounts_linked",
            "OpenAccounts: two imported accounts, linked, the second opened frozen",
            Request::OpenAccounts(&*OPENS_LINKED),
            vec![layout("AccountOpen"), layout("AccountOpen")],
        ),
        request("close_account", "CloseAccount", Request::CloseAccount(ALICE), vec![layout("AccountRef")]),
        request("freeze_account", "FreezeAccount", Request::FreezeAccount(ALICE), vec![layout("AccountRef")]),
        request("unfreeze_account", "UnfreezeAccount", Request::UnfreezeAccount(ALICE), vec![layout("AccountRef")]),
        request("set_limits", "SetLimits", Request::SetLimits(&LIMITS), vec![layout("LimitsSet")]),
        request(
            "transfer",
            "Transfer: 12.34 EUR, with balances in the reply",
            Request::Transfer(&TRANSFERS[0]),
            vec![layout("Transfer")],
        ),
        request(
            "chain",
            "Chain: a balancing hold, linked to its settle",
            Request::Chain(&TRANSFERS[1..]),
            vec![layout("Transfer"), layout("Transfer")],
        ),
        request(
            "batch",
            "Batch: a payment, then a hold linked to its settle",
            Request::Batch(&*TRANSFERS),
            vec![layout("Transfer"); 3],
        ),
        request(
            "batch_imported",
            "Batch: an imported payment, then a hold of all that is left, which closes the account",
            Request::Batch(&*IMPORTED),
            vec![layout("Transfer"); 2],
        ),
        request("cancel_id", "CancelId", Request::CancelId(TransferId::new(PAYMENT)), vec![layout("TransferRef")]),
        request("get_balance", "GetBalance", Request::GetBalance(ALICE), vec![layout("AccountRef")]),
        request(
            "get_balance_after",
            "GetBalance: not older than a payment",
            Request::ReadAfter(Timestamp::from_nanos(1_767_225_600_123_456_789), Lookup::Balance(ALICE)),
            vec![layout("AccountRef"), layout("ReadAfter")],
        ),
        request("get_account", "GetAccount", Request::GetAccount(ALICE), vec![layout("AccountRef")]),
        request(
            "get_transfer",
            "GetTransfer",
            Request::GetTransfer(TransferId::new(PAYMENT)),
            vec![layout("TransferRef")],
        ),
        request("read_feed", "ReadFeed", Request::ReadFeed(&FEED_READ), vec![layout("FeedRead")]),
        reply("hello_reply", "HelloReply", Reply::Hello(&HELLO_REPLY), vec![layout("HelloReply")]),
        reply(
            "login_reply",
            "LoginReply: a teller",
            Reply::Login(logged_in),
            vec![layout("LoginReplyPrefix"), tail("token", TOKEN.len())],
        ),
        reply("pong", "Pong", Reply::Pong, vec![]),
        reply("status_reply", "StatusReply", Reply::Status(&STATUS), vec![layout("Status")]),
        reply("routes_reply", "RoutesReply: two branches", Reply::Routes(links::routes_body()), links::routes_layout()),
        reply("open_accounts_reply", "OpenAccountsReply: done, known already", Reply::OpenAccounts(&*OPENED), items(2)),
        reply("close_account_reply", "CloseAccountReply", Reply::CloseAccount(&ITEMS[0]), items(1)),
        reply("freeze_account_reply", "FreezeAccountReply", Reply::FreezeAccount(&ITEMS[0]), items(1)),
        reply("unfreeze_account_reply", "UnfreezeAccountReply", Reply::UnfreezeAccount(&ITEMS[0]), items(1)),
        reply("set_limits_reply", "SetLimitsReply", Reply::SetLimits(&ITEMS[0]), items(1)),
        reply(
            "transfer_reply",
            "TransferReply without balances",
            Reply::Transfer { reply: &TRANSFER_REPLY, balances: None },
            vec![layout("TransferReply")],
        ),
        reply(
            "transfer_reply_with_balances",
            "TransferReply with the sums of both accounts",
            Reply::Transfer { reply: &TRANSFER_REPLY, balances: Some(&BALANCES) },
            vec![layout("TransferReply"), layout("Sums"), layout("Sums")],
        ),
        reply(
            "chain_reply",
            "ChainReply: the second was refused, and with it the first",
            Reply::Chain(&*CHAIN_REFUSED),
            items(2),
        ),
        reply("batch_reply", "BatchReply: done, insufficient funds, a repeat", Reply::Batch(&*ITEMS), items(3)),
        reply("cancel_id_reply", "CancelIdReply", Reply::CancelId(&ITEMS[0]), items(1)),
        reply("balance_reply", "BalanceReply", Reply::Balance(&BALANCE), vec![layout("Balance")]),
        reply("account_reply", "AccountReply", Reply::Account(&ACCOUNT), vec![layout("Account")]),
        reply(
            "transfer_found_reply",
            "TransferFoundReply: a payment, reversed since",
            Reply::TransferFound(&FOUND),
            vec![layout("TransferFound")],
        ),
        reply(
            "feed_page",
            "FeedPage: a payment, then an account frozen",
            Reply::Feed(page),
            vec![layout("FeedPagePrefix"), layout("FeedEntry"), layout("FeedEntry")],
        ),
        reply(
            "refused",
            "Refused: busy, again in 5 ms",
            Reply::Refused(busy),
            vec![layout("RefusedPrefix"), tail("text", busy.text.len())],
        ),
    ];
    examples.extend(links::all());
    examples
}
