//! Configuration: raw layers in, one checked [`Config`] out.
//!
//! ```text
//!   defaults < TOML file < TALLY_... environment < flags
//! ```
//!
//! **Invariant:** everything is read and checked before the first port is bound or file is made: what
//! the server runs on is a [`Config`], and a [`Config`] holds no value that it would refuse later.
//! A bad value is named, with where it came from; a key that nobody knows is refused, not skipped.

mod checked;
mod keys;
mod layers;

pub use checked::{
    BranchConfig, CheckpointConfig, Config, Idle, IdsConfig, JournalConfig, JournalIo, ListenConfig, LogConfig,
    LogFormat, RegistryConfig, TlsConfig, WorkersConfig,
};
pub use keys::{Default, KEYS, Key};
pub use layers::{ConfigError, Layers, Source};
