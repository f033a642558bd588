use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::split_frame;

fn decode_frame(frame: &[u8]) -> Result<Request<'_>, Refusal> {
    let (header, body) = split_frame(frame).expect("a valid header").expect("a whole frame");
    decode(header, body)
}

fn refusal_of(message_type: MessageType, body: &[u8]) -> Option<Refusal> {
    decode(&FrameHeader::new(message_type, 1, body.len()), body).err()
}

/// Any value of a wire struct: every field is free, because any bytes are one.
fn any_wire<T: FromBytes + fmt::Debug>() -> impl Strategy<Value = T> {
    vec(any::<u8>(), size_of::<T>()).prop_map(|bytes| T::read_from_bytes(&bytes).expect("the struct's own size"))
}

fn any_transfers(count_max: usize) -> impl Strategy<Value = Vec<Transfer>> {
    vec(any_wire::<Transfer>(), 1..=count_max)
}

fn check_round_trip(request: Request<'_>, envelope: Envelope) {
    let mut frame = Vec::new();
    request.append_to(&mut frame, envelope);
    let (header, _) = split_frame(&frame).expect("valid").expect("whole");
    assert_eq!(Envelope::of(header), envelope);
    assert_eq!(decode_frame(&frame), Ok(request));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_again(
        opens in vec(any_wire::<AccountOpen>(), 1..4),
        transfers in any_transfers(4),
        mut limits in any_wire::<LimitsSet>(),
        mut read in any_wire::<FeedRead>(),
        id in 1..u128::MAX,
        (user, password, token) in ("[^\0]{1,16}", vec(any::<u8>(), 1..100), "[!-~]{1,400}"),
        envelope in (any::<u64>(), any::<u128>(), any::<u32>())
            .prop_map(|(request_id, trace_id, deadline_ms)| Envelope { request_id, trace_id, deadline_ms }),
    ) {
        limits.id = U128::new(id);
        read.wait_ms.set(read.wait_ms.get() % (FEED_WAIT_MS_MAX + 1));
        let (account_id, transfer_id) = (AccountId::new(id), TransferId::new(id));
        for request in [
            Request::Hello(&Hello::current()),
            Request::Login(Login::Password { user: &user, password: &password }),
            Request::Login(Login::Token(&token)),
            Request::Ping,
            Request::GetStatus,
            Request::GetRoutes,
            Request::OpenAccounts(&opens),
            Request::CloseAccount(account_id),
            Request::FreezeAccount(account_id),
            Request::UnfreezeAccount(account_id),
            Request::SetLimits(&limits),
            Request::Transfer(&transfers[0]),
            Request::Chain(&transfers),
            Request::Batch(&transfers),
            Request::CancelId(transfer_id),
            Request::GetBalance(account_id),
            Request::GetAccount(account_id),
            Request::GetTransfer(transfer_id),
            Request::ReadAfter(Timestamp::from_nanos(7), Lookup::Balance(account_id)),
            Request::ReadAfter(Timestamp::MAX, Lookup::Account(account_id)),
            Request::ReadAfter(Timestamp::default(), Lookup::Transfer(transfer_id)),
            Request::ReadFeed(&read),
        ] {
            check_round_trip(request, envelope);
        }
    }

    #[test]
    fn any_body_is_refused_or_encodes_to_the_same_bytes(
        message_type in proptest::sample::select(MessageType::ALL),
        body in prop_oneof![
            vec(any::<u8>(), 0..500),
            // Lengths that fit some type, mostly zeros: these get past the first checks.
            (0usize..5, proptest::sample::select(vec![8usize, 16, 32, 80, 112]), any::<u8>())
                .prop_map(|(count, len_bytes, last)| { let mut body = vec![0; count * len_bytes];
                    if let Some(byte) = body.last_mut() { *byte = last; } body }),
        ],
    ) {
        let mut frame = Vec::new();
        append_frame(&mut frame, Envelope::request(3), message_type, &[&body]);
        if let Ok(request) = decode_frame(&frame) {
            let mut again = Vec::new();
            request.append_to(&mut again, Envelope::request(3));
            prop_assert_eq!(frame, again);
        }
    }
}

#[test]
fn each_type_refuses_the_lengths_around_its_own() {
    let one_struct: [(MessageType, usize); 17] = [
        (MessageType::Hello, 16),
        (MessageType::CloseAccount, 16),
        (MessageType::FreezeAccount, 16),
        (MessageType::UnfreezeAccount, 16),
        (MessageType::SetLimits, 32),
        (MessageType::Transfer, 112),
        (MessageType::OpenAccounts, 80),
        (MessageType::Chain, 112),
        (MessageType::Batch, 112),
        (MessageType::CancelId, 16),
        (MessageType::GetBalance, 16),
        (MessageType::GetAccount, 16),
        (MessageType::GetTransfer, 16),
        (MessageType::ReadFeed, 16),
        (MessageType::Ping, 0),
        (MessageType::GetStatus, 0),
        (MessageType::GetRoutes, 0),
    ];
    for (message_type, len_bytes) in one_struct {
        for wrong in [len_bytes + 1, len_bytes.wrapping_sub(1)].into_iter().filter(|&len| len < 1_000) {
            let refusal = refusal_of(message_type, &vec![0; wrong]);
            assert_eq!(refusal, Some(Refusal::BodyLenInvalid), "{message_type:?} of {wrong} bytes");
        }
    }
}

#[test]
fn counts_are_bounded_on_both_sides() {
    for (message_type, entry_len_bytes, count_max) in [
        (MessageType::OpenAccounts, AccountOpen::LEN_BYTES, BATCH_LEN_MAX),
        (MessageType::Chain, Transfer::LEN_BYTES, CHAIN_LEN_MAX),
        (MessageType::Batch, Transfer::LEN_BYTES, BATCH_LEN_MAX),
    ] {
        let of_count = |count: usize| refusal_of(message_type, &vec![0; count * entry_len_bytes]);
        assert_eq!(of_count(0), Some(Refusal::CountInvalid), "{message_type:?}");
        assert_eq!(of_count(1), None, "{message_type:?}");
        assert_eq!(of_count(count_max), None, "{message_type:?}");
        assert_eq!(of_count(count_max + 1), Some(Refusal::CountInvalid), "{message_type:?}");
    }
}

#[test]
fn fields_that_no_state_makes_valid_are_refused_by_name() {
    let hello = |change: fn(&mut Hello)| {
        let mut hello = Hello::current();
        change(&mut hello);
        refusal_of(MessageType::Hello, hello.as_bytes())
    };
    assert_eq!(hello(|_| ()), None);
    assert_eq!(hello(|hello| hello.magic[7] = b'X'), Some(Refusal::FieldInvalid));
    assert_eq!(hello(|hello| hello.version_min = 2), Some(Refusal::FieldInvalid));
    assert_eq!(hello(|hello| hello.reserved[5] = 1), Some(Refusal::FieldInvalid));

    let with_byte = |message_type, len_bytes, index: usize, value| {
        let mut body = vec![0; len_bytes];
        body[index] = value;
        refusal_of(message_type, &body)
    };
    // The entries of a batch are refused one by one, by the ledger.
    assert_eq!(with_byte(MessageType::Batch, 336, 223, 1), None);
    assert_eq!(with_byte(MessageType::ReadFeed, 16, 14, 1), Some(Refusal::FieldInvalid));
    for message_type in [MessageType::CancelId, MessageType::GetTransfer, MessageType::GetAccount] {
        assert_eq!(refusal_of(message_type, &[0; 16]), Some(Refusal::IdMustNotBeZero));
        assert_eq!(refusal_of(message_type, &[0xff; 16]), Some(Refusal::IdMustNotBeMax));
    }
    assert_eq!(refusal_of(MessageType::SetLimits, &[0; 32]), Some(Refusal::IdMustNotBeZero));
    assert_eq!(refusal_of(MessageType::Pong, &[]), Some(Refusal::MessageTypeUnknown));

    let mut header = FrameHeader::new(MessageType::Ping, 1, 0);
    header.message_type.set(0x0999);
    assert_eq!(decode(&header, &[]), Err(Refusal::MessageTypeUnknown));
}

#[test]
fn a_login_is_taken_apart_exactly() {
    // method, reserved, user length, secret length, reserved, then what follows.
    let cases: &[(&[u8], Result<Login<'_>, Refusal>)] = &[
        (b"\x01\0\x03\0\x02\0\0\0anapw", Ok(Login::Password { user: "ana", password: b"pw" })),
        (b"\x02\0\0\0\x03\0\0\0tok", Ok(Login::Token("tok"))),
        (b"\x01\0\x03\0\x02\0\0\0anap", Err(Refusal::BodyLenInvalid)),
        (b"\x01\0\x03\0\x02\0\0\0anapw!", Err(Refusal::BodyLenInvalid)),
        (b"\x01\0\x03\0\xff\xff\0\0anapw", Err(Refusal::BodyLenInvalid)),
        (b"\x01\0\x03", Err(Refusal::BodyLenInvalid)),
        (b"\x03\0\x03\0\x02\0\0\0anapw", Err(Refusal::FieldInvalid)),
        (b"\x01\x01\x03\0\x02\0\0\0anapw", Err(Refusal::FieldInvalid)),
        (b"\x01\0\x03\0\x02\0\0\x01anapw", Err(Refusal::FieldInvalid)),
        (b"\x01\0\0\0\x02\0\0\0pw", Err(Refusal::FieldInvalid)),
        (b"\x01\0\x03\0\0\0\0\0ana", Err(Refusal::FieldInvalid)),
        (b"\x02\0\x03\0\x02\0\0\0anapw", Err(Refusal::FieldInvalid)),
        (b"\x01\0\x02\0\x02\0\0\0\xff\xfepw", Err(Refusal::FieldInvalid)),
        (b"\x02\0\0\0\x02\0\0\0\xff\xfe", Err(Refusal::FieldInvalid)),
    ];
    for (body, expected) in cases {
        let header = FrameHeader::new(MessageType::Login, 1, body.len());
        let expected = expected.map(Request::Login);
        assert_eq!(decode(&header, body), expected, "{body:?}");
    }
}

#[test]
fn printing_a_login_shows_no_secret() {
    for login in [Login::Password { user: "ana", password: b"hush" }, Login::Token("hush")] {
        assert!(!format!("{login:?}").contains("hush"));
    }
}
