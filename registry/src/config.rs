//! The configuration of a node: defaults, then a TOML file, then `section.key=value` of the command line. Checked as a
//! whole before anything is opened.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_journal::WriteVia;
use toml::Value;

use crate::log::LogOptions;
use crate::server::NodeOptions;

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

const fn integer(name: &'static str, default: i64, help: &'static str) -> Key {
    Key { name, default: Default::Integer(default), help }
}
const fn flag(name: &'static str, default: bool, help: &'static str) -> Key {
    Key { name, default: Default::Flag(default), help }
}
const fn text(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default: Default::Text(default), help }
}

/// Every key of a registry node.
pub const KEYS: &[Key] = &[
    integer("node.id", 1, "number of this node, as its certificate says it; never used again for another data folder"),
    text("node.dir", "tally-registry", "data folder; one process at a time"),
    text(
        "node.address",
        "127.0.0.1:7421",
        "where nodes, branches and operators connect (TLS); port 0 chooses a free one",
    ),
    text("node.endpoint", "", "where the others reach it; empty for node.address"),
    flag("node.found", true, "an empty folder founds a registry of its own; false waits for `tally cluster join`"),
    integer("node.connections_max", 2_000, "most connections"),
    text("node.cert_file", "tls/registry.pem", "certificate chain, relative to node.dir"),
    text("node.key_file", "tls/registry.key", "its private key, relative to node.dir"),
    text("node.ca_file", "tls/ca.pem", "the authority of all services' certificates, relative to node.dir"),
    text("node.metrics_address", "127.0.0.1:0", "HTTP for /metrics, /livez and /readyz; empty for none"),
    text("raft.io", "auto", "how the log writes: auto, uring or blocking; auto falls back to blocking"),
    integer("raft.segment_len_bytes", 16 << 20, "size of a file of the log; a power of two; must stay what it was"),
    integer("raft.free_bytes_min", 256 << 20, "free disk space below which the log waits"),
    integer("raft.snapshot_entries", 20_000, "entries applied between two snapshots"),
    integer("raft.snapshot_bytes", 128 << 20, "bytes of the log between two snapshots"),
    integer("coordinator.transfers_max", 262_144, "most transfers in hand; further ones are refused as they begin"),
    integer(
        "coordinator.remembered_max",
        1_000_000,
        "acknowledged decisions that are remembered; set when the registry is founded",
    ),
    integer("health.suspect_after_ms", 1_500, "silence after which a branch is suspected"),
    integer(
        "health.down_after_ms",
        5_000,
        "silence after which a branch is down, and transfers to it are refused as they begin",
    ),
    text("output.format", "json", "how log lines look: json, or text for a terminal"),
    text("output.level", "info,openraft=off", "which lines are logged, as `RUST_LOG` has it"),
];

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why, with line and column.
        error: Box<toml::de::Error>,
    },
    /// No such key.
    #[error("unknown key `{0}`; docs/OPERATING.md lists them")]
    UnknownKey(String),
    /// The value is of the wrong kind or out of range.
    #[error("`{name}`: {why}")]
    Value {
        /// Which key.
        name: &'static str,
        /// What is expected instead.
        why: String,
    },
}

/// Everything, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the node; the endpoint may be empty until the port is known.
    pub node: NodeOptions,
    /// Port 0 chooses a free one.
    pub address: SocketAddr,
    /// `None` for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// The certificate chain (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// The authority (PEM).
    pub ca_file: PathBuf,
    /// One JSON object per line, or text.
    pub logs_json: bool,
    /// A `tracing` filter.
    pub log_level: String,
}

impl Config {
    /// Defaults, then `file`, then `settings` (`section.key`, text).
    ///
    /// # Errors
    /// Names the first key or value that is not understood.
    pub fn load(file: Option<&Path>, settings: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut values = Values::default();
        let mut base = PathBuf::new();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
            let table: toml::Table =
                text.parse().map_err(|error| ConfigError::Syntax { path: path.to_owned(), error: Box::new(error) })?;
            for (section, keys) in table {
                let Value::Table(keys) = keys else { return Err(ConfigError::UnknownKey(section)) };
                for (key, value) in keys {
                    values.set(&format!("{section}.{key}"), value)?;
                }
            }
            path.parent().unwrap_or(Path::new("")).clone_into(&mut base);
        }
        let dir_in_file = values.text("node.dir").to_owned();
        for (name, text) in settings {
            values.set_text(name, text)?;
        }
        // A folder that the file names lies beside the file.
        let dir = values.text("node.dir");
        let dir = if file.is_some() && dir == dir_in_file { base.join(dir) } else { PathBuf::from(dir) };
        values.check(dir)
    }
}

struct Values(Vec<(&'static Key, Value)>);

impl std::default::Default for Values {
    fn default() -> Self {
        let value = |key: &'static Key| match key.default {
            Default::Integer(value) => Value::Integer(value),
            Default::Flag(value) => Value::Boolean(value),
            Default::Text(value) => Value::String(value.to_owned()),
        };
        Self(KEYS.iter().map(|key| (key, value(key))).collect())
    }
}

fn bad(name: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { name, why: why.into() }
}

impl Values {
    fn entry(&mut self, name: &str) -> Result<&mut (&'static Key, Value), ConfigError> {
        let found = self.0.iter_mut().find(|(key, _)| key.name == name);
        found.ok_or_else(|| ConfigError::UnknownKey(name.to_owned()))
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), ConfigError> {
        let (key, known) = self.entry(name)?;
        if !value.same_type(known) {
            return Err(bad(key.name, format!("{value} is not {}", kind(key.default))));
        }
        *known = value;
        Ok(())
    }

    fn set_text(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let (key, known) = self.entry(name)?;
        let not = || bad(key.name, format!("`{text}` is not {}", kind(key.default)));
        *known = match key.default {
            Default::Integer(_) => Value::Integer(text.parse().map_err(|_| not())?),
            Default::Flag(_) => Value::Boolean(text.parse().map_err(|_| not())?),
            Default::Text(_) => Value::String(text.to_owned()),
        };
        Ok(())
    }

    fn value(&self, name: &'static str) -> &Value {
        self.0.iter().find(|(key, _)| key.name == name).map(|(_, value)| value).expect("a key of the table")
    }

    fn text(&self, name: &'static str) -> &str {
        self.value(name).as_str().expect("its kind is text")
    }

    fn flag(&self, name: &'static str) -> bool {
        self.value(name).as_bool().expect("its kind is a flag")
    }

    fn integer(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let raw = self.value(name).as_integer().expect("its kind is a number");
        let value = u64::try_from(raw).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| bad(name, format!("{raw} is not in {}..={}", range.start(), range.end())))
    }

    fn address(&self, name: &'static str) -> Result<Option<SocketAddr>, ConfigError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| bad(name, format!("`{text}` is not an address with a port"))),
        }
    }

    fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text(name);
        let found = choices.iter().find(|(choice, _)| *choice == text).map(|&(_, value)| value);
        let all = || choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| bad(name, format!("`{text}` is not one of {}", all())))
    }

    fn check(&self, dir: PathBuf) -> Result<Config, ConfigError> {
        let millis = |name| Ok::<_, ConfigError>(Duration::from_millis(self.integer(name, 100..=3_600_000)?));
        let segment_len_bytes = self.integer("raft.segment_len_bytes", 4 << 20..=1 << 30)?;
        if !segment_len_bytes.is_power_of_two() {
            return Err(bad("raft.segment_len_bytes", format!("{segment_len_bytes} is not a power of two")));
        }
        let (suspect_after, down_after) = (millis("health.suspect_after_ms")?, millis("health.down_after_ms")?);
        if down_after <= suspect_after {
            return Err(bad("health.down_after_ms", "must be more than health.suspect_after_ms"));
        }
        let endpoint = self.text("node.endpoint");
        if endpoint.len() > tally_protocol::link::LINK_ENDPOINT_LEN_BYTES_MAX {
            return Err(bad("node.endpoint", "is too long"));
        }
        let level = self.text("output.level");
        tracing_subscriber::EnvFilter::try_new(level)
            .map_err(|error| bad("output.level", format!("`{level}`: {error}")))?;
        let io = [("auto", WriteVia::Auto), ("uring", WriteVia::Uring), ("blocking", WriteVia::Blocking)];
        let log = LogOptions {
            segment_len_bytes,
            write_via: self.choice("raft.io", &io)?,
            free_bytes_min: self.integer("raft.free_bytes_min", 0..=1 << 50)?,
            ..LogOptions::new(dir.join("raft"))
        };
        Ok(Config {
            address: self.address("node.address")?.ok_or_else(|| bad("node.address", "must not be empty"))?,
            metrics_address: self.address("node.metrics_address")?,
            cert_file: dir.join(self.text("node.cert_file")),
            key_file: dir.join(self.text("node.key_file")),
            ca_file: dir.join(self.text("node.ca_file")),
            logs_json: self.choice("output.format", &[("json", true), ("text", false)])?,
            log_level: level.to_owned(),
            node: NodeOptions {
                node_id: self.integer("node.id", 1..=u64::MAX >> 1)?,
                endpoint: endpoint.to_owned(),
                found: self.flag("node.found"),
                log,
                transfers_max: self.integer("coordinator.transfers_max", 1..=1 << 24)? as usize,
                remembered_max: self.integer("coordinator.remembered_max", 1_024..=1 << 26)?,
                suspect_after,
                down_after,
                snapshot_bytes: self.integer("raft.snapshot_bytes", 1 << 20..=1 << 40)?,
                snapshot_entries: self.integer("raft.snapshot_entries", 100..=1 << 32)?,
                connections_max: self.integer("node.connections_max", 1..=1 << 20)? as usize,
                dir,
            },
        })
    }
}

const fn kind(default: Default) -> &'static str {
    match default {
        Default::Integer(_) => "a whole number",
        Default::Flag(_) => "true or false",
        Default::Text(_) => "a text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let settings: Vec<_> = settings.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        Config::load(None, &settings)
    }

    #[test]
    fn the_defaults_are_valid_and_a_bad_value_is_refused_by_name() {
        let config = load(&[]).expect("valid");
        assert_eq!((config.node.node_id, config.node.found, config.logs_json), (1, true, true));
        assert_eq!(config.ca_file, Path::new("tally-registry/tls/ca.pem"));
        for (name, value, why) in [
            ("node.id", "0", "0 is not in 1..="),
            ("node.id", "x", "`x` is not a whole number"),
            ("node.found", "yes", "`yes` is not true or false"),
            ("node.address", "", "must not be empty"),
            ("node.address", "host", "is not an address with a port"),
            ("raft.segment_len_bytes", "5000000", "is not a power of two"),
            ("raft.io", "aio", "`aio` is not one of auto, uring, blocking"),
            ("health.down_after_ms", "200", "must be more than"),
            ("output.level", "info=x=y", "info=x=y"),
        ] {
            let error = load(&[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        assert!(load(&[("node.colour", "red")]).expect_err("unknown").to_string().contains("`node.colour`"));
    }

    #[test]
    fn a_folder_in_the_file_lies_beside_the_file_and_the_command_line_comes_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("registry.toml");
        std::fs::write(&file, "[node]\nid = 3\ndir = \"data\"\n").expect("written");
        let config = Config::load(Some(&file), &[]).expect("valid");
        assert_eq!((config.node.node_id, config.node.dir.clone()), (3, folder.path().join("data")));
        let settings = [("node.id".to_owned(), "4".to_owned()), ("node.dir".to_owned(), "/x".to_owned())];
        let config = Config::load(Some(&file), &settings).expect("valid");
        assert_eq!((config.node.node_id, config.node.dir), (4, PathBuf::from("/x")));
        for (text, why) in
            [("[node]\nid = \"3\"\n", "is not a whole number"), ("node = 3\n", "unknown key `node`"), ("[node", "TOML")]
        {
            std::fs::write(&file, text).expect("written");
            let error = Config::load(Some(&file), &[]).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
