use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::{BranchId, Envelope, FrameHeader, MessageType, Timestamp, split_frame};

fn decode_frame(frame: &[u8]) -> Result<LinkFrame<'_>, LinkError> {
    let (header, body) = split_frame(frame).expect("a valid header").expect("a whole frame");
    decode(header, body)
}

fn error_of(link_type: LinkType, body: &[u8]) -> Option<LinkError> {
    decode(&FrameHeader::of_link(link_type, 0, body.len()), body).err()
}

fn hello(endpoint: &str) -> LinkHello<'_> {
    LinkHello {
        branch_id: BranchId::new(3),
        cluster_id: 0,
        incarnation: 9,
        stamp: Timestamp::from_nanos(5),
        routes_version: 1,
        endpoint,
    }
}

fn written(frame: &LinkFrame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.append_to(&mut out, Envelope::request(0));
    out
}

proptest! {
    #[test]
    fn any_body_is_an_error_or_encodes_to_the_same_bytes(
        link_type in proptest::sample::select(LinkType::ALL),
        body in prop_oneof![
            vec(any::<u8>(), 0..400),
            // Lengths that fit some type, mostly zeros: these get past the first checks.
            (0usize..5, proptest::sample::select(vec![8usize, 32, 48, 80, 160]), any::<u8>(), any::<u16>())
                .prop_map(|(count, len_bytes, byte, at)| {
                    let mut body = vec![0; count * len_bytes];
                    body.iter_mut().step_by(len_bytes).for_each(|first| *first = 1);
                    let len = body.len().max(1);
                    if let Some(some) = body.get_mut(usize::from(at) % len) { *some = byte; }
                    body
                }),
        ],
    ) {
        let header = FrameHeader::of_link(link_type, 0, body.len());
        if let Ok(frame) = decode(&header, &body) {
            let mut expected = header.as_bytes().to_vec();
            expected.extend_from_slice(&body);
            prop_assert_eq!(written(&frame), expected);
        }
    }

    #[test]
    fn routes_are_told_as_they_are(
        version in any::<u64>(),
        known in vec((1u16.., 1u8..=5, "[a-z0-9.:]{0,40}"), 0..20),
    ) {
        let routes: Vec<_> = known
            .iter()
            .map(|(raw, status, endpoint)| Route {
                branch_id: BranchId::new(*raw),
                status: BranchStatus::from_wire(*status).expect("in range"),
                endpoint,
            })
            .collect();
        let mut frame = Vec::new();
        Routes::append(&mut frame, version, routes.iter().copied());
        let Ok(LinkFrame::Routes(read)) = decode_frame(&frame) else { panic!("no routes") };
        prop_assert_eq!(read.version(), version);
        prop_assert!(read.iter().eq(routes.iter().copied()));
    }

    #[test]
    fn items_fill_as_many_frames_as_they_need(count in prop_oneof![0usize..3, 4_090usize..4_100, 8_190usize..8_200]) {
        let marks = |range: std::ops::Range<usize>| range.map(|at| MarkItem::new(at as u128 + 1, 7));
        let mut out = vec![0xaa];
        append_items(&mut out, LinkType::LinkAsk, marks(0..count));
        let (mut rest, mut read) = (&out[1..], Vec::new());
        while !rest.is_empty() {
            let (header, body) = split_frame(rest).expect("valid").expect("whole");
            let Ok(LinkFrame::Ask(items)) = decode(header, body) else { panic!("no question") };
            read.extend_from_slice(items);
            rest = &rest[header.len_bytes.get() as usize..];
        }
        prop_assert!(read.into_iter().eq(marks(0..count)));
    }
}

#[test]
fn no_code_is_both_a_links_and_a_sessions() {
    for &link_type in LinkType::ALL {
        assert_eq!(MessageType::from_code(link_type as u16), None, "{link_type:?}");
        assert_eq!(LinkType::from_code(link_type as u16), Some(link_type));
        assert!((0x0100..=0x01ff).contains(&(link_type as u16)), "{link_type:?}");
    }
    let header = FrameHeader::new(MessageType::Ping, 1, 0);
    assert_eq!(decode(&header, &[]), Err(LinkError::NotALink { code: MessageType::Ping as u16 }));
    let header = FrameHeader::of_link(LinkType::LinkAsk, 1, 0);
    assert_eq!(crate::request::decode(&header, &[]), Err(crate::Refusal::MessageTypeUnknown));
}

#[test]
fn a_hello_that_breaks_a_rule_is_refused_by_name() {
    let good = written(&LinkFrame::Hello(hello("a:1")));
    let body = &good[crate::FRAME_HEADER_LEN_BYTES..];
    assert_eq!(error_of(LinkType::LinkHello, body), None);
    let with = |change: &dyn Fn(&mut LinkHelloPrefix)| {
        let mut body = body.to_vec();
        change(LinkHelloPrefix::mut_from_prefix(&mut body).expect("long enough").0);
        error_of(LinkType::LinkHello, &body)
    };
    let field = |field| Some(LinkError::Field { link_type: LinkType::LinkHello, field });
    assert_eq!(with(&|hello| hello.magic[0] = 0), field("magic"));
    assert_eq!(with(&|hello| hello.version = 1), Some(LinkError::Version { version: 1 }));
    assert_eq!(with(&|hello| hello.branch_id.set(0)), field("branch_id"));
    assert_eq!(with(&|hello| hello.incarnation.set(0)), field("incarnation"));
    assert_eq!(with(&|hello| hello.reserved = 1), field("reserved"));
    assert_eq!(with(&|hello| hello.reserved_2.set(1)), field("reserved_2"));
    let len_bytes = body.len();
    let len_error = Some(LinkError::BodyLen { link_type: LinkType::LinkHello, len_bytes });
    assert_eq!(with(&|hello| hello.endpoint_len_bytes.set(4)), len_error);
    let mut empty = body[..LinkHelloPrefix::LEN_BYTES].to_vec();
    LinkHelloPrefix::mut_from_bytes(&mut empty).expect("its size").endpoint_len_bytes.set(0);
    assert_eq!(error_of(LinkType::LinkHello, &empty), field("endpoint_len_bytes"));
}

#[test]
fn a_decision_says_all_that_belongs_to_its_outcome_and_no_more() {
    let commit = DecisionItem {
        id: 1.into(),
        stamp: 5.into(),
        outcome: outcome::COMMIT,
        reason: reason::NONE,
        branch: 0.into(),
        refusal: 0.into(),
        reserved: [0; 17],
        member: 0,
    };
    let refused = DecisionItem {
        outcome: outcome::ABORT,
        reason: reason::REFUSED,
        branch: 2.into(),
        refusal: 229.into(),
        ..commit
    };
    let late = DecisionItem { reason: reason::TIMED_OUT, refusal: 0.into(), ..refused };
    let presumed = DecisionItem { reason: reason::PRESUMED, branch: 0.into(), ..late };
    let resolved = DecisionItem { reason: reason::RESOLVED, ..presumed };
    for (item, invalid) in [
        (commit, None),
        (refused, None),
        (late, None),
        (presumed, None),
        (resolved, None),
        (DecisionItem { id: 0.into(), ..commit }, Some("id")),
        (DecisionItem { id: u128::MAX.into(), ..commit }, Some("id")),
        (DecisionItem { outcome: 0, ..commit }, Some("outcome")),
        (DecisionItem { outcome: 3, ..commit }, Some("outcome")),
        (DecisionItem { reason: reason::PRESUMED, ..commit }, Some("reason")),
        (DecisionItem { reason: reason::NONE, ..resolved }, Some("reason")),
        (DecisionItem { reason: 5, ..resolved }, Some("reason")),
        (DecisionItem { branch: 1.into(), ..commit }, Some("branch")),
        (DecisionItem { branch: 1.into(), ..presumed }, Some("branch")),
        (DecisionItem { branch: 0.into(), ..refused }, Some("branch")),
        (DecisionItem { branch: 0.into(), ..late }, Some("branch")),
        (DecisionItem { refusal: 0.into(), ..refused }, Some("refusal")),
        (DecisionItem { refusal: 1.into(), ..late }, Some("refusal")),
        (DecisionItem { refusal: 1.into(), ..commit }, Some("refusal")),
        (DecisionItem { member: 1, ..refused }, None),
        (DecisionItem { member: 1, ..late }, Some("member")),
        (DecisionItem { member: 1, ..commit }, Some("member")),
        (DecisionItem { reserved: [1; 17], ..commit }, Some("reserved")),
        (DecisionItem { reserved: [1; 17], ..refused }, Some("reserved")),
    ] {
        assert_eq!(item.invalid_field(), invalid, "{item:?}");
    }
}

#[test]
fn the_end_of_a_hold_says_how_much_was_posted_and_between_whom() {
    let settled = EndItem {
        id: 1.into(),
        stamp: 5.into(),
        posted: 7.into(),
        source: 2.into(),
        destination: 3.into(),
        end: end::SETTLED,
        reserved: [0; 11],
    };
    let voided = EndItem { end: end::VOIDED, posted: 0.into(), ..settled };
    for (item, invalid) in [
        (settled, None),
        (voided, None),
        (EndItem { end: end::EXPIRED, ..voided }, None),
        (EndItem { id: 0.into(), ..settled }, Some("id")),
        (EndItem { source: 0.into(), ..settled }, Some("source")),
        (EndItem { destination: 0.into(), ..settled }, Some("destination")),
        (EndItem { destination: 2.into(), ..settled }, Some("destination")),
        (EndItem { posted: 1.into(), ..voided }, Some("posted")),
        (EndItem { end: 0, ..settled }, Some("end")),
        (EndItem { end: 4, ..settled }, Some("end")),
        (EndItem { reserved: [1; 11], ..settled }, Some("reserved")),
    ] {
        assert_eq!(item.invalid_field(), invalid, "{item:?}");
    }
}

#[test]
fn a_frame_of_items_counts_as_a_whole_or_not_at_all() {
    let mut items = [MarkItem::new(1, 2); 3];
    assert_eq!(error_of(LinkType::LinkAsk, items.as_bytes()), None);
    items[2].id.set(0);
    let field = LinkError::Field { link_type: LinkType::LinkAsk, field: "id" };
    assert_eq!(error_of(LinkType::LinkAsk, items.as_bytes()), Some(field));
    let (yes, no) = (VoteItem::yes(1, 2, 3), VoteItem::no(1, 2, 3));
    assert_eq!((yes.invalid_field(), no.invalid_field()), (None, None));
    assert_eq!(VoteItem { attempt: 1.into(), ..no }.invalid_field(), Some("attempt"));
    assert_eq!(VoteItem { reserved: [1; 5], ..yes }.invalid_field(), Some("reserved"));
    assert_eq!(error_of(LinkType::LinkAsk, &[]), Some(LinkError::Count { link_type: LinkType::LinkAsk, count: 0 }));
    let many = vec![VoteItem::no(1, 2, 3); LINK_ITEMS_MAX + 1];
    let count = LinkError::Count { link_type: LinkType::LinkVote, count: LINK_ITEMS_MAX + 1 };
    assert_eq!(error_of(LinkType::LinkVote, many.as_bytes()), Some(count));
    let long = LinkError::BodyLen { link_type: LinkType::LinkAsk, len_bytes: 33 };
    assert_eq!(error_of(LinkType::LinkAsk, &[0; 33]), Some(long));
}

#[test]
fn a_transfer_between_branches_names_two() {
    let transfer = crate::message::Transfer::read_from_bytes(&[1; 112]).expect("its size");
    let cross = CrossTransfer::new(transfer, 1, 2, 3, BranchId::new(4), BranchId::new(5));
    assert_eq!(cross.invalid_field(), None);
    assert_eq!(CrossTransfer { source: 0.into(), ..cross }.invalid_field(), Some("source"));
    assert_eq!(CrossTransfer { destination: 0.into(), ..cross }.invalid_field(), Some("destination"));
    assert_eq!(CrossTransfer { destination: 4.into(), ..cross }.invalid_field(), Some("destination"));
    assert_eq!(CrossTransfer { reserved: [9; 12], ..cross }.invalid_field(), Some("reserved"));
    let mut unnamed = cross;
    unnamed.transfer.id.set(0);
    assert_eq!(unnamed.invalid_field(), Some("transfer"));
}
