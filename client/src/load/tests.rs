//! The load under a clock of our own: nothing here sleeps or connects.

use tally_protocol::message::{RefusedPrefix, TransferReply};
use tally_protocol::reply::{self, Reply};
use tally_protocol::{BranchId, Currency, FrameHeader, MessageType, Refusal, split_frame};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::accounts::AccountRange;
use super::args::{Choice, IdChoice};
use super::choose::Chooser;
use super::ids::Ids;
use super::schedule::Schedule;
use super::traffic::{LoadTraffic, Mix, Tag, Window};
use crate::Random;
use crate::lane::{Nanos, Next, RequestWriter, Traffic};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;

fn range() -> AccountRange {
    AccountRange { branch_id: BranchId::new(1), far: None, base: 1 << 40, count: 100, currency: Currency::EUR }
}

fn mix(batch: usize) -> Mix {
    let mut random = Random::from_seed(1);
    Mix {
        range: range(),
        chooser: Chooser::new(Choice::Uniform, 100),
        ids: Ids::new(IdChoice::Random, &mut random),
        batch,
        reads: 0,
        cross: 0,
    }
}

fn ask(traffic: &mut LoadTraffic, now: Nanos) -> (Next<Tag>, Vec<u8>) {
    let mut out = Vec::new();
    let next = traffic.next(0, now, RequestWriter { out: &mut out, request_id: 0 });
    (next, out)
}

fn done() -> TransferReply {
    TransferReply::new_zeroed()
}

/// A branch that answers in 1 ms, but does nothing at all during the third second.
#[test]
fn a_stall_is_charged_to_everybody_who_would_have_waited() {
    let window = Window { begin: SECOND, end: 11 * SECOND };
    let schedule = Schedule::new(1_000, 1, 16, 0, window.end);
    let mut traffic = LoadTraffic::new(mix(0), window, Some(schedule), 0..1, Random::from_seed(2));
    let mut in_flight = Vec::new();
    let mut now = 0;
    loop {
        let stalled = (3 * SECOND..4 * SECOND).contains(&now);
        if !stalled {
            for (tag, since, _) in in_flight.extract_if(.., |&mut (_, _, at)| at + MS <= now) {
                traffic.reply(0, tag, since, now, Reply::Transfer { reply: &done(), balances: None });
            }
        }
        // A stalled branch takes no more than 16: the generator is held back, as by a full window.
        if !stalled || in_flight.len() < 16 {
            match ask(&mut traffic, now).0 {
                Next::Sent { tag, since } => {
                    in_flight.push((tag, since, now));
                    continue;
                }
                Next::Later(at) => assert!(at > now),
                Next::Finished if in_flight.is_empty() => break,
                Next::Finished => {}
            }
        }
        now += MS / 2;
    }
    let summary = traffic.findings.latencies.summary();
    assert_eq!(summary.count, 10_000, "every intended request is in the distribution");
    assert!((900..1_100).contains(&(summary.p50_us as u64)), "{summary:?}");
    // One request in ten was due during the stall and waited half a second on average.
    assert!((450_000.0..550_000.0).contains(&traffic.findings.latencies.quantile_us(0.95)), "{summary:?}");
    assert!((900_000.0..1_002_000.0).contains(&summary.p99_us), "{summary:?}");
    assert_eq!(traffic.findings.counts_all.done, 11_000, "and everything was answered in the end");
}

#[test]
fn what_is_held_back_to_the_end_is_counted_as_unsent() {
    let window = Window { begin: 0, end: SECOND };
    let schedule = Schedule::new(1_000, 1, 4, 0, window.end);
    let mut traffic = LoadTraffic::new(mix(0), window, Some(schedule), 0..1, Random::from_seed(2));
    let (first, _) = ask(&mut traffic, 0);
    assert!(matches!(first, Next::Sent { since: 0, .. }));
    assert_eq!(ask(&mut traffic, 2 * SECOND).0.finished(), Some(()));
    assert_eq!(traffic.findings.unsent, 999);
    assert!(traffic.findings.latencies.summary().min_us > 999_000.0);
}

impl<T> Next<T> {
    fn finished(&self) -> Option<()> {
        matches!(self, Next::Finished).then_some(())
    }
}

#[test]
fn every_transfer_is_done_refused_or_unknown() {
    let window = Window { begin: 0, end: SECOND };
    let mut traffic = LoadTraffic::new(mix(0), window, None, 0..1, Random::from_seed(2));
    let mut tags = Vec::new();
    for _ in 0..4 {
        let Next::Sent { tag: Tag::Transfer(sent), since } = ask(&mut traffic, 5).0 else { panic!("no transfer") };
        tags.push((sent, since));
    }
    let [done_one, refused_one, busy_one, lost_one] = [tags[0].0, tags[1].0, tags[2].0, tags[3].0];
    traffic.reply(0, Tag::Transfer(done_one), 5, 10, Reply::Transfer { reply: &done(), balances: None });
    let mut refusal = done();
    refusal.refusal.set(Refusal::InsufficientFunds.code());
    traffic.reply(0, Tag::Transfer(refused_one), 5, 10, Reply::Transfer { reply: &refusal, balances: None });
    let busy = busy_frame(7);
    let (header, body) = split_frame(&busy).expect("valid").expect("whole");
    traffic.reply(0, Tag::Transfer(busy_one), 5, 10, reply::decode(header, body).expect("valid"));
    traffic.lost(0, Tag::Transfer(lost_one), 5, 10);

    let findings = &traffic.findings;
    let counts = findings.counts;
    assert_eq!((counts.done, counts.refused, counts.busy, counts.lost), (1, 1, 1, 1));
    assert_eq!(findings.unknown, [lost_one]);
    assert_eq!(findings.deltas.iter().sum::<i64>(), 0);
    assert_eq!(findings.deltas[done_one.pair.credit as usize], i64::from(done_one.amount));
    assert_eq!(findings.deltas.iter().filter(|&&delta| delta != 0).count(), 2);
    assert_eq!(findings.refusals.iter().map(|(&code, &count)| (code, count)).collect::<Vec<_>>(), [(1, 1), (229, 1)]);
    assert!(matches!(ask(&mut traffic, 11).0, Next::Later(at) if at == 10 + 7 * MS), "the hint is kept to");
}

fn busy_frame(retry_after_ms: u32) -> Vec<u8> {
    let mut prefix = RefusedPrefix::new_zeroed();
    prefix.refusal.set(Refusal::Busy.code());
    prefix.retry_after_ms.set(retry_after_ms);
    let header = FrameHeader::new(MessageType::Refused, 0, RefusedPrefix::LEN_BYTES);
    [header.as_bytes(), prefix.as_bytes()].concat()
}

#[test]
fn a_batch_is_generated_again_as_it_was_sent() {
    let window = Window { begin: 0, end: SECOND };
    for ids in [IdChoice::Random, IdChoice::V7, IdChoice::Sequence] {
        let mut mix = mix(20);
        mix.ids = Ids::new(ids, &mut Random::from_seed(9));
        let mut traffic = LoadTraffic::new(mix, window, None, 0..1, Random::from_seed(2));
        let (_, skipped) = ask(&mut traffic, 3 * MS);
        let (next, frame) = ask(&mut traffic, 4 * MS);
        let Next::Sent { tag, since } = next else { panic!("no batch") };
        assert_ne!(skipped, frame);
        let (header, body) = split_frame(&frame).expect("valid").expect("whole");
        assert_eq!(header.message_type(), Some(MessageType::Batch));
        let transfers = <[tally_protocol::message::Transfer]>::ref_from_bytes(body).expect("transfers");
        assert_eq!(transfers.len(), 20);

        traffic.lost(0, tag, since, 900 * MS);
        let unknown: Vec<_> =
            traffic.findings.unknown.iter().map(|sent| (sent.id.get(), u64::from(sent.amount))).collect();
        let sent: Vec<_> = transfers.iter().map(|transfer| (transfer.id.get(), transfer.amount.get())).collect();
        assert_eq!(unknown, sent, "{ids:?}");
    }
}
