//! Waking a sleeping thread exactly when it has work, and for the price of one load when it is awake.
//!
//! **Invariant:** no ring is lost: a thread that announced its sleep and then found no work is woken by
//! any ring whose work it did not see. This is Dekker's pattern: the sleeper writes `asleep` and then
//! reads the queue; the ringer writes the queue and then reads `asleep`; a sequentially consistent fence
//! between the two steps of each makes sure that at least one of them sees the other.

use crate::sync::{Arc, AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// How the sleeper is woken once it really sleeps.
pub trait Wake: Send + Sync + 'static {
    /// Wakes the sleeper; may be called while it is awake.
    fn wake(&self);
}

impl<F: Fn() + Send + Sync + 'static> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// The ringing end; cheap to clone.
#[derive(Clone)]
pub struct Bell {
    inner: Arc<Inner>,
}

struct Inner {
    state: AtomicU32,
    wake: Box<dyn Wake>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bell")
    }
}

impl Bell {
    /// A bell that calls `wake` when it rings for a sleeper.
    pub fn new(wake: impl Wake) -> Self {
        Self { inner: Arc::new(Inner { state: AtomicU32::new(AWAKE), wake: Box::new(wake) }) }
    }

    /// Call after making work visible. One fence and one load when the other side is awake.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the fence in `announce_sleep`.
        fence(Ordering::SeqCst);
        if self.inner.state.load(Ordering::Relaxed) == ASLEEP
            && self.inner.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP
        {
            self.inner.wake.wake();
        }
    }

    /// The sleeper says that it is about to sleep. It must look for work once more after this, and sleep
    /// only if there is none.
    #[inline]
    pub fn announce_sleep(&self) {
        // A swap, so that it lies behind the swap of whoever rang last.
        self.inner.state.swap(ASLEEP, Ordering::AcqRel);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again, by a ring, a time-out or because it found work.
    #[inline]
    pub fn awake(&self) {
        self.inner.state.swap(AWAKE, Ordering::AcqRel);
    }
}
