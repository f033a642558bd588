//! Chains between branches, as a worker meets them: begun for clients, and told them when they are decided.

use bytes::Bytes;
use tally_ledger::wire::item_result;
use tally_protocol::message::{self, MessageType};
use tally_protocol::{BranchId, Lsn, Refusal, Timestamp, TransferId};
use zerocopy::IntoBytes;

use super::Running;
use super::requests::{retry_hint_ms, transfers_of};
use crate::engine::Done;
use crate::lookup::{Asker, Looked, Question};
use crate::replies::ReplyBody;
use crate::two_phase::ChainBegun;

impl Running {
    /// A client's chain with payees at `peers`.
    pub(super) fn chain_between(
        &mut self,
        asker: Asker,
        entries: Bytes,
        peers: &[Option<BranchId>],
        looked: Option<&Looked>,
        now: Timestamp,
    ) {
        let worker = &mut self.worker;
        let between = worker.between.as_mut().expect("the caller looked");
        if let Err(refusal) = between.shared.admit_chain(peers) {
            // What was begun before is answered without the registry.
            return match looked {
                None => self.ask(asker, Question::Chain(asker, entries)),
                Some(_) => self.refuse(asker, refusal, retry_hint_ms(refusal)),
            };
        }
        let transfers = transfers_of(&entries).expect("the caller checked the length");
        let (engine, writer, led) = (&worker.engine, &mut worker.writer, &mut between.led);
        match between.shared.begin_chain(engine, writer, (transfers, peers), &asker, looked, now, led) {
            ChainBegun::InDoubt => self.pass_on(now),
            ChainBegun::Here(step) => self.chain_step(asker, entries, step, looked),
        }
    }

    /// The chain came again while it is in doubt.
    pub(super) fn attach_chain(&mut self, asker: Asker, entries: Bytes, decided_under: TransferId) {
        let Some(between) = &self.worker.between else {
            // A folder that had a registry, and is configured without one: nobody will decide.
            return self.refuse(asker, Refusal::RegistryUnreachable, retry_hint_ms(Refusal::RegistryUnreachable));
        };
        match between.shared.attach_chain(decided_under, asker, entries) {
            Ok(true) => {}
            Ok(false) => self.refuse(asker, Refusal::Busy, 5),
            // Decided meanwhile.
            Err((asker, entries)) => self.ask(asker, Question::Chain(asker, entries)),
        }
    }

    /// Tells a client what became of each member of its chain.
    pub(super) fn tell_chain(&mut self, gate: Lsn, asker: Asker, dones: &[Done]) {
        let mut items = Vec::with_capacity(dones.len() * message::ItemResult::LEN_BYTES);
        for done in dones {
            items.extend_from_slice(item_result(done.refusal, done.timestamp, false).as_bytes());
        }
        self.reply(asker, gate, ReplyBody::Items(MessageType::ChainReply, items.into()));
    }

    /// Tells a client why nothing of its chain was looked at.
    pub(super) fn tell_refused(&mut self, asker: Asker, refusals: &[Refusal]) {
        let mut items = Vec::with_capacity(refusals.len() * message::ItemResult::LEN_BYTES);
        for &refusal in refusals {
            items.extend_from_slice(item_result(Some(refusal), Timestamp::default(), false).as_bytes());
        }
        self.reply(asker, Lsn::ZERO, ReplyBody::Items(MessageType::ChainReply, items.into()));
    }
}
