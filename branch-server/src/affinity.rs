//! Pinning threads to cores.
//!
//! Pinning is a wish: in a container or under a cgroup the kernel may refuse it, and the server runs
//! all the same. What was refused is logged once.

use std::sync::Once;

/// The cores that this process may use, in order. Empty where the kernel does not say.
///
/// A thread that is spawned from a pinned one inherits its single core, so ask before pinning anything.
pub fn cores() -> Vec<core_affinity::CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// Which of `cores` to pin `workers` to, in turn; none where a pinned worker would share its core with the threads that
/// bring it work: it could not move away when they run, and they could not when it does.
pub fn cores_for(workers: usize, cores: Vec<core_affinity::CoreId>) -> Vec<core_affinity::CoreId> {
    let is_roomy = cores.len() >= 4 && workers <= cores.len() / 2;
    if is_roomy { cores } else { Vec::new() }
}

/// Pins the calling thread to `core`. Returns whether it worked.
///
/// Threads that it spawns afterwards inherit the pin; let helpers be spawned by a thread that is not
/// pinned.
pub fn pin(core: core_affinity::CoreId) -> bool {
    static WARNED: Once = Once::new();
    let pinned = core_affinity::set_for_current(core);
    if !pinned {
        WARNED.call_once(|| {
            tracing::warn!(core = core.id, "the kernel does not let us pin threads; running unpinned");
        });
    }
    pinned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_pinned_only_where_they_do_not_crowd_the_others() {
        for (workers, cores, pinned) in [(1, 1, false), (1, 2, false), (2, 4, true), (3, 4, false), (8, 16, true)] {
            let cores = (0..cores).map(|id| core_affinity::CoreId { id }).collect::<Vec<_>>();
            assert_eq!(!cores_for(workers, cores.clone()).is_empty(), pinned, "{workers} on {}", cores.len());
        }
    }

    #[test]
    fn pins_to_a_core_of_ours_and_reports_a_core_that_is_not_there() {
        std::thread::spawn(|| {
            let cores = cores();
            assert!(!cores.is_empty());
            assert!(pin(cores[0]));
            assert_eq!(super::cores().len(), 1, "the mask of a pinned thread has one core");
            assert!(!pin(core_affinity::CoreId { id: 1_023 }));
        })
        .join()
        .expect("the thread does not panic");
    }
}
