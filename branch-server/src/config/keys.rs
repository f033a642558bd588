//! The table of all configuration keys: name, default and meaning. `tally config show`, the environment
//! names, the checks for unknown keys and docs/OPERATING.md all follow this table.

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
    /// Text.
    Text(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`, as in the TOML file.
    pub name: &'static str,
    /// The value when nothing else is said; its kind is the kind of the key.
    pub default: Default,
    /// What it does, in one line.
    pub help: &'static str,
}

impl Key {
    /// The environment variable that overrides it: `TALLY_SECTION_KEY`.
    pub fn env_name(&self) -> String {
        format!("TALLY_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

const fn integer(name: &'static str, default: i64, help: &'static str) -> Key {
    Key { name, default: Default::Integer(default), help }
}
const fn flag(name: &'static str, default: bool, help: &'static str) -> Key {
    Key { name, default: Default::Flag(default), help }
}
const fn text(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default: Default::Text(default), help }
}

/// Every key.
pub const KEYS: &[Key] = &[
    integer("branch.id", 1, "number of this branch, the top 16 bits of its accounts' ids"),
    text("branch.dir", "tally-data", "data folder; one server at a time"),
    text("listen.address", "127.0.0.1:7411", "where clients connect (TLS); port 0 chooses a free one"),
    integer("listen.session_threads", 0, "threads that speak TLS; 0 means half the cores"),
    integer("workers.count", 0, "threads that apply transfers; 0 means half the cores"),
    flag("workers.pin", true, "pin workers to cores of their own; without effect on fewer than four cores"),
    text("workers.idle", "park", "what an idle worker does: spin, yield or park"),
    integer("workers.control_depth", 1_024, "operations on accounts that may wait for a worker"),
    integer("workers.interactive_depth", 16_384, "payments and reads that may wait for a worker"),
    integer("workers.bulk_depth", 64, "batches that may wait for a worker"),
    integer("journal.segment_len_bytes", 64 << 20, "size of a journal file and of the log's buffer; a power of two"),
    text("journal.io", "auto", "auto, uring or blocking; auto falls back to blocking with a warning"),
    integer("journal.free_bytes_min", 512 << 20, "free disk space below which writes are refused"),
    integer("journal.retention_bytes", 0, "journal kept behind the newest checkpoint; 0 keeps all of it"),
    integer("checkpoint.interval_s", 60, "most seconds between checkpoints"),
    integer("checkpoint.interval_bytes", 4 << 30, "most journal bytes between checkpoints"),
    integer("checkpoint.bytes_per_second_max", 64 << 20, "how fast a checkpoint may write; 0 for no limit"),
    integer("ids.generation_len_max", 2 << 20, "recent ids kept in memory before they are written out"),
    integer(
        "ids.merge_bytes_per_second_max",
        64 << 20,
        "how fast id files are written and merged; 0 for the built-in limit",
    ),
    integer("accounts.max", 50_000_000, "most accounts"),
    integer("holds.max", 1_000_000, "most open holds"),
    text("metrics.address", "127.0.0.1:0", "HTTP for /metrics, /livez and /readyz; empty for none"),
    text(
        "registry.endpoints",
        "",
        "nodes of the registry, host:port, comma between; empty for a branch that stands alone",
    ),
    text("registry.server_name", "registry.tally", "name in the certificate of every registry node"),
    text("registry.ca_file", "tls/ca.pem", "authority that signs the certificates of registry and branches (PEM)"),
    text("registry.cert_file", "tls/link.pem", "this branch's certificate for the registry (PEM)"),
    text("registry.key_file", "tls/link.key", "its private key (PEM)"),
    text("tls.cert_file", "tls/server.pem", "certificate chain, relative to branch.dir"),
    text("tls.key_file", "tls/server.key", "its private key, relative to branch.dir"),
    text("tls.ca_file", "tls/ca.pem", "what clients verify the certificate with, relative to branch.dir"),
    integer("limits.connections_max", 10_000, "most connections"),
    integer("limits.unauthenticated_max", 1_000, "most connections that have not logged in"),
    integer("limits.in_flight_max", 1_024, "most requests of one session without a reply; then TCP holds it back"),
    integer("limits.large_frames_len_bytes_max", 256 << 20, "most bytes of batches that are half received"),
    integer("limits.login_timeout_ms", 10_000, "from connection to login"),
    integer("limits.frame_stall_ms", 10_000, "how long a frame may be half received"),
    integer("limits.reply_stall_ms", 10_000, "how long replies may go unread"),
    integer("limits.keepalive_s", 60, "silence before TCP probes the peer"),
    integer("limits.drain_timeout_ms", 10_000, "how long a stopping server waits for what is in flight"),
    integer("limits.login_failures_free", 5, "failed logins before a user or address has to wait"),
    integer("limits.token_life_s", 900, "how long an access token lives"),
    text("log.format", "json", "json or text"),
    integer("log.slow_request_ms", 1_000, "requests that take so long are logged, with their ids; 0 for none"),
    text("log.level", "info", "error, warn, info, debug or trace, or a tracing filter"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_so_are_their_environment_variables() {
        let mut names: Vec<_> = KEYS.iter().map(Key::env_name).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for key in KEYS {
            assert_eq!(key.name.matches('.').count(), 1, "{}", key.name);
            assert!(!key.help.is_empty());
        }
    }
}
