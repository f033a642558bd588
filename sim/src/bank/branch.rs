//! One branch of the bank: the real engine, journal and look-ups on a simulated disk. Its threads are one here, which takes a
//! request or an instruction at a time; how workers interleave is the single branch's simulator's business.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tally_branch_server::accounts::Accounts;
use tally_branch_server::engine::{ChainStep, Done, Engine, Moved, Payee, Step};
use tally_branch_server::holds::Holds;
use tally_branch_server::ids::{KeeperByHand, LogPositions};
use tally_branch_server::intake::Instruction;
use tally_branch_server::journal::checkpoint::{self, CheckpointMeta};
use tally_branch_server::journal::{Records, recover};
use tally_branch_server::lookup::{Answer, Asker, Looked, Question, RecordReader, Returned, resolve};
use tally_branch_server::recovery::Rebuilding;
use tally_branch_server::replies::ReplyBody;
use tally_branch_server::two_phase::{Begun, ChainBegun, ChainRoute, Heard, Led, Said, TwoPhase, Waiting};
use tally_journal::bell::Bell;
use tally_journal::blocking::BlockingWriter;
use tally_journal::flusher::{Flusher, Step as Flushed};
use tally_journal::log::{Log, LogWriter};
use tally_journal::published::Published;
use tally_journal::segment::{SegmentOptions, Segments};
use tally_journal::{Disk, JournalStats, ReadError, Reader};
use tally_ledger::journal::cursor::Geometry;
use tally_ledger::journal::record::{Record, RecordBody};
use tally_ledger::two_phase::{AbortReason, Decision};
use tally_ledger::{Account, Hold, HoldEnd, HoldStage, Leg, Residence};
use tally_protocol::message;
use tally_protocol::{BranchId, Lsn, Refusal, Timestamp, TransferId};
use zerocopy::{FromBytes, IntoBytes};

use super::BankBug;
use super::planted::Target;
use crate::disk::SimDisk;
use crate::invariants::{Violation, hold, violated};
use crate::world::IdsDirectory;

const SEGMENT_LEN_BYTES: u64 = 1 << 20;
const DISK_LEN_BYTES: u64 = 64 << 20;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The client's number for the request.
    pub(super) request: u64,
    pub(super) refusal: Option<Refusal>,
    pub(super) amount: u64,
    /// The branch to ask instead, where the refusal names one; else 0.
    pub(super) branch: u32,
    /// Of a chain: what each member is told, and whether that is recorded.
    pub(super) items: Vec<(Option<Refusal>, bool)>,
}

/// A branch, up or down.
pub(super) struct SimBranch {
    pub(super) id: BranchId,
    pub(super) disk: SimDisk,
    ids: IdsDirectory,
    directory: PathBuf,
    bug: Option<BankBug>,
    pub(super) life: Option<Life>,
}

/// One life, from recovery to crash.
pub(super) struct Life {
    pub(super) engine: Engine,
    pub(super) shared: TwoPhase,
    pub(super) writer: LogWriter,
    log: Arc<Log>,
    flusher: Flusher<BlockingWriter>,
    published: Arc<Published>,
    records: Records,
    ids_keeper: KeeperByHand,
    epoch: tally_ledger::journal::group::Epoch,
    said: VecDeque<(Lsn, Said)>,
    told: VecDeque<(Lsn, Told)>,
    again: Vec<Instruction>,
    led: Led,
    bug: Option<BankBug>,
    /// A flush has failed: there is no other one in this life.
    has_failed: bool,
    /// For the planted bug that posts twice.
    pub(super) posted: BTreeMap<TransferId, Hold>,
    /// For the planted bugs about holds that wait for an account.
    pub(super) joining: BTreeMap<TransferId, tally_ledger::Joining>,
}

struct Positions(Arc<Published>);

impl LogPositions for Positions {
    fn accepted(&self) -> Lsn {
        self.0.durable().end()
    }
    fn durable(&self) -> Lsn {
        self.0.durable().end()
    }
}

struct Durable<'a>(&'a Records, &'a Published);

impl RecordReader for Durable<'_> {
    fn read_durable(&self, lsn: Lsn) -> Result<Record, ReadError> {
        self.0.record(lsn, self.1.durable())
    }
}

impl SimBranch {
    pub(super) fn new(id: BranchId, disk: SimDisk, ids: IdsDirectory, bug: Option<BankBug>) -> Self {
        Self { id, disk, ids, directory: PathBuf::from("/journal"), bug, life: None }
    }

    /// A disk of the size that branches have.
    pub(super) fn disk(random: crate::random::Random) -> SimDisk {
        SimDisk::new(DISK_LEN_BYTES, random)
    }

    pub(super) fn crash(&mut self) {
        self.disk.power_off();
        self.life = None;
        self.disk.restart();
    }

    /// Recovers. `false` when power failed meanwhile.
    pub(super) fn boot(&mut self, now: Timestamp) -> Result<bool, Violation> {
        match self.try_boot() {
            Ok(life) => self.life = Some(life),
            Err(_) if self.disk.is_down() => {
                self.disk.restart();
                return Ok(false);
            }
            Err(error) => violated!(Recoverable, "branch {} does not start: {error}", self.id),
        }
        let life = self.life.as_mut().expect("just made");
        let mut legs: Vec<Hold> = life.engine.holds.iter().filter(|hold| life.engine.awaits_decision(hold)).collect();
        legs.sort_by_key(|hold| hold.id);
        for hold in &legs {
            match self.bug {
                Some(BankBug::PreparesForgotten) => drop(life.engine.holds.remove(hold.id)),
                Some(BankBug::PreparesExpire) => {
                    let presumed = Decision::Abort(AbortReason::Presumed);
                    life.engine.decide(&mut life.writer, hold.id, (presumed, now), now);
                }
                _ => life.shared.doubts.insert_recovered(hold),
            }
        }
        if self.bug == Some(BankBug::JoiningForgotten) {
            life.forget_joining();
        }
        if self.bug == Some(BankBug::EndsForgotten) {
            life.engine.holds.endings.all().iter().for_each(|ending| life.engine.holds.ending_heard(ending.hold_id));
        }
        Ok(true)
    }

    fn try_boot(&self) -> io::Result<Life> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        disk.create_directory(&self.directory)?;
        let (ids, ids_keeper) = self.ids.open().map_err(|error| io::Error::other(error.to_string()))?;
        let fresh = || (Accounts::new(256, 1), Holds::new(10_000));
        let mut target = Target { inner: Rebuilding::new(self.id, ids, fresh), bug: self.bug };
        let recovered = recover(&disk, &self.directory, SEGMENT_LEN_BYTES, &mut target).map_err(io::Error::other)?;
        let geometry = Geometry::for_segments(SEGMENT_LEN_BYTES).expect("one that the journal allows");
        let (next, chain, epoch) = (recovered.journal.next, recovered.journal.chain, recovered.journal.epoch.next());
        let stats = Arc::new(JournalStats::default());
        let options = SegmentOptions { ahead: 1, zero_bytes_per_second_max: u64::MAX, free_bytes_min: 0 };
        let segments = Segments::open(disk.clone(), &self.directory, geometry, options, next, stats.clone())?;
        let writer = BlockingWriter::new(Arc::new(segments));
        let log = Arc::new(Log::new(geometry, next, recovered.journal.last_timestamp, 1, Bell::new(|| {})));
        let mut flusher = Flusher::new(log.clone(), writer, stats, next, epoch, chain);
        let published = Arc::new(Published::new(next, chain));
        if let Flushed::Flushed { durable, chain } = flusher.mark()? {
            published.publish(durable, chain);
        }
        let Rebuilding { accounts, holds, ids, .. } = target.inner;
        let ids = ids.finish(Arc::new(Positions(published.clone())));
        Ok(Life {
            engine: Engine { branch: self.id, accounts, holds, ids },
            shared: TwoPhase::new(self.id),
            writer: LogWriter::new(log.clone(), 0),
            log,
            flusher,
            published,
            records: Records::new(Arc::new(Reader::open(disk, self.directory.clone(), geometry)?)),
            ids_keeper,
            epoch,
            said: VecDeque::new(),
            told: VecDeque::new(),
            again: Vec::new(),
            led: Led::default(),
            bug: self.bug,
            has_failed: false,
            posted: BTreeMap::new(),
            joining: BTreeMap::new(),
        })
    }

    /// A whole checkpoint. `false` when the disk failed.
    pub(super) fn checkpoint(&mut self) -> bool {
        let (disk, directory) = (&self.disk, &self.directory);
        let Some(life) = &mut self.life else { return false };
        let replay_from = life.published.durable().end();
        if !life.flush() || !life.ids_keeper.rotate_and_merge() || life.engine.ids.covered_lsn() < replay_from {
            return false;
        }
        let accounts: Vec<Account> = life.engine.accounts.iter().collect();
        let mut holds: Vec<Hold> = life.engine.holds.for_checkpoint(self.id).collect();
        // The table's order is by a hash that differs from run to run; the file's must not.
        holds.sort_by_key(|hold| hold.id);
        if self.bug == Some(BankBug::CheckpointSkipsLegs) {
            holds.retain(|hold| !hold.leg.awaits_decision());
        }
        if self.bug == Some(BankBug::CheckpointSkipsMembers) {
            holds.retain(|hold| hold.chain.is_none_or(|place| place.is_head));
        }
        let (mut accounts, mut holds) = (accounts.into_iter(), holds.into_iter());
        let Ok(written) = checkpoint::write_blocks(disk, directory, None, &mut accounts, &mut holds) else {
            return false;
        };
        let (durable, chain) = life.published.anchor();
        let meta = CheckpointMeta {
            branch: self.id,
            number: 0,
            segment_len_bytes: SEGMENT_LEN_BYTES,
            replay_from,
            complete_at: life.log.end(),
            durable: durable.end(),
            chain,
            epoch: life.epoch,
            last_timestamp: life.log.last_timestamp(),
            ids_covered: life.engine.ids.covered_lsn(),
            blocks: 0,
            blocks_check: 0,
            accounts: 0,
            holds: 0,
            counters: Vec::new(),
        };
        if !durable.reaches(meta.complete_at) || checkpoint::verify(disk, directory, &written, None).is_err() {
            return false;
        }
        let Ok(meta) = checkpoint::complete(meta, &written) else { return false };
        checkpoint::publish(disk, directory, &meta).is_ok() && checkpoint::remove_older(disk, directory).is_ok()
    }
}

impl Life {
    /// Writes what there is. `false` when the disk failed: the process stops.
    pub(super) fn flush(&mut self) -> bool {
        while !self.has_failed {
            match self.flusher.step() {
                Ok(Flushed::Flushed { durable, chain }) => self.published.publish(durable, chain),
                Ok(Flushed::Idle | Flushed::Filling) => return true,
                Err(_) => self.has_failed = true,
            }
        }
        false
    }

    /// Opens an account.
    pub(super) fn open(&mut self, open: &message::AccountOpen, now: Timestamp) {
        self.engine.open_account(&mut self.writer, open, Asker::bank().actor, now);
    }

    /// A client's request.
    pub(super) fn request(&mut self, request: u64, wire: &message::Transfer, now: Timestamp) -> Result<(), Violation> {
        let now = self.shared.now(now);
        let asker = Asker { request_id: request, ..Asker::bank() };
        self.take(&asker, wire, None, now)?;
        // A worker tells the end of a hold in the cycle that records it.
        self.shared.tell_ends(&self.engine, false, now, &mut self.led);
        self.pass_on(now)
    }

    /// A client's chain.
    pub(super) fn request_chain(
        &mut self,
        request: u64,
        wires: &[message::Transfer],
        now: Timestamp,
    ) -> Result<(), Violation> {
        let now = self.shared.now(now);
        let asker = Asker { request_id: request, ..Asker::bank() };
        self.take_chain(&asker, wires, None, now)?;
        self.pass_on(now)
    }

    /// As a worker does (`worker/requests.rs`, `worker/chains.rs`).
    fn take_chain(
        &mut self,
        asker: &Asker,
        wires: &[message::Transfer],
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        let entries = || Bytes::copy_from_slice(wires.as_bytes());
        let step = match self.shared.route_chain(&self.engine, wires) {
            ChainRoute::Here => self.engine.chain(&mut self.writer, wires, asker, looked, now, || 0),
            ChainRoute::Refused(refusals) => ChainStep::NotRecorded(refusals),
            ChainRoute::Between(peers) => match self.shared.admit_chain(&peers) {
                Err(_) if looked.is_none() => return self.look_up(Question::Chain(*asker, entries()), now),
                Err(refusal) => ChainStep::Refused(refusal),
                Ok(()) => {
                    let (engine, writer, led) = (&self.engine, &mut self.writer, &mut self.led);
                    match self.shared.begin_chain(engine, writer, (wires, &peers), asker, looked, now, led) {
                        ChainBegun::InDoubt => return self.pass_on(now),
                        ChainBegun::Here(step) => step,
                    }
                }
            },
        };
        match step {
            ChainStep::Done(dones) => {
                let gate = dones.iter().map(|done| done.lsn).max().unwrap_or_default();
                self.tell_chain(gate, asker, &dones);
            }
            ChainStep::NotRecorded(refusals)
                if looked.is_none() && refusals.contains(&Refusal::MovedAccountSinglesOnly) =>
            {
                return self.look_up(Question::Chain(*asker, entries()), now);
            }
            ChainStep::NotRecorded(refusals) => {
                let items = refusals.into_iter().map(|refusal| (Some(refusal), false)).collect();
                let told = Told { request: asker.request_id, refusal: None, amount: 0, branch: 0, items };
                self.told.push_back((Lsn::ZERO, told));
            }
            ChainStep::Refused(refusal) => self.refuse(asker, refusal, 0),
            ChainStep::InFlight => unreachable!("one at a time"),
            ChainStep::Lookup => return self.look_up(Question::Chain(*asker, entries()), now),
        }
        Ok(())
    }

    fn tell_chain(&mut self, gate: Lsn, asker: &Asker, dones: &[Done]) {
        let items = dones.iter().map(|done| (done.refusal, true)).collect();
        let told = Told { request: asker.request_id, refusal: None, amount: 0, branch: 0, items };
        self.told.push_back((gate, told));
    }

    fn take(
        &mut self,
        asker: &Asker,
        wire: &message::Transfer,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        let peer = match self.engine.payee(wire, |id| self.shared.moved.get(id)) {
            Payee::Here => None,
            Payee::At(peer) => Some(peer),
            Payee::Moving => {
                self.refuse(asker, Refusal::AccountMoving, 0);
                return Ok(());
            }
        };
        let Some(peer) = peer else {
            match self.engine.transfer(&mut self.writer, wire, asker, looked, now) {
                Step::Done(done) => self.tell(asker, &done),
                Step::NotRecorded(refusal @ Refusal::HoldElsewhere) => {
                    let branch = self.engine.ender_of(TransferId::new(wire.reference.get()));
                    self.refuse(asker, refusal, u32::from(branch.unwrap_or_default().get()));
                }
                Step::NotRecorded(refusal) => self.refuse(asker, refusal, 0),
                Step::InFlight => unreachable!("one at a time"),
                Step::Lookup => return self.look_up(Question::Transfer(*asker, *wire), now),
                Step::Moved(moved) => return self.transfer_of_moved(asker, wire, moved, looked, now),
            }
            return Ok(());
        };
        self.pay_between(asker, wire, peer, looked, now)
    }

    fn refuse(&mut self, asker: &Asker, refusal: Refusal, branch: u32) {
        let told = Told { request: asker.request_id, refusal: Some(refusal), amount: 0, branch, items: Vec::new() };
        self.told.push_back((Lsn::ZERO, told));
    }

    /// As a worker does (`worker/between.rs`).
    fn transfer_of_moved(
        &mut self,
        asker: &Asker,
        wire: &message::Transfer,
        moved: Moved,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        match moved {
            Moved::Away(branch) => {
                let account = tally_protocol::AccountId::new(wire.debit_account_id.get());
                let branch = self.shared.moved.get(account).unwrap_or(branch);
                let is_back = branch == self.engine.branch;
                let refusal = if is_back { Refusal::AccountMoving } else { Refusal::AccountMoved };
                self.refuse(asker, refusal, u32::from(branch.get()));
                Ok(())
            }
            Moved::PayeeAway(branch) => {
                let payee = tally_protocol::AccountId::new(wire.credit_account_id.get());
                let peer = self.shared.moved.get(payee).unwrap_or(branch);
                if peer == self.engine.branch {
                    self.refuse(asker, Refusal::AccountMoving, 0);
                    return Ok(());
                }
                self.pay_between(asker, wire, peer, looked, now)
            }
            Moved::Here(residence) | Moved::HereAlone(residence)
                if self.bug == Some(BankBug::FormerBranchesNotAsked) =>
            {
                let asker = Asker { cleared_moves: residence.moves, ..*asker };
                self.take(&asker, wire, looked, now)
            }
            Moved::Here(residence) => self.ask_former(asker, wire, residence, TransferId::NONE, now),
            Moved::HereAlone(residence) => {
                self.ask_former(asker, wire, residence, TransferId::new(wire.reference.get()), now)
            }
        }
    }

    fn ask_former(
        &mut self,
        asker: &Asker,
        wire: &message::Transfer,
        residence: Residence,
        reference: TransferId,
        now: Timestamp,
    ) -> Result<(), Violation> {
        match self.shared.ask_former(*asker, *wire, residence, reference, now.as_nanos(), &mut self.led) {
            Ok(()) => self.pass_on(now),
            Err(refusal) => {
                self.refuse(asker, refusal, 0);
                Ok(())
            }
        }
    }

    fn pay_between(
        &mut self,
        asker: &Asker,
        wire: &message::Transfer,
        peer: BranchId,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        if let Err(refusal) = self.shared.admit(peer) {
            if looked.is_none() {
                return self.look_up(Question::Transfer(*asker, *wire), now);
            }
            self.refuse(asker, refusal, 0);
            return Ok(());
        }
        let begun = self.shared.begin(&self.engine, &mut self.writer, (wire, peer), asker, looked, now, &mut self.led);
        match begun {
            Begun::InDoubt => {
                if self.bug == Some(BankBug::SourceHoldsNothing) {
                    self.hold_nothing(TransferId::new(wire.id.get()));
                }
                self.pass_on(now)
            }
            Begun::Refused(done) => {
                self.tell(asker, &done);
                Ok(())
            }
            Begun::NotRecorded(refusal) => {
                self.refuse(asker, refusal, 0);
                Ok(())
            }
            Begun::Moved(moved) => self.transfer_of_moved(asker, wire, moved, looked, now),
            Begun::InFlight => unreachable!("one at a time"),
            Begun::Lookup => self.look_up(Question::Transfer(*asker, *wire), now),
        }
    }

    /// What the registry wants.
    pub(super) fn instruct(&mut self, instruction: Instruction, now: Timestamp) -> Result<(), Violation> {
        let now = self.shared.now(now);
        self.carry_out(instruction, None, now)
    }

    fn carry_out(
        &mut self,
        instruction: Instruction,
        looked: Option<&Looked>,
        now: Timestamp,
    ) -> Result<(), Violation> {
        if self.bug == Some(BankBug::JoiningHoldsEnd) && matches!(instruction, Instruction::Decide(..)) {
            self.remember_joining();
        }
        let (engine, writer, led) = (&self.engine, &mut self.writer, &mut self.led);
        match instruction {
            Instruction::Prepare(mut cross) => {
                let stamp = cross.stamp.get();
                if self.bug == Some(BankBug::StampsIgnored) {
                    cross.stamp = 0.into();
                }
                let id = TransferId::new(cross.transfer.id.get());
                // What was prepared before is older than what its source has forgotten and begun once more.
                let is_new = engine.holds.get(id).is_none();
                self.shared.prepare(engine, writer, &cross, looked, now, led);
                let hold = engine.holds.get(id).filter(|_| is_new);
                if let Some(hold) = hold.filter(|hold| hold.leg == Leg::Destination) {
                    let own = hold.timestamp.as_nanos();
                    hold!(Causality, own > stamp, "{} stamped {own} here and {stamp} at its source", hold.id);
                }
            }
            Instruction::PrepareChain(mut chain) => {
                let (id, stamp) = (TransferId::new(chain.prefix.id.get()), chain.prefix.stamp.get());
                if self.bug == Some(BankBug::StampsIgnored) {
                    chain.prefix.stamp = 0.into();
                }
                self.shared.prepare_chain(engine, writer, &chain, looked, now, led);
                for hold in engine.holds.chain(id).iter().filter(|hold| hold.leg == Leg::Destination) {
                    let own = hold.timestamp.as_nanos();
                    hold!(Causality, own > stamp, "{} stamped {own} here and {stamp} at its source", hold.id);
                }
            }
            Instruction::End(mut item) => {
                let id = TransferId::new(item.id.get());
                if self.bug == Some(BankBug::EndPostsAll)
                    && let Some(hold) = engine.holds.get(id)
                    && item.end == HoldEnd::Settled.raw()
                {
                    item.posted = hold.amount.get().into();
                }
                self.shared.end(engine, writer, &item, now, led);
                if self.bug == Some(BankBug::EndsNotPassedOn) {
                    engine.holds.ending_heard(id);
                }
            }
            Instruction::Heard(id) => engine.holds.ending_heard(id),
            Instruction::Decide(id, decision, decided_at) => {
                let members = engine.holds.chain(id);
                let left = match self.bug {
                    Some(BankBug::ChainDecidedInPart) => members.get(1..).unwrap_or_default(),
                    _ => &[],
                };
                for hold in left {
                    engine.holds.remove(hold.id);
                }
                let open = engine.holds.get(id);
                let is_destination = open.is_some_and(|hold| hold.leg == Leg::Destination);
                let decision = match (self.bug, decision) {
                    (Some(BankBug::DestinationNotPosted), Decision::Commit) if is_destination => {
                        Decision::Abort(AbortReason::Presumed)
                    }
                    (Some(BankBug::AbortPosts), Decision::Abort(_)) if is_destination => Decision::Commit,
                    _ => decision,
                };
                self.shared.decide(engine, writer, id, (decision, decided_at), now, led);
                for &hold in left {
                    engine.holds.insert_recovered(hold);
                }
                match open {
                    Some(hold) if decision == Decision::Commit && hold.stage == HoldStage::AwaitsPosting => {
                        self.posted.insert(id, hold);
                    }
                    None if self.bug == Some(BankBug::PostedTwice) => self.post_again(id),
                    _ => {}
                }
            }
            Instruction::Leave(order) => {
                self.shared.leave(engine, writer, &order, now, led);
                if self.bug == Some(BankBug::SealedAccountsPay) {
                    self.unseal(tally_protocol::AccountId::new(order.account_id.get()));
                }
            }
            Instruction::TakeIn(moving) => self.shared.take_in(engine, writer, &moving, looked, now, led),
            Instruction::AskId(item) => led.question = Some(Question::IdUsed(item)),
            Instruction::IdTold(item) => {
                return match self.shared.hear_former(&item) {
                    Some(Heard::Cleared(asker, wire)) => self.take(&asker, &wire, None, now),
                    Some(Heard::Refused(asker, refusal, branch)) => {
                        self.refuse(&asker, refusal, branch.map_or(0, |branch| u32::from(branch.get())));
                        Ok(())
                    }
                    None => Ok(()),
                };
            }
        }
        self.pass_on(now)
    }

    /// Asks about what nobody decides, and tries again what found no room.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), Violation> {
        let now = self.shared.now(now);
        for instruction in std::mem::take(&mut self.again) {
            self.carry_out(instruction, None, now)?;
        }
        if self.bug != Some(BankBug::NobodyAsks) {
            self.shared.ask(now, &mut self.led);
        }
        for id in self.engine.holds.due(now, usize::MAX) {
            self.engine.expire(&mut self.writer, id, now);
        }
        if self.bug == Some(BankBug::PayeeExpires) {
            self.expire_as_payee(now);
        }
        let is_tick = self.bug != Some(BankBug::EndsToldOnce);
        self.shared.tell_ends(&self.engine, is_tick, now, &mut self.led);
        for asker in self.shared.give_up_former(now.as_nanos()) {
            self.refuse(&asker, Refusal::FormerBranchUnreachable, 0);
        }
        self.pass_on(now)
    }

    fn pass_on(&mut self, now: Timestamp) -> Result<(), Violation> {
        if self.bug == Some(BankBug::JoiningHoldsEnd) {
            self.forget_joining();
        }
        let mut led = std::mem::take(&mut self.led);
        self.said.extend(led.says.drain(..));
        self.again.extend(led.again.take());
        for (gate, asker, dones) in led.chain_answers.drain(..) {
            self.tell_chain(gate, &asker, &dones);
        }
        for (asker, entries) in std::mem::take(&mut led.asked_again) {
            self.look_up(Question::Chain(asker, entries), now)?;
        }
        for (gate, Waiting { asker, .. }, done) in led.answers.drain(..) {
            self.tell_behind(gate, &asker, &done);
        }
        match led.question.take() {
            Some(question) => self.look_up(question, now),
            None => Ok(()),
        }
    }

    fn look_up(&mut self, question: Question, now: Timestamp) -> Result<(), Violation> {
        // A look-up thread waits until what it reads is durable.
        if !self.flush() {
            return Ok(());
        }
        match resolve(&self.engine, &Durable(&self.records, &self.published), question) {
            Answer::Reply(asker, body) => {
                let told = match body {
                    ReplyBody::Transfer { reply, .. } => {
                        let (refusal, amount) = (reply.known_refusal(), reply.amount.get());
                        Told { request: asker.request_id, refusal, amount, branch: 0, items: Vec::new() }
                    }
                    ReplyBody::Items(_, bytes) => {
                        let items = <[message::ItemResult]>::ref_from_bytes(&bytes).expect("whole items");
                        let item = |item: &message::ItemResult| (item.known_refusal(), item.timestamp.get() != 0);
                        let items = items.iter().map(item).collect();
                        Told { request: asker.request_id, refusal: None, amount: 0, branch: 0, items }
                    }
                    ReplyBody::Refused { refusal, retry_after_ms: branch, .. } => {
                        Told { request: asker.request_id, refusal: Some(refusal), amount: 0, branch, items: Vec::new() }
                    }
                    other => violated!(AnswersMatchModel, "a transfer was answered {other:?}"),
                };
                self.told.push_back((Lsn::ZERO, told));
                Ok(())
            }
            Answer::Return(Returned::Transfer(asker, wire, looked)) => self.take(&asker, &wire, Some(&looked), now),
            Answer::Return(Returned::InDoubt(asker, wire, id)) => {
                let member = TransferId::new(wire.id.get());
                let waiting = Waiting { asker, wants_balances: false, is_repeat: true, member };
                match self.shared.doubts.attach(id, waiting) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => self.refuse(&asker, Refusal::Busy, 0),
                }
                Ok(())
            }
            Answer::Return(Returned::Chain(asker, entries, looked)) => {
                let wires = <[message::Transfer]>::ref_from_bytes(&entries).expect("whole transfers");
                self.take_chain(&asker, wires, Some(&looked), now)
            }
            Answer::Return(Returned::ChainInDoubt(asker, entries, id)) => {
                match self.shared.attach_chain(id, asker, entries) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => self.refuse(&asker, Refusal::Busy, 0),
                }
                Ok(())
            }
            Answer::Return(Returned::PrepareChain(chain, looked)) => {
                self.carry_out(Instruction::PrepareChain(chain), Some(&looked), now)
            }
            Answer::Return(Returned::Prepare(cross, looked)) => {
                self.carry_out(Instruction::Prepare(cross), Some(&looked), now)
            }
            Answer::Return(Returned::TakeIn(moving, looked)) => {
                self.carry_out(Instruction::TakeIn(moving), Some(&looked), now)
            }
            Answer::Return(Returned::Decide(id, decision, _)) => {
                violated!(Agreement, "{id} is prepared on disk, and not open in memory ({decision:?} came)")
            }
            Answer::Return(Returned::End(item)) => {
                violated!(Agreement, "{:x} stands on disk, and is not open in memory", item.id.get())
            }
            Answer::Return(Returned::Heard(item)) => {
                self.shared.heard(&item, Lsn::ZERO, now, &mut self.led);
                self.pass_on(now)
            }
            Answer::Return(Returned::Leg(id, effect)) => {
                self.shared.say(id, effect, now, &mut self.led);
                self.pass_on(now)
            }
            Answer::Return(Returned::Contradiction) => {
                violated!(Agreement, "branch {}: a decision contradicts the journal", self.engine.branch)
            }
            Answer::Return(Returned::IdTold(item)) => {
                self.said.push_back((Lsn::ZERO, Said::TellId(item)));
                Ok(())
            }
            Answer::Return(Returned::Nothing) => Ok(()),
            Answer::Return(other) => violated!(AnswersMatchModel, "nobody asked for {other:?}"),
        }
    }

    /// What became of a transfer, as a client would be told; `None` where nothing is known.
    pub(super) fn state_of(&mut self, id: TransferId) -> Result<Option<message::TransferFound>, Violation> {
        if !self.flush() {
            violated!(Recoverable, "a healed disk does not take a flush");
        }
        let question = Question::GetTransfer(Asker::bank(), id);
        match resolve(&self.engine, &Durable(&self.records, &self.published), question) {
            Answer::Reply(_, ReplyBody::Found(found)) => Ok(Some(*found)),
            // One that has gone with an account is known where that is.
            Answer::Reply(
                _,
                ReplyBody::Refused { refusal: Refusal::TransferNotFound | Refusal::HoldElsewhere, .. },
            ) => Ok(None),
            other => violated!(Reads, "{id} was looked up: {other:?}"),
        }
    }

    fn tell(&mut self, asker: &Asker, done: &Done) {
        self.tell_behind(done.lsn, asker, done);
    }

    fn tell_behind(&mut self, gate: Lsn, asker: &Asker, done: &Done) {
        let (refusal, amount) = (done.refusal, done.amount.get());
        let told = Told { request: asker.request_id, refusal, amount, branch: 0, items: Vec::new() };
        self.told.push_back((gate, told));
    }

    /// What may leave for the registry.
    pub(super) fn take_said(&mut self) -> Vec<Said> {
        let durable = self.published.durable();
        let bug = self.bug;
        let may_leave = |gate: Lsn, said: &Said| {
            durable.covers(gate)
                || match said {
                    Said::BeginChain(_) => bug == Some(BankBug::ChainBeginsBeforeDurable),
                    Said::Vote(_) => bug == Some(BankBug::VoteBeforeDurable),
                    Said::Acknowledge(_) => bug == Some(BankBug::AcknowledgedBeforeDurable),
                    Said::Ask(_) => bug == Some(BankBug::AskBeforeDurable),
                    Said::End(_) => bug == Some(BankBug::EndBeforeDurable),
                    Said::Heard(_) => bug == Some(BankBug::HeardBeforeDurable),
                    Said::BeginMove(_) => bug == Some(BankBug::SealBeforeDurable),
                    Said::Begin(_) | Said::RefuseMove(_) | Said::AskId(_) | Said::TellId(_) => false,
                }
        };
        let (leaves, stays) = self.said.drain(..).partition::<VecDeque<_>, _>(|(gate, said)| may_leave(*gate, said));
        self.said = stays;
        leaves.into_iter().map(|(_, said)| said).collect()
    }

    /// What clients may be told.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        let durable = self.published.durable();
        let is_early = self.bug == Some(BankBug::AnswerBeforeDurable);
        let may_leave = |gate: Lsn| is_early || durable.covers(gate);
        let (leaves, stays) = self.told.drain(..).partition::<VecDeque<_>, _>(|(gate, _)| may_leave(*gate));
        self.told = stays;
        leaves.into_iter().map(|(_, told)| told).collect()
    }

    /// Whether something still has to be said, told or tried again.
    pub(super) fn is_busy(&self) -> bool {
        !self.said.is_empty() || !self.told.is_empty() || !self.again.is_empty()
    }

    /// Whether the branch knows durably how `id` ended.
    pub(super) fn has_ended(&self, id: TransferId) -> bool {
        let Ok(looked_up) = self.engine.ids.lookup_on_disk(id) else { return false };
        // The id of a chain whose first member here is another one leads to that.
        let record = looked_up.facts.record.and_then(|lsn| self.records.record(lsn, self.published.durable()).ok());
        let head = match record.map(|record| record.body) {
            Some(RecordBody::Transfer(transfer)) if transfer.id != id => Some(transfer.id),
            _ => None,
        };
        let is_known = |head| self.engine.holds.get(head).is_some() || self.has_ended(head);
        looked_up.facts.ended.is_some() || head.is_some_and(is_known)
    }
}
