//! One example of each message between services.

use std::sync::LazyLock;

use tally_protocol::link::*;
use tally_protocol::{AccountId, BranchId, Refusal, Timestamp};

use super::{BRANCH, Example, FieldLayout, Frame, HOLD, PAYMENT, TRANSFERS, Transfer, layout, tail};

const OTHER: BranchId = BranchId::new(9);
const CLUSTER: u128 = 0x7a11_7a11_0000_0000_0000_0000_0000_c1c1;
const INCARNATION: u128 = 0x1212_3434_5656_7878_9a9a_bcbc_dede_f0f0;
const STAMP: u64 = 1_790_000_000_123_456_789;

static WELCOME: LazyLock<LinkWelcome> = LazyLock::new(|| LinkWelcome {
    cluster_id: CLUSTER.into(),
    node_id: 2.into(),
    term: 5.into(),
    stamp: STAMP.into(),
    reserved: [0; 8],
});

static HEARTBEAT: LazyLock<LinkHeartbeat> = LazyLock::new(|| LinkHeartbeat {
    stamp: STAMP.into(),
    routes_version: 17.into(),
    durable: 987_654_321.into(),
    in_doubt: 12.into(),
    status: BranchStatus::Draining as u8,
    reserved: [0; 3],
});

static CROSS: LazyLock<[CrossTransfer; 2]> = LazyLock::new(|| {
    let to = AccountId::of_branch(OTHER, 0xb0b).get();
    let first = Transfer { credit_account_id: to.into(), ..TRANSFERS[0] };
    let second = Transfer { credit_account_id: to.into(), ..TRANSFERS[1] };
    let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    let cross = |transfer, stamp| CrossTransfer::new(transfer, stamp, stamp + 5_000_000_000, trace_id, BRANCH, OTHER);
    [cross(first, STAMP), cross(second, STAMP + 1)]
});

/// What a digest looks like.
const ATTEMPT: u64 = 0x5ca1_ab1e_0ddb_a115;
static CHAIN: LazyLock<CrossChain> = LazyLock::new(|| {
    let within = AccountId::of_branch(BRANCH, 0xca).get();
    let members = [(CROSS[0].transfer, OTHER), (Transfer { credit_account_id: within.into(), ..TRANSFERS[1] }, BRANCH)];
    CrossChain::new(BRANCH, members, (STAMP, STAMP + 5_000_000_000), CROSS[0].trace_id.get())
});

static VOTES: LazyLock<[VoteItem; 2]> = LazyLock::new(|| {
    [VoteItem::yes(PAYMENT, STAMP, ATTEMPT), VoteItem::no(HOLD, STAMP + 1, Refusal::CreditAccountNotFound.code())]
});

static MARKS: LazyLock<[MarkItem; 2]> =
    LazyLock::new(|| [MarkItem::new(PAYMENT, STAMP), MarkItem::new(HOLD, STAMP + 1)]);

static QUESTIONS: LazyLock<[MarkItem; 1]> = LazyLock::new(|| [MarkItem::question(HOLD, STAMP + 1, ATTEMPT)]);

static DECISIONS: LazyLock<[DecisionItem; 2]> = LazyLock::new(|| {
    let commit = DecisionItem {
        id: PAYMENT.into(),
        stamp: STAMP.into(),
        outcome: outcome::COMMIT,
        reason: reason::NONE,
        branch: 0.into(),
        refusal: 0.into(),
        reserved: [0; 17],
        member: 0,
    };
    let abort = DecisionItem {
        id: HOLD.into(),
        stamp: (STAMP + 1).into(),
        outcome: outcome::ABORT,
        reason: reason::REFUSED,
        branch: OTHER.get().into(),
        refusal: Refusal::CreditAccountNotFound.code().into(),
        reserved: [0; 17],
        member: 0,
    };
    [commit, abort]
});

static ENDS: LazyLock<[EndItem; 2]> = LazyLock::new(|| {
    let settled = EndItem {
        id: HOLD.into(),
        stamp: STAMP.into(),
        posted: 2_500.into(),
        source: BRANCH.get().into(),
        destination: OTHER.get().into(),
        end: end::SETTLED,
        reserved: [0; 11],
    };
    [settled, EndItem { id: (HOLD + 1).into(), posted: 0.into(), end: end::EXPIRED, ..settled }]
});

static ORDERS: LazyLock<[MoveOrder; 1]> = LazyLock::new(|| {
    [MoveOrder {
        id: HOLD.into(),
        account_id: AccountId::of_branch(BRANCH, 1_001).get().into(),
        stamp: STAMP.into(),
        destination: OTHER.get().into(),
        reserved: [0; 6],
    }]
});

static MOVES: LazyLock<[MoveItem; 2]> = LazyLock::new(|| {
    let alone = MoveItem {
        id: HOLD.into(),
        account_id: AccountId::of_branch(BRANCH, 1_001).get().into(),
        user_data_128: 0x0102.into(),
        stamp: STAMP.into(),
        deadline: (STAMP + 5_000_000_000).into(),
        owner: 42.into(),
        user_data_64: 64.into(),
        overdraft: 10_000.into(),
        day_limit: u64::MAX.into(),
        day_spent: 250.into(),
        opened_at: (STAMP - 1).into(),
        debits_posted: 1_250.into(),
        credits_posted: 9_750.into(),
        user_data_32: 32.into(),
        day: 20_717.into(),
        currency: 978.into(),
        code: 7.into(),
        flags: 1.into(),
        kind: 1,
        moves: 2,
        source: BRANCH.get().into(),
        destination: OTHER.get().into(),
        former: [BRANCH.get().into(), 3.into(), 0.into()],
        holds: 0.into(),
        reserved: [0; 4],
    };
    [alone, MoveItem { holds: 2.into(), ..alone }]
});

static IDS: LazyLock<[IdItem; 3]> = LazyLock::new(|| {
    let question = |id| IdItem::question(id, STAMP, OTHER, BRANCH);
    [question(PAYMENT), question(PAYMENT).answered(id_answer::KNOWN), question(HOLD).answered(id_answer::UNKNOWN)]
});

static HOLDS: LazyLock<[MoveHold; 2]> = LazyLock::new(|| {
    let first = MoveHold {
        id: HOLD.into(),
        other_account_id: AccountId::of_branch(BRANCH, 0xb0b).get().into(),
        amount: 5_000.into(),
        made_at: (STAMP - 1_000_000_000).into(),
        timeout_s: 3_600.into(),
        code: 42.into(),
        side: move_side::DEBIT,
        joins: 0,
        reserved: [0; 8],
    };
    [first, MoveHold { id: (HOLD + 1).into(), timeout_s: 0.into(), side: move_side::CREDIT, joins: 1, ..first }]
});

static MOVED: LazyLock<[MovedItem; 1]> = LazyLock::new(|| {
    [MovedItem {
        account_id: AccountId::of_branch(BRANCH, 1_001).get().into(),
        version: 18.into(),
        branch_id: OTHER.get().into(),
        reserved: [0; 6],
    }]
});

static PEER_HELLO: LazyLock<LinkPeerHello> = LazyLock::new(|| LinkPeerHello {
    magic: LINK_MAGIC,
    version: LINK_VERSION,
    reserved: [0; 7],
    cluster_id: CLUSTER.into(),
    incarnation: INCARNATION.into(),
    to_incarnation: (INCARNATION + 1).into(),
    node_id: 2.into(),
    to_node_id: 3.into(),
});

/// The frame of two routes; read back, because routes are only made by writing them.
static ROUTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let route = |branch_id, status, endpoint| Route { branch_id, status, endpoint };
    let mut frame = Vec::new();
    let routes = [
        route(BRANCH, BranchStatus::Serving, "berlin.bank.example:7001"),
        route(OTHER, BranchStatus::Suspect, "[2001:db8::9]:7001"),
    ];
    Routes::append(&mut frame, 17, routes.into_iter());
    frame
});

/// The same routes, as a branch tells them to a client.
pub(super) fn routes_body() -> Routes<'static> {
    let (_, body) = tally_protocol::split_frame(&ROUTES).expect("valid").expect("whole");
    Routes::decode(body).expect("what was written is read")
}

/// The parts of their body.
pub(super) fn routes_layout() -> Vec<(&'static str, Vec<FieldLayout>)> {
    vec![
        layout("LinkRoutesPrefix"),
        layout("LinkRoutePrefix"),
        tail("endpoint", 24),
        layout("LinkRoutePrefix"),
        tail("endpoint", 18),
    ]
}

/// A move as the body of a frame.
fn moving(at: usize, holds: &'static [MoveHold]) -> MoveBody<'static> {
    MoveBody { account: &MOVES[at], holds }
}

/// Every example.
pub(super) fn all() -> Vec<Example> {
    let link = |file, what, frame, body| Example { file, what, frame: Frame::Link(frame), body };
    let endpoint = "berlin.bank.example:7001";
    let hello = LinkHello {
        branch_id: BRANCH,
        cluster_id: CLUSTER,
        incarnation: INCARNATION,
        stamp: Timestamp::from_nanos(STAMP),
        routes_version: 16,
        endpoint,
    };
    let (call, answer) = (r#"{"call":"cluster_status"}"#, r#"{"error":"not_permitted"}"#);
    let two = |name| vec![layout(name), layout(name)];
    vec![
        link(
            "link/hello",
            "LinkHello: branch 7 dials",
            LinkFrame::Hello(hello),
            vec![layout("LinkHelloPrefix"), tail("endpoint", endpoint.len())],
        ),
        link("link/welcome", "LinkWelcome: from node 2", LinkFrame::Welcome(&WELCOME), vec![layout("LinkWelcome")]),
        link(
            "link/redirect",
            "LinkRedirect: another node leads",
            LinkFrame::Redirect { endpoint: "registry-3:7100", retry_after_ms: 50 },
            vec![layout("LinkRedirectPrefix"), tail("endpoint", 15)],
        ),
        link("link/heartbeat", "LinkHeartbeat", LinkFrame::Heartbeat(&HEARTBEAT), vec![layout("LinkHeartbeat")]),
        link("link/routes", "LinkRoutes: two branches", LinkFrame::Routes(routes_body()), routes_layout()),
        link("link/begin", "LinkBegin: two transfers", LinkFrame::Begin(&*CROSS), two("CrossTransfer")),
        link("link/prepare", "LinkPrepare", LinkFrame::Prepare(&CROSS[..1]), vec![layout("CrossTransfer")]),
        link(
            "link/begin_chain",
            "LinkBeginChain: two members, the second within the source",
            LinkFrame::BeginChain(CHAIN.as_link()),
            vec![layout("LinkChainPrefix"), layout("ChainMember"), layout("ChainMember")],
        ),
        link(
            "link/prepare_chain",
            "LinkPrepareChain: the same on its way to the other branch",
            LinkFrame::PrepareChain(CHAIN.as_link()),
            vec![layout("LinkChainPrefix"), layout("ChainMember"), layout("ChainMember")],
        ),
        link("link/vote", "LinkVote: a yes and a no", LinkFrame::Vote(&*VOTES), two("VoteItem")),
        link(
            "link/decision",
            "LinkDecision: a commit, an abort",
            LinkFrame::Decision(&*DECISIONS),
            two("DecisionItem"),
        ),
        link("link/acknowledge", "LinkAcknowledge", LinkFrame::Acknowledge(&*MARKS), two("MarkItem")),
        link("link/ask", "LinkAsk", LinkFrame::Ask(&*QUESTIONS), vec![layout("MarkItem")]),
        link("link/busy", "LinkBusy", LinkFrame::Busy(&MARKS[..1]), vec![layout("MarkItem")]),
        link("link/end", "LinkEnd: a hold settled, another expired", LinkFrame::End(&*ENDS), two("EndItem")),
        link("link/heard", "LinkHeard", LinkFrame::Heard(&ENDS[..1]), vec![layout("EndItem")]),
        link("link/call", "LinkCall", LinkFrame::Call(call), vec![tail("json", call.len())]),
        link("link/call_reply", "LinkCallReply", LinkFrame::CallReply(answer), vec![tail("json", answer.len())]),
        link("link/peer_hello", "LinkPeerHello", LinkFrame::PeerHello(&PEER_HELLO), vec![layout("LinkPeerHello")]),
        link("link/peer_call", "LinkPeerCall", LinkFrame::PeerCall(&[1, 2, 3]), vec![tail("bytes", 3)]),
        link("link/peer_reply", "LinkPeerReply", LinkFrame::PeerReply(&[4, 5]), vec![tail("bytes", 2)]),
        link("link/move_order", "LinkMoveOrder", LinkFrame::MoveOrder(&*ORDERS), vec![layout("MoveOrder")]),
        link("link/move_begin", "LinkMoveBegin", LinkFrame::MoveBegin(moving(0, &[])), vec![layout("MoveItem")]),
        link(
            "link/move_prepare",
            "LinkMovePrepare: with two open holds",
            LinkFrame::MovePrepare(moving(1, &*HOLDS)),
            vec![layout("MoveItem"), layout("MoveHold"), layout("MoveHold")],
        ),
        link("link/move_refused", "LinkMoveRefused", LinkFrame::MoveRefused(&VOTES[1..]), vec![layout("VoteItem")]),
        link("link/id_ask", "LinkIdAsk", LinkFrame::IdAsk(&IDS[..1]), vec![layout("IdItem")]),
        link("link/id_told", "LinkIdTold: used, and not", LinkFrame::IdTold(&IDS[1..]), two("IdItem")),
        link("link/moved", "LinkMoved", LinkFrame::Moved(&*MOVED), vec![layout("MovedItem")]),
    ]
}
