//! The one switch between the real primitives and loom's: everything lock-free in this crate imports
//! its atomics, threads and locks from here, so that `--features loom` model-checks the same code.

#[cfg(not(feature = "loom"))]
pub use crossbeam::queue::ArrayQueue;
#[cfg(not(feature = "loom"))]
pub use parking_lot::{Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
pub use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

#[cfg(feature = "loom")]
pub use loom::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

/// A mutex with the interface of `parking_lot`'s, over loom's.
#[cfg(feature = "loom")]
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);
#[cfg(feature = "loom")]
pub use loom::sync::MutexGuard;

#[cfg(feature = "loom")]
impl<T> Mutex<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }
    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no thread panics in a model")
    }
}

/// A bounded queue with the interface of crossbeam's, which loom cannot look into: what is modelled is how it is used.
#[cfg(feature = "loom")]
#[derive(Debug)]
pub struct ArrayQueue<T> {
    waiting: Mutex<std::collections::VecDeque<T>>,
    len_max: usize,
}

#[cfg(feature = "loom")]
impl<T> ArrayQueue<T> {
    /// An empty queue of `len_max` places.
    pub fn new(len_max: usize) -> Self {
        Self { waiting: Mutex::new(std::collections::VecDeque::new()), len_max }
    }
    /// Adds at the end, or hands back what found no place.
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock();
        if waiting.len() == self.len_max {
            return Err(value);
        }
        waiting.push_back(value);
        Ok(())
    }
    /// Takes the first.
    pub fn pop(&self) -> Option<T> {
        self.waiting.lock().pop_front()
    }
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }
    /// How much waits.
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}
