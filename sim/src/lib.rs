//! The simulator: a whole branch under one seed, and in [`bank`] a whole bank of them. Virtual time, a disk that tears and forgets, several workers whose
//! steps are interleaved by chance, crashes at any step, and a model that knows every answer.
//!
//! ```text
//!  workload --requests--> intake ==> workers (stages, one step at a time) ==> log ==> flusher ==> simulated disk
//!                                        |  look-ups, expiry, checkpoints, id index                   |
//!  audit <------------- replies <--------'                                                            |
//!  audit <------------- every group on its way to the disk <------------------------------------------'
//!  audit <------------- every state that a recovery brings back
//! ```
//!
//! Real: the ledger's rules, the engine's stages, the log, groups, flusher, segments, checkpoints and recovery of
//! the journal, the id index, the look-ups' answers, the intake and the reply gate. Written again here, one step at
//! a time: the loops of the threads that drive them, and time and disk beneath them.
//!
//! **Invariant:** everything that happens follows from the seed.

pub mod audit;
pub mod bank;
pub mod clock;
pub mod command;
pub mod disk;
pub mod invariants;
pub mod model;
pub mod planted;
pub mod random;
pub mod request;
pub mod torture;
pub mod trace;
pub mod workload;
pub mod world;

pub use command::{SimArgs, run};
