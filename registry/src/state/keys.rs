//! Keys of services that are not branches, nodes or operators: what they open. Only hashes are kept; a key has 256 random
//! bits, so a plain hash of it cannot be reversed by guessing.

use std::collections::BTreeMap;

use tally_protocol::Timestamp;

use super::Refused;

/// SHA-256.
pub const KEY_HASH_LEN_BYTES: usize = 32;
/// Services are few.
pub(super) const KEYS_MAX: usize = 10_000;

macro_rules! scopes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $bit:literal $text:literal; )+) => {
        /// What a key may open.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Scope { $( $(#[doc = $doc])+ $name = 1 << $bit, )+ }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// All bits that mean something.
            pub const ALL_BITS: u32 = $( (1 << $bit) | )+ 0;

            /// The name in commands and JSON.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

scopes! {
    /// Where branches and accounts are.
    Routes = 0 "routes";
    /// The state of the registry and the bank.
    Status = 1 "status";
    /// Transfers that are not over.
    Transfers = 2 "transfers";
}

impl Scope {
    /// The scope with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.name() == name)
    }

    /// The names of the scopes in `bits`.
    pub fn names(bits: u32) -> Vec<&'static str> {
        Self::ALL.iter().filter(|&&scope| bits & scope as u32 != 0).map(|scope| scope.name()).collect()
    }
}

/// A key, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// SHA-256 of it.
    pub hash: [u8; KEY_HASH_LEN_BYTES],
    /// Bits of [`Scope`].
    pub scopes: u32,
    /// Since when.
    pub since: Timestamp,
}

/// All keys by the name of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(pub(super) BTreeMap<String, KeyEntry>);

impl Keys {
    pub(super) fn add(&mut self, name: &str, entry: KeyEntry) -> Result<(), Refused> {
        if self.0.contains_key(name) {
            return Err(Refused::KeyExists);
        }
        if self.0.len() == KEYS_MAX {
            return Err(Refused::KeysFull);
        }
        self.0.insert(name.to_owned(), entry);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Refused> {
        self.0.remove(name).map(drop).ok_or(Refused::KeyUnknown)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KeyEntry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Whose key has this hash. What an attacker learns from the time this takes is about hashes, not about keys.
    pub fn find(&self, hash: &[u8; KEY_HASH_LEN_BYTES]) -> Option<(&str, &KeyEntry)> {
        self.iter().find(|(_, entry)| entry.hash == *hash)
    }
}
