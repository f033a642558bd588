//! Sessions against a real server: what peers may do, and what becomes of those that do something else.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{BRANCH, PATIENCE, Peer, Server, account, deposit, http_get, password, raw_header, transfer, until};
use tally_branch_server::users::{RoleName, Users};
use tally_protocol::message::{BATCH_LEN_MAX, FeedRead, Hello, TransferKind};
use tally_protocol::request::Login;
use tally_protocol::{AccountId, Envelope, FRAME_LEN_BYTES_MAX, MessageType, Refusal, Reply, Request, TransferId};
use zerocopy::FromZeros;

#[test]
fn a_session_from_hello_to_goodbye() {
    let mut server = Server::start(&[]);
    let mut peer = server.connect();
    let answer = peer.ask(&Request::Hello(&Hello::current()));
    let Reply::Hello(hello) = answer.reply() else { panic!("{:?}", answer.reply()) };
    assert_eq!((hello.version, hello.branch_id.get(), hello.in_flight_max.get()), (1, 1, 1_024));
    assert_eq!(peer.ask(&Request::GetStatus).refusal(), Some(Refusal::LoginRequired));
    assert_eq!(peer.ask(&Request::GetRoutes).refusal(), Some(Refusal::LoginRequired));
    assert_eq!(peer.try_login("teller", "not it").refusal(), Some(Refusal::LoginFailed));
    assert_eq!(peer.try_login("nobody", "not it").refusal(), Some(Refusal::LoginFailed));
    let token = peer.login("teller");
    assert!(matches!(peer.ask(&Request::Ping).reply(), Reply::Pong));
    let alice = peer.open(1_001);
    assert_eq!(peer.submit(&deposit(1, alice, 500)), 0);
    assert_eq!(peer.credits_posted(alice), 500);
    let answer = peer.ask(&Request::GetStatus);
    let Reply::Status(status) = answer.reply() else { panic!("{:?}", answer.reply()) };
    assert_eq!((status.accepting, status.sessions.get()), (1, 1));

    let answer = peer.ask(&Request::GetRoutes);
    let Reply::Routes(routes) = answer.reply() else { panic!("{:?}", answer.reply()) };
    let told: Vec<_> = routes.iter().map(|route| (route.branch_id.get(), route.endpoint)).collect();
    assert_eq!((routes.version(), hello.routes_version.get(), told), (0, 0, vec![(1, "")]), "it stands alone");

    let mut second = server.connect();
    second.hello();
    let answer = second.ask(&Request::Login(Login::Token(&token)));
    let Reply::Login(login) = answer.reply() else { panic!("{:?}", answer.reply()) };
    assert_eq!(login.token, token, "a token does not renew itself");
    assert_eq!(second.credits_posted(alice), 500);
    drop((peer, second));

    until(|| (server.metric("tally_sessions_open") == 0.0).then_some(()));
    assert!(http_get(server.metrics, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(server.metric("tally_session_refused_total{refusal=\"login_failed\"}"), 2.0);
    assert!(server.is_running());
    assert!(server.stop().success());
}

/// One line per peer that breaks the protocol: what it sends (after which part of the handshake), and how
/// it is told. All are closed.
#[test]
fn peers_that_break_the_protocol_are_told_and_closed() {
    let mut server = Server::start(&[]);
    #[derive(Clone, Copy, PartialEq)]
    enum After {
        Connect,
        Hello,
        Login,
    }
    let mut hello_of_version_2 = Hello::current();
    hello_of_version_2.version_min = 2;
    hello_of_version_2.version_max = 9;
    let mut newer = Vec::new();
    Request::Hello(&hello_of_version_2).append_to(&mut newer, Envelope::request(1));
    let mut reserved = raw_header(40, MessageType::Ping as u16, 1);
    reserved[7] = 1;
    let ping = raw_header(40, MessageType::Ping as u16, 1);
    let large = raw_header(900_000, MessageType::Batch as u16, 1);
    let cases: [(&str, After, &[u8], Refusal); 12] = [
        ("text", After::Connect, b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n", Refusal::FrameInvalid),
        ("a request first", After::Connect, &ping, Refusal::HelloExpected),
        ("an unknown type first", After::Connect, &raw_header(40, 0x7777, 1), Refusal::HelloExpected),
        ("a newer hello", After::Connect, &newer, Refusal::VersionUnsupported),
        ("a newer header", After::Connect, &raw_header(56, 1, 2), Refusal::VersionUnsupported),
        ("a large frame first", After::Connect, &large, Refusal::LoginRequired),
        ("a large frame before login", After::Hello, &large, Refusal::LoginRequired),
        ("a reserved field", After::Hello, &reserved, Refusal::FrameInvalid),
        ("shorter than its header", After::Hello, &raw_header(39, 3, 1), Refusal::FrameInvalid),
        ("nothing at all", After::Login, &[0; 40], Refusal::FrameInvalid),
        ("another version later", After::Login, &raw_header(40, 3, 3), Refusal::VersionUnsupported),
        (
            "over the limit",
            After::Login,
            &raw_header(FRAME_LEN_BYTES_MAX as u32 + 1, MessageType::Batch as u16, 1),
            Refusal::FrameInvalid,
        ),
    ];
    for (name, after, bytes, refusal) in cases {
        let mut peer = server.connect();
        if after != After::Connect {
            peer.hello();
        }
        if after == After::Login {
            peer.login("teller");
        }
        peer.send_bytes(bytes).expect("sent");
        let answer = peer.read().unwrap_or_else(|| panic!("{name}: closed without a word"));
        assert_eq!(answer.refusal(), Some(refusal), "{name}");
        peer.expect_closed();
    }
    assert!(server.is_running());
    let closed = || server.metric("tally_connections_closed_total{reason=\"protocol\"}") as usize;
    until(|| (closed() == cases.len()).then_some(()));
    assert!(matches!(server.login("teller").ask(&Request::Ping).reply(), Reply::Pong), "others are served");
}

#[test]
fn sound_frames_that_make_no_sense_are_refused_and_the_session_goes_on() {
    let server = Server::start(&[]);
    let mut peer = server.login("teller");
    peer.send_bytes(&raw_header(40, 0x7777, 1)).expect("sent");
    peer.expect_refusal(Refusal::MessageTypeUnknown);
    peer.send_bytes(&raw_header(40, MessageType::Pong as u16, 1)).expect("sent");
    peer.expect_refusal(Refusal::MessageTypeUnknown);
    peer.send_bytes(&raw_header(40, MessageType::Transfer as u16, 1)).expect("sent");
    peer.expect_refusal(Refusal::BodyLenInvalid);
    peer.send_bytes(&raw_header(40, MessageType::Batch as u16, 1)).expect("sent");
    peer.expect_refusal(Refusal::CountInvalid);
    peer.send(&Request::Hello(&Hello::current()));
    peer.expect_refusal(Refusal::FieldInvalid);
    // A refusal names the request that it answers.
    peer.send_bytes(&raw_header(40, MessageType::GetBalance as u16, 1)).expect("sent");
    let answer = peer.read().expect("open");
    assert_eq!((answer.request_id(), answer.refusal()), (77, Some(Refusal::BodyLenInvalid)));
    assert!(matches!(peer.ask(&Request::Ping).reply(), Reply::Pong));
}

#[test]
fn no_tls_or_another_protocol_is_closed() {
    let server = Server::start(&["limits.login_timeout_ms=300"]);
    let mut plain = TcpStream::connect(server.address).expect("listening");
    plain.set_read_timeout(Some(PATIENCE)).expect("a socket");
    plain.write_all(b"HELLO, IS THIS A BANK?\r\n").expect("sent");
    let mut rest = Vec::new();
    // An alert may come first; the end comes in any case.
    let _ = plain.read_to_end(&mut rest);
    assert!(rest.len() < 64, "{rest:?}");

    let other = Peer::connect_with(server.address, &server.dir, |config| {
        config.alpn_protocols = vec![b"h2".to_vec()];
    });
    assert!(other.is_err(), "another application protocol is refused in the handshake");

    let mut silent = TcpStream::connect(server.address).expect("listening");
    silent.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert_eq!(silent.read(&mut [0; 64]).unwrap_or(0), 0, "a peer that never begins TLS is closed");
}

#[test]
fn whoever_stalls_is_closed_within_its_time() {
    let server = Server::start(&["limits.login_timeout_ms=1500", "limits.frame_stall_ms=300"]);
    // Half a frame.
    let mut peer = server.login("teller");
    let mut frame = Vec::new();
    Request::Ping.append_to(&mut frame, Envelope::request(9));
    peer.send_bytes(&frame[..17]).expect("sent");
    let begun = Instant::now();
    peer.expect_refusal(Refusal::FrameStalled);
    peer.expect_closed();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // A frame that comes slowly but surely is not a stall: every part is in time.
    let mut peer = server.login("teller");
    for part in frame.chunks(20) {
        peer.send_bytes(part).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(matches!(peer.read().expect("open").reply(), Reply::Pong));

    // No login.
    let mut peer = server.connect();
    peer.hello();
    peer.expect_refusal(Refusal::LoginRequired);
    peer.expect_closed();
    // Counted when the last frame was taken and the peer has closed its side, or was given up.
    for reason in ["frame_stalled", "login_timeout"] {
        let line = format!("tally_connections_closed_total{{reason=\"{reason}\"}}");
        until(|| (server.metric(&line) == 1.0).then_some(()));
    }
}

#[test]
fn a_peer_that_never_reads_is_held_back_and_closed_and_memory_stays_flat() {
    let mut server = Server::start(&["limits.reply_stall_ms=500", "limits.frame_stall_ms=60000"]);
    let resident = server.metric("tally_process_resident_bytes");
    let mut peer = server.login("teller");
    peer.set_write_timeout(Duration::from_secs(1));
    let mut frames = Vec::new();
    for id in 0..10_000 {
        Request::GetStatus.append_to(&mut frames, Envelope::request(id));
    }
    // Each write asks for 1.4 MB of replies. It is held back when everything on the way is full.
    let begun = Instant::now();
    while peer.send_bytes(&frames).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the server takes requests without end");
    }
    until(|| (server.metric("tally_connections_closed_total{reason=\"reply_stalled\"}") == 1.0).then_some(()));
    let grown = server.metric("tally_process_resident_bytes") - resident;
    assert!(grown < 64e6, "{grown} bytes more than before");
    assert!(server.is_running());
    assert!(matches!(server.login("teller").ask(&Request::Ping).reply(), Reply::Pong), "others are served");
}

#[test]
fn more_requests_than_may_be_in_flight_are_held_back_and_all_answered() {
    let server = Server::start(&["limits.in_flight_max=8"]);
    let mut peer = server.login("teller");
    let alice = peer.open(1_001);
    const COUNT: u64 = 2_000;
    let mut frames = Vec::new();
    for id in 0..COUNT {
        Request::Transfer(&deposit(id as u128 + 1, alice, 1)).append_to(&mut frames, Envelope::request(1_000 + id));
    }
    peer.send_bytes(&frames).expect("TCP and the session hold what is not taken yet");
    let mut answered = vec![false; COUNT as usize];
    for _ in 0..COUNT {
        let answer = peer.read().expect("open");
        assert!(matches!(answer.reply(), Reply::Transfer { reply, .. } if reply.refusal.get() == 0));
        assert!(!std::mem::replace(&mut answered[(answer.request_id() - 1_000) as usize], true), "answered twice");
    }
    assert_eq!(peer.credits_posted(alice), COUNT);
}

#[test]
fn whole_batches_pass_many_at_a_time() {
    let server = Server::start(&["limits.large_frames_len_bytes_max=1048576"]);
    let mut peer = server.login("teller");
    let alice = peer.open(1_001);
    // More than the session's room for long replies, and only one may be half received at a time.
    let batches: Vec<Vec<_>> = (0..6u128)
        .map(|batch| {
            let first = batch * BATCH_LEN_MAX as u128 + 1;
            (0..BATCH_LEN_MAX as u128).map(|index| deposit(first + index, alice, 1)).collect()
        })
        .collect();
    std::thread::scope(|scope| {
        for pair in batches.chunks(2) {
            let server = &server;
            scope.spawn(move || {
                let mut peer = server.login("teller");
                let ids: Vec<u64> = pair.iter().map(|batch| peer.send(&Request::Batch(batch))).collect();
                for _ in ids {
                    let answer = peer.read().expect("open");
                    let Reply::Batch(items) = answer.reply() else { panic!("{:?}", answer.reply()) };
                    assert!(items.len() == BATCH_LEN_MAX && items.iter().all(|item| item.refusal.get() == 0));
                }
            });
        }
    });
    assert_eq!(peer.credits_posted(alice), 6 * BATCH_LEN_MAX as u64);
}

#[test]
fn roles_may_do_what_the_table_says() {
    let server = Server::start(&[]);
    let mut teller = server.login("teller");
    let (alice, bob) = (teller.open(1_001), teller.open(1_002));
    assert_eq!(teller.submit(&deposit(1, alice, 1_000)), 0);
    let not_permitted = Refusal::NotPermitted.code();

    let mut customer = server.login("alice");
    assert_eq!(customer.submit(&transfer(2, TransferKind::Transfer, alice, bob, 10)), 0);
    assert_eq!(customer.submit(&deposit(3, alice, 1)), not_permitted, "cash goes over the counter");
    assert_eq!(customer.submit(&transfer(4, TransferKind::Transfer, bob, alice, 1)), Refusal::NotOwner.code());
    let mut feed = FeedRead::new_zeroed();
    feed.count_max.set(1);
    for request in [
        Request::OpenAccounts(&[account(5)]),
        Request::FreezeAccount(bob),
        Request::ReadFeed(&feed),
        Request::Batch(&[deposit(5, alice, 1)]),
    ] {
        assert_eq!(customer.ask(&request).refusal(), Some(Refusal::NotPermitted), "{request:?}");
    }
    assert!(customer.ask(&Request::GetBalance(alice)).refusal().is_none());
    assert_eq!(customer.ask(&Request::GetBalance(bob)).refusal(), Some(Refusal::NotPermitted), "not hers");

    let mut auditor = server.login("auditor");
    assert_eq!(auditor.submit(&transfer(6, TransferKind::Transfer, alice, bob, 1)), not_permitted);
    assert_eq!(auditor.credits_posted(bob), 10);
    assert!(matches!(auditor.ask(&Request::ReadFeed(&feed)).reply(), Reply::Feed(_)));
}

#[test]
fn a_changed_user_must_log_in_again_within_a_second_and_may_on_the_same_connection() {
    let server = Server::start(&["limits.login_timeout_ms=5000"]);
    let mut peer = server.login("teller");
    let mut other = server.login("admin");
    let path = Users::path(&server.dir);
    let mut users = Users::load(&path).expect("there");
    users.set_role("teller", RoleName::Auditor, 0).expect("there");
    let begun = Instant::now();
    users.save(&path).expect("saved");
    let notice = peer.read().expect("open");
    assert_eq!((notice.request_id(), notice.refusal()), (0, Some(Refusal::SessionEnded)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(peer.ask(&Request::GetStatus).refusal(), Some(Refusal::SessionEnded));
    peer.login("teller");
    assert_eq!(peer.ask(&Request::OpenAccounts(&[account(9)])).refusal(), Some(Refusal::NotPermitted), "an auditor");

    let status = support::tally().args(["user", "disable", "teller", "--dir"]).arg(&server.dir).status();
    assert!(status.expect("the program runs").success());
    peer.expect_refusal(Refusal::SessionEnded);
    assert_eq!(peer.try_login("teller", &password("teller")).refusal(), Some(Refusal::LoginFailed));
    peer.expect_refusal(Refusal::LoginRequired);
    peer.expect_closed();
    assert!(matches!(other.ask(&Request::Ping).reply(), Reply::Pong), "others are not touched");
    assert!(other.ask(&Request::GetStatus).refusal().is_none());
}

#[test]
fn an_expired_token_asks_for_a_login_and_the_pipeline_goes_on() {
    let server = Server::start(&["limits.token_life_s=2"]);
    let mut peer = server.connect();
    peer.hello();
    let token = peer.login("teller");
    let alice = peer.open(1_001);
    // Renewed in time, the session goes on without a gap.
    std::thread::sleep(Duration::from_millis(1_200));
    peer.login("teller");
    assert_eq!(peer.submit(&deposit(1, alice, 5)), 0);
    // Not renewed, it ends; requests are refused without a trace.
    let notice = peer.read().expect("open");
    assert_eq!((notice.request_id(), notice.refusal()), (0, Some(Refusal::SessionEnded)));
    assert_eq!(peer.submit(&deposit(2, alice, 5)), Refusal::SessionEnded.code());
    let stale = peer.ask(&Request::Login(Login::Token(&token)));
    assert_eq!(stale.refusal(), Some(Refusal::LoginFailed));
    peer.login("teller");
    assert_eq!(peer.submit(&deposit(2, alice, 5)), 0);
    assert_eq!(peer.credits_posted(alice), 10);
}

#[test]
fn guessing_is_slowed_down() {
    let server = Server::start(&["limits.login_failures_free=2"]);
    let mut peer = server.connect();
    peer.hello();
    for _ in 0..2 {
        assert_eq!(peer.try_login("alice", "a guess").refusal(), Some(Refusal::LoginFailed));
    }
    let answer = peer.try_login("alice", &password("alice"));
    let Reply::Refused(refused) = answer.reply() else { panic!("{:?}", answer.reply()) };
    assert_eq!(refused.refusal(), Some(Refusal::LoginThrottled), "even with the right password");
    assert!((1..=1_001).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    peer.login("bob");
    std::thread::sleep(Duration::from_millis(u64::from(refused.retry_after_ms)));
    peer.login("alice");
}

#[test]
fn connections_are_bounded_and_strangers_do_not_crowd_out_customers() {
    let server = Server::start(&["limits.connections_max=4", "limits.unauthenticated_max=2"]);
    let mut customers = vec![server.login("alice"), server.login("bob")];
    let strangers = [server.connect(), server.connect()];
    let refused = Peer::connect_with(server.address, &server.dir, |_| {});
    assert!(refused.is_err(), "a third stranger is closed before TLS");
    for customer in &mut customers {
        assert!(matches!(customer.ask(&Request::Ping).reply(), Reply::Pong));
    }
    drop(strangers);
    until(|| (server.metric("tally_connections_open") == 2.0).then_some(()));
    customers.push(server.login("teller"));
    assert_eq!(server.metric("tally_sessions_open"), 3.0);
}

#[test]
fn sigterm_answers_what_is_in_flight_and_refuses_the_rest() {
    let mut server = Server::start(&[]);
    let mut teller = server.login("teller");
    let alice = teller.open(1_001);
    let mut idle = server.login("bob");
    const COUNT: u64 = 500;
    let mut frames = Vec::new();
    for id in 0..COUNT {
        Request::Transfer(&deposit(id as u128 + 1, alice, 1)).append_to(&mut frames, Envelope::request(id + 1));
    }
    teller.send_bytes(&frames).expect("sent");
    server.signal("TERM");
    let (mut done, mut refused) = (0, 0);
    while let Some(answer) = teller.read() {
        match answer.reply() {
            Reply::Transfer { reply, .. } if reply.refusal.get() == 0 => done += 1,
            Reply::Refused(reply) => {
                assert_eq!(reply.refusal(), Some(Refusal::ShuttingDown));
                refused += u64::from(answer.request_id() != 0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(done + refused <= COUNT, "{done} done, {refused} refused");
    idle.expect_refusal(Refusal::ShuttingDown);
    idle.expect_closed();
    assert!(server.wait().success());
    let (dir, _folder) = (server.dir.clone(), server);
    let again = Server::start_in(&dir, &[]);
    assert!(again.login("teller").credits_posted(alice) >= done, "what was acknowledged is there");
}

#[test]
fn a_request_in_time_is_served_and_its_trace_id_comes_back() {
    let server = Server::start(&[]);
    let mut peer = server.login("teller");
    let alice = peer.open(1_001);
    let mut frame = Vec::new();
    let envelope = Envelope { request_id: 5, trace_id: 0xABCD, deadline_ms: 60_000 };
    Request::Transfer(&deposit(1, alice, 1)).append_to(&mut frame, envelope);
    peer.send_bytes(&frame).expect("sent");
    let answer = peer.read().expect("open");
    assert!(matches!(answer.reply(), Reply::Transfer { reply, .. } if reply.refusal.get() == 0));
    assert_eq!(answer.header.trace_id.get(), 0xABCD, "the trace id comes back");
    let unknown = peer.ask(&Request::GetTransfer(TransferId::new(2)));
    assert_eq!(unknown.refusal(), Some(Refusal::TransferNotFound));
    assert_eq!(AccountId::of_branch(BRANCH, 1_001), alice);
}
