//! Every interleaving of workers, keeper and journal over one shard:
//! `cargo test -p tally-branch-server --features loom --profile quick --lib ids::loom_tests`.

use loom::thread;

use super::hash::IdHasher;
use super::run::RunSet;
use super::shard::Shard;
use super::table::Table;
use super::{Facts, LookedUp, Reserve};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use tally_protocol::{Lsn, TransferId};

const HASHER: IdHasher = IdHasher::new(1);
const ID: TransferId = TransferId::new(5);
const FIRST_LSN: u64 = 64;

fn shard() -> Arc<Mutex<Shard>> {
    Arc::new(Mutex::new(Shard::new(HASHER, Table::new(0, 4), std::sync::Arc::new(RunSet::default()))))
}

fn reserve(shard: &Mutex<Shard>, id: TransferId) -> Reserve {
    shard.lock().reserve(HASHER.hash(id), id, 100)
}

#[test]
fn of_two_threads_one_uses_the_id_and_the_other_attaches_or_hears_of_it() {
    loom::model(|| {
        let shard = shard();
        let workers: Vec<_> = [64u64, 248]
            .into_iter()
            .map(|lsn| {
                let shard = Arc::clone(&shard);
                thread::spawn(move || match reserve(&shard, ID) {
                    Reserve::New => {
                        shard.lock().finish(HASHER.hash(ID), ID, Lsn::new(lsn));
                        true
                    }
                    Reserve::InFlight => false,
                    Reserve::Known(Facts { record, ended: None }) => {
                        assert!(record.is_some());
                        false
                    }
                    answer @ (Reserve::Known(_) | Reserve::MaybeOld | Reserve::Full) => panic!("{answer:?}"),
                })
            })
            .collect();
        let used = workers.into_iter().map(|worker| worker.join().expect("no panic"));
        assert_eq!(used.filter(|&used| used).count(), 1);
    });
}

#[test]
fn whatever_is_accepted_before_a_freeze_is_in_the_frozen_table() {
    loom::model(|| {
        let (shard, accepted) = (shard(), Arc::new(AtomicU64::new(FIRST_LSN)));
        let worker = thread::spawn({
            let (shard, accepted) = (Arc::clone(&shard), Arc::clone(&accepted));
            move || {
                assert_eq!(reserve(&shard, ID), Reserve::New);
                shard.lock().finish(HASHER.hash(ID), ID, Lsn::new(FIRST_LSN));
                // The record is filled: `accepted` may pass it.
                accepted.store(FIRST_LSN + 184, Ordering::Release);
            }
        });
        let keeper = thread::spawn({
            let (shard, accepted) = (Arc::clone(&shard), Arc::clone(&accepted));
            move || {
                let covered = accepted.load(Ordering::Acquire);
                let frozen = shard.lock().freeze(Table::new(0, 4));
                assert!(covered <= FIRST_LSN || frozen.facts(HASHER.hash(ID), ID).is_some());
            }
        });
        worker.join().expect("no panic");
        keeper.join().expect("no panic");
        assert!(matches!(reserve(&shard, ID), Reserve::Known(_)), "frozen or not, the id is known");
    });
}

#[test]
fn a_look_up_before_the_use_does_not_make_the_id_new_again() {
    loom::model(|| {
        let shard = shard();
        let nothing = LookedUp { facts: Facts::default(), runs_below: 0 };
        let use_it = |lsn: u64| {
            let shard = Arc::clone(&shard);
            move || {
                let answer = shard.lock().reserve_looked_up(HASHER.hash(ID), ID, &nothing, 100);
                if answer == Reserve::New {
                    shard.lock().finish(HASHER.hash(ID), ID, Lsn::new(lsn));
                }
                usize::from(answer == Reserve::New)
            }
        };
        let (one, other) = (thread::spawn(use_it(64)), thread::spawn(use_it(248)));
        let freezer = thread::spawn({
            let shard = Arc::clone(&shard);
            move || drop(shard.lock().freeze(Table::new(0, 4)))
        });
        freezer.join().expect("no panic");
        assert_eq!(one.join().expect("no panic") + other.join().expect("no panic"), 1);
    });
}
