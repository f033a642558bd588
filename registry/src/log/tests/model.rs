//! Whatever openraft may ask, in any order, with restarts in between: the store says what a map would say.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// So many entries of that size, in one call.
    Append(usize, usize),
    /// So many of the last entries are given up, and a new term begins.
    Truncate(u64),
    /// Up to that far from the end; negative: beyond it.
    Purge(i64),
    Vote,
    Commit(u64),
    Read(u64, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..20, 0_usize..3_000).prop_map(|(count, len_bytes)| Step::Append(count, len_bytes)),
        2 => (1_usize..4, 0_usize..250_000).prop_map(|(count, len_bytes)| Step::Append(count, len_bytes)),
        2 => (0_u64..30).prop_map(Step::Truncate),
        2 => (-5_i64..20).prop_map(Step::Purge),
        1 => Just(Step::Vote),
        2 => (0_u64..5).prop_map(Step::Commit),
        3 => (0_u64..40, 0_u64..40).prop_map(|(from, count)| Step::Read(from, count)),
        1 => Just(Step::Restart),
    ]
}

async fn take(step: Step, store: &mut LogStore, model: &mut Model, term: &mut u64) -> Result<(), TestCaseError> {
    match step {
        Step::Append(count, len_bytes) => {
            let first = model.next_index();
            let entries: Vec<_> = (first..).take(count).map(|index| entry(*term, index, len_bytes)).collect();
            store.blocking_append(entries.clone()).await.expect("is written");
            model.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        }
        Step::Truncate(count) => {
            let since = model.next_index().saturating_sub(count).max(model.purged.map_or(0, |purged| purged.index + 1));
            store.truncate(log_id(*term, since)).await.expect("is written");
            model.entries.split_off(&since);
            *term += 1;
        }
        Step::Purge(behind) => {
            let upto = model.next_index().checked_add_signed(-behind - 1);
            if let Some(upto) = upto.filter(|&upto| model.purged.is_none_or(|purged| upto > purged.index)) {
                let upto = model.entries.get(&upto).map_or(log_id(*term, upto), |entry| entry.log_id);
                store.purge(upto).await.expect("is written");
                model.purge(upto);
            }
        }
        Step::Vote => {
            *term += 1;
            store.save_vote(&vote(*term)).await.expect("is written");
            model.vote = Some(vote(*term));
        }
        Step::Commit(back) => {
            let committed = model.entries.values().rev().nth(back as usize).map(|entry| entry.log_id);
            if committed > model.committed {
                store.save_committed(committed).await.expect("is remembered");
                model.committed = committed;
            }
        }
        Step::Read(from, count) => {
            let first = model.entries.first_key_value().map_or(0, |(&first, _)| first);
            let (start, end) = (first + from, first + from + count);
            let expected: Vec<_> = model.entries.range(start..end).map(|(_, entry)| entry.clone()).collect();
            prop_assert_eq!(&store.try_get_log_entries(start..end).await.expect("can be read"), &expected);
            let mut reader = store.get_log_reader().await;
            let limited = reader.limited_get_log_entries(start, end).await.expect("can be read");
            prop_assert_eq!(limited.is_empty(), expected.is_empty());
            prop_assert!(expected.starts_with(&limited));
            if let [_, _, ..] = limited[..] {
                let len_bytes: usize = limited.iter().map(crate::raft::codec::entry_len_bytes).sum();
                prop_assert!(len_bytes <= 1 << 20, "{} bytes", len_bytes);
            }
        }
        Step::Restart => unreachable!("taken by the caller"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_says_what_a_map_would_say(steps in proptest::collection::vec(step(), 1..60)) {
        let disk = created(MemoryDisk::default());
        let (mut store, _) = open_on(&disk).expect("opens");
        let (mut model, mut term) = (Model::default(), 1);
        for step in steps {
            if let Step::Restart = step {
                drop(store);
                (store, _) = open_on(&disk).expect("opens again");
                let said = block_on(said(&mut store));
                prop_assert!(said.committed <= model.committed, "what was not flushed may be forgotten");
                model.committed = said.committed;
                prop_assert_eq!(&said, &model);
            } else {
                block_on(take(step, &mut store, &mut model, &mut term))?;
            }
        }
        prop_assert_eq!(block_on(said(&mut store)), model);
    }
}
