use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::link::{BranchStatus, Route};
use crate::{BranchId, split_frame};

fn decode_frame(frame: &[u8]) -> Result<Reply<'_>, ReplyError> {
    let (header, body) = split_frame(frame).expect("a valid header").expect("a whole frame");
    decode(header, body)
}

fn any_wire<T: FromBytes + std::fmt::Debug>() -> impl Strategy<Value = T> {
    vec(any::<u8>(), size_of::<T>()).prop_map(|bytes| T::read_from_bytes(&bytes).expect("the struct's own size"))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_again(
        (hello, status, balance, account) in
            (any_wire::<HelloReply>(), any_wire::<Status>(), any_wire::<Balance>(), any_wire::<Account>()),
        (reply, found) in (any_wire::<TransferReply>(), any_wire::<TransferFound>()),
        sums in any_wire::<[Sums; 2]>(),
        items in vec(any_wire::<ItemResult>(), 1..5),
        entries in vec(any_wire::<FeedEntry>(), 0..4),
        (next, durable, code, retry_after_ms) in any::<(u64, u64, u16, u32)>(),
        routes in vec((1u16.., "[a-z0-9.:]{0,40}"), 0..5),
        (token, text) in ("[!-~]{1,400}", ".{0,80}"),
    ) {
        let logged_in = LoggedIn {
            role: Role::Teller,
            customer_id: CustomerId::new(next),
            expires_at: Timestamp::from_nanos(durable),
            token: &token,
        };
        let routes = Routes::encode(next, routes.iter().map(|(raw, endpoint)| Route {
            branch_id: BranchId::new(*raw),
            status: BranchStatus::Serving,
            endpoint,
        }));
        for expected in [
            Reply::Hello(&hello),
            Reply::Login(logged_in),
            Reply::Pong,
            Reply::Status(&status),
            Reply::Routes(Routes::decode(&routes).expect("just written")),
            Reply::OpenAccounts(&items),
            Reply::CloseAccount(&items[0]),
            Reply::FreezeAccount(&items[0]),
            Reply::UnfreezeAccount(&items[0]),
            Reply::SetLimits(&items[0]),
            Reply::Transfer { reply: &reply, balances: None },
            Reply::Transfer { reply: &reply, balances: Some(&sums) },
            Reply::Chain(&items),
            Reply::Batch(&items),
            Reply::CancelId(&items[0]),
            Reply::Balance(&balance),
            Reply::Account(&account),
            Reply::TransferFound(&found),
            Reply::Feed(FeedPage { next, durable, entries: &entries }),
            Reply::Refused(Refused { code, retry_after_ms, text: &text }),
        ] {
            let mut frame = Vec::new();
            expected.append_to(&mut frame, Envelope::request(next));
            prop_assert_eq!(decode_frame(&frame), Ok(expected));
        }
    }

    #[test]
    fn any_body_is_an_error_or_encodes_to_the_same_bytes(
        message_type in proptest::sample::select(MessageType::ALL),
        body in prop_oneof![
            vec(any::<u8>(), 0..500),
            proptest::sample::select(vec![8usize, 16, 24, 32, 40, 88, 96, 160, 216, 248]).prop_map(|len| vec![0; len]),
        ],
    ) {
        let mut frame = Vec::new();
        append_frame(&mut frame, Envelope::request(3), message_type, &[&body]);
        if let Ok(reply) = decode_frame(&frame) {
            let mut again = Vec::new();
            reply.append_to(&mut again, Envelope::request(3));
            prop_assert_eq!(frame, again);
        }
    }
}

#[test]
fn what_is_not_a_reply_is_told_apart() {
    let error_of = |message_type, body: &[u8]| decode(&FrameHeader::new(message_type, 1, body.len()), body).err();
    assert_eq!(error_of(MessageType::Ping, &[]), Some(ReplyError::NotAReply { code: 3 }));
    let mut header = FrameHeader::new(MessageType::Pong, 1, 0);
    header.message_type.set(0x8999);
    assert_eq!(decode(&header, &[]), Err(ReplyError::NotAReply { code: 0x8999 }));

    let wrong_len = |message_type, len_bytes| Some(ReplyError::BodyLen { message_type, len_bytes });
    for (message_type, len_bytes) in [
        (MessageType::Pong, 1),
        (MessageType::TransferReply, 31),
        (MessageType::TransferReply, 64),
        (MessageType::BatchReply, 17),
        (MessageType::BalanceReply, 87),
        (MessageType::FeedPage, 25),
        (MessageType::FeedPage, 24 + 224),
        (MessageType::LoginReply, 25),
        (MessageType::Refused, 9),
    ] {
        assert_eq!(error_of(message_type, &vec![0; len_bytes]), wrong_len(message_type, len_bytes));
    }
    assert_eq!(error_of(MessageType::LoginReply, &[0; 24]), Some(ReplyError::Field("role")));
    assert_eq!(error_of(MessageType::Refused, b"\x01\0\x01\0\0\0\0\0\xff"), Some(ReplyError::Field("text")));
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let text = "ä".repeat(40_000);
    let mut frame = Vec::new();
    Reply::Refused(Refused { code: 1, retry_after_ms: 5, text: &text }).append_to(&mut frame, Envelope::request(1));
    match decode_frame(&frame) {
        Ok(Reply::Refused(refused)) => {
            assert_eq!((refused.text.len(), refused.refusal()), (65_534, Some(Refusal::Busy)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn printing_a_login_shows_no_token() {
    let logged_in =
        LoggedIn { role: Role::Admin, customer_id: CustomerId::new(7), expires_at: Timestamp::MAX, token: "hush" };
    assert!(!format!("{logged_in:?}").contains("hush"));
}
