//! The machine stops after each single change to the disk, and in the middle of each write: what was acknowledged is
//! there, and everything together is a state that the node was in.

use tally_journal::testing::Unsynced;
use tally_protocol::Lsn;

use super::*;

/// A state that the node was in, and the changes to the disk that there had been.
struct Moment {
    model: Model,
    /// When the first change that leads to it can have happened.
    begun: usize,
    /// When openraft was told; `None` where nothing is promised.
    acknowledged: Option<usize>,
}

struct Run {
    disk: MemoryDisk,
    store: LogStore,
    model: Model,
    moments: Vec<Moment>,
}

impl Run {
    fn new() -> Self {
        let disk = created(MemoryDisk::with_history());
        let begun = disk.steps();
        let (store, _) = open_on(&disk).expect("opens");
        let moments = vec![Moment { model: Model::default(), begun, acknowledged: Some(begun) }];
        Self { disk, store, model: Model::default(), moments }
    }

    fn note(&mut self, begun: usize, is_acknowledged: bool) {
        let acknowledged = is_acknowledged.then(|| self.disk.steps());
        self.moments.push(Moment { model: self.model.clone(), begun, acknowledged });
    }

    async fn append(&mut self, term: u64, count: usize, len_bytes: usize) {
        let (begun, first) = (self.disk.steps(), self.model.next_index());
        let entries: Vec<_> = (first..).take(count).map(|index| entry(term, index, len_bytes)).collect();
        self.store.blocking_append(entries.clone()).await.expect("is written");
        for (at, entry) in entries.into_iter().enumerate() {
            self.model.entries.insert(entry.log_id.index, entry);
            self.note(begun, at + 1 == count);
        }
    }

    async fn vote(&mut self, term: u64) {
        let begun = self.disk.steps();
        self.store.save_vote(&vote(term)).await.expect("is written");
        self.model.vote = Some(vote(term));
        self.note(begun, true);
    }

    async fn truncate(&mut self, term: u64, since: u64) {
        let begun = self.disk.steps();
        self.store.truncate(log_id(term, since)).await.expect("is written");
        self.model.entries.split_off(&since);
        self.note(begun, false);
    }

    async fn purge(&mut self, log_id: LogId) {
        let begun = self.disk.steps();
        self.store.purge(log_id).await.expect("is written");
        self.model.purge(log_id);
        self.note(begun, false);
    }

    /// Waits until the segments below are given up, so that the run has the files changing under it.
    fn wait_for_retention(&self, handle: &LogHandle, before: Lsn) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while handle.oldest() == before {
            assert!(std::time::Instant::now() < deadline, "old segments stay");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// What the disk holds after a crash must be one of the states between what was acknowledged by then and what had been
    /// asked for.
    fn check(&self, crashed: &MemoryDisk, at: usize, what: &str) {
        let least = self.moments.iter().rposition(|moment| moment.acknowledged.is_some_and(|told| told <= at));
        let least = least.expect("the first moment is acknowledged from the start");
        let (mut store, _) = open_on(crashed).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut said = block_on(said(&mut store));
        let possible = self.moments[least..].iter().take_while(|moment| moment.begun <= at);
        // Never promised.
        said.committed = None;
        let mut seen = possible.map(|moment| &moment.model);
        assert!(seen.any(|model| *model == said), "{what}: {:?} to {:?}", said.purged, said.last());
        // And the node goes on.
        block_on(async {
            let next = said.next_index();
            store.blocking_append([entry(99, next, 100)]).await.expect("is written");
            store.save_vote(&vote(99)).await.expect("is written");
        });
    }
}

#[test]
fn a_crash_at_any_step_keeps_what_was_acknowledged() {
    let mut run = Run::new();
    block_on(async {
        run.vote(1).await;
        run.append(1, 3, 200).await;
        run.append(1, 20, 30_000).await;
        run.vote(2).await;
        run.truncate(2, 15).await;
        run.append(2, 2, 100).await;
        run.append(2, 6, 150_000).await;
        run.purge(log_id(1, 9)).await;
        run.append(2, 1, 0).await;
        run.append(2, 4, 150_000).await;
        run.purge(log_id(2, 19)).await;
        let (handle, before) = (run.store.handle().clone(), Lsn::ZERO);
        run.wait_for_retention(&handle, before);
        run.vote(3).await;
        // A snapshot from elsewhere, far ahead.
        run.purge(log_id(3, 500)).await;
        run.append(3, 2, 10).await;
        run.vote(4).await;
    });
    drop(std::mem::replace(&mut run.store, open_on(&created(MemoryDisk::default())).expect("opens").0));
    let steps = run.disk.steps();
    assert!(steps > 60, "{steps} steps");
    // Debug builds take half a second for a hundred crashes; every step counts near a write of the log itself.
    for at in run.moments[0].begun..steps {
        for torn in [false, true] {
            for unsynced in [Unsynced::Kept, Unsynced::Lost] {
                let crashed = run.disk.crashed_at(at, torn, unsynced);
                run.check(&crashed, at, &format!("step {at} of {steps}, torn {torn}, {unsynced:?}"));
            }
        }
    }
}

#[test]
fn a_crash_while_a_log_is_made_leaves_it_or_nothing() {
    let whole = created(MemoryDisk::with_history());
    let (mut nothing, mut made) = (0, 0);
    for at in 0..=whole.steps() {
        for torn in [false, true] {
            for unsynced in [Unsynced::Kept, Unsynced::Lost] {
                let disk = whole.crashed_at(at, torn, unsynced);
                match identity_of(&disk, directory()).expect("one or the other") {
                    None => {
                        nothing += 1;
                        assert!(matches!(open_on(&disk), Err(OpenError::Missing(_))));
                        created(disk.clone());
                    }
                    Some(identity) => {
                        made += 1;
                        assert_eq!(identity, IDENTITY);
                    }
                }
                open_on(&disk).expect("opens");
            }
        }
    }
    assert!(nothing > 4 && made > 2, "{nothing} {made}");
}
