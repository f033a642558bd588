//! The checked configuration: what the server runs on.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_protocol::BranchId;
use toml::Value;

use super::layers::{ConfigError, Layers, Source};
use crate::limits::{IN_FLIGHT_MAX_MAX, SessionLimits};

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which branch this is and where its data lies.
    pub branch: BranchConfig,
    /// Where clients connect.
    pub listen: ListenConfig,
    /// The threads that apply transfers.
    pub workers: WorkersConfig,
    /// The log.
    pub journal: JournalConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
    /// The index of transfer ids.
    pub ids: IdsConfig,
    /// Most accounts.
    pub accounts_max: usize,
    /// Most open holds.
    pub holds_max: usize,
    /// The registry; `None` for a branch that stands alone.
    pub registry: Option<RegistryConfig>,
    /// Where the admin HTTP server listens; `None` for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Certificates.
    pub tls: TlsConfig,
    /// Bounds of the sessions.
    pub limits: SessionLimits,
    /// Logs.
    pub log: LogConfig,
}

/// Section `[branch]`.
#[derive(Clone, Debug)]
pub struct BranchConfig {
    /// Not 0.
    pub id: BranchId,
    /// The data folder.
    pub dir: PathBuf,
}

/// Section `[listen]`.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Port 0 chooses a free one.
    pub address: SocketAddr,
    /// At least 1.
    pub session_threads: usize,
}

/// What a worker does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Burns its core: only where it has one of its own.
    Spin,
    /// Gives the core away between looks.
    Yield,
    /// Sleeps until it is rung for.
    Park,
}

/// Section `[workers]`.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// At least 1.
    pub count: usize,
    /// Whether workers are pinned to cores, where there are enough.
    pub pin: bool,
    /// What an idle worker does.
    pub idle: Idle,
    /// Operations on accounts that may wait for one worker.
    pub control_depth: usize,
    /// Payments and reads that may wait for one worker.
    pub interactive_depth: usize,
    /// Batches that may wait for one worker.
    pub bulk_depth: usize,
}

/// How the journal writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalIo {
    /// `Uring` where it is permitted, else `Blocking` with a warning.
    Auto,
    /// tokio-uring, or do not start.
    Uring,
    /// System calls that block.
    Blocking,
}

/// Section `[journal]`.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// A power of two, 4 MiB to 1 GiB.
    pub segment_len_bytes: u64,
    /// How it writes.
    pub io: JournalIo,
    /// Free space below which writes are refused.
    pub free_bytes_min: u64,
    /// Journal kept behind the newest checkpoint; `None` for all.
    pub retention_bytes: Option<u64>,
}

/// Section `[checkpoint]`.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// Most time between two.
    pub interval: Duration,
    /// Most journal between two.
    pub interval_bytes: u64,
    /// How fast one may write; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
}

/// Section `[ids]`.
#[derive(Clone, Debug)]
pub struct IdsConfig {
    /// Ids in memory before they are written out.
    pub generation_len_max: usize,
    /// How fast files are merged; `None` for no limit.
    pub merge_bytes_per_second_max: Option<u64>,
}

/// Section `[tls]`, with absolute or working-directory-relative paths.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The certificate chain (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// What clients verify with (PEM); only told to people, not read by the server.
    pub ca_file: PathBuf,
}

/// Section `[registry]`.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Its nodes, `host:port`; at least one.
    pub endpoints: Vec<String>,
    /// The name that the certificate of every node bears.
    pub server_name: String,
    /// The authority of the bank's services (PEM).
    pub ca_file: PathBuf,
    /// This branch's certificate for the registry (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a terminal.
    Text,
}

/// Section `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A `tracing` filter.
    pub level: String,
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first value that is out of its range.
    pub fn check(layers: &Layers) -> Result<Self, ConfigError> {
        let get = Getter(layers);
        let half_of_the_cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let or_half = |count: u64| if count == 0 { half_of_the_cores } else { count as usize };
        let dir = get.path("branch.dir")?;
        Ok(Self {
            branch: BranchConfig {
                id: BranchId::new(get.integer("branch.id", 1..=u16::MAX as u64)? as u16),
                dir: dir.clone(),
            },
            listen: ListenConfig {
                address: get
                    .address("listen.address")?
                    .ok_or_else(|| get.bad("listen.address", "must not be empty"))?,
                session_threads: or_half(get.integer("listen.session_threads", 0..=256)?),
            },
            workers: WorkersConfig {
                count: or_half(get.integer("workers.count", 0..=256)?),
                pin: get.flag("workers.pin"),
                idle: get
                    .choice("workers.idle", &[("spin", Idle::Spin), ("yield", Idle::Yield), ("park", Idle::Park)])?,
                control_depth: get.integer("workers.control_depth", 1..=1 << 20)? as usize,
                interactive_depth: get.integer("workers.interactive_depth", 1..=1 << 20)? as usize,
                bulk_depth: get.integer("workers.bulk_depth", 1..=4_096)? as usize,
            },
            journal: get.journal()?,
            checkpoint: CheckpointConfig {
                interval: Duration::from_secs(get.integer("checkpoint.interval_s", 1..=86_400)?),
                interval_bytes: get.integer("checkpoint.interval_bytes", 1 << 20..=1 << 50)?,
                bytes_per_second_max: get.limit("checkpoint.bytes_per_second_max")?,
            },
            ids: IdsConfig {
                generation_len_max: get.integer("ids.generation_len_max", 1_024..=1 << 30)? as usize,
                merge_bytes_per_second_max: get.limit("ids.merge_bytes_per_second_max")?,
            },
            accounts_max: get.integer("accounts.max", 1..=1 << 32)? as usize,
            holds_max: get.integer("holds.max", 1..=1 << 32)? as usize,
            registry: get.registry(&dir)?,
            metrics_address: get.address("metrics.address")?,
            tls: TlsConfig {
                cert_file: get.tls_file("tls.cert_file", &dir)?,
                key_file: get.tls_file("tls.key_file", &dir)?,
                ca_file: get.tls_file("tls.ca_file", &dir)?,
            },
            limits: get.limits()?,
            log: LogConfig {
                format: get.choice("log.format", &[("json", LogFormat::Json), ("text", LogFormat::Text)])?,
                level: get.filter("log.level")?,
            },
        })
    }
}

/// Reads single values out of the layers and says what is wrong with them.
struct Getter<'a>(&'a Layers);

impl Getter<'_> {
    fn bad(&self, name: &'static str, why: impl Into<String>) -> ConfigError {
        ConfigError::Value { name, from: self.0.entry(name).source.clone(), why: why.into() }
    }

    fn integer(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let raw = self.0.entry(name).value.as_integer().unwrap_or_default();
        u64::try_from(raw)
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| self.bad(name, format!("{raw} is not in {}..={}", range.start(), range.end())))
    }

    /// A number where 0 means "no limit".
    fn limit(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        Ok(Some(self.integer(name, 0..=1 << 50)?).filter(|&limit| limit != 0))
    }

    fn flag(&self, name: &'static str) -> bool {
        self.0.entry(name).value == Value::Boolean(true)
    }

    fn text(&self, name: &'static str) -> &str {
        self.0.entry(name).value.as_str().unwrap_or_default()
    }

    fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text(name);
        choices.iter().find(|(choice, _)| *choice == text).map(|&(_, value)| value).ok_or_else(|| {
            let all: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            self.bad(name, format!("`{text}` is not one of {}", all.join(", ")))
        })
    }

    fn address(&self, name: &'static str) -> Result<Option<SocketAddr>, ConfigError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.bad(name, format!("`{text}` is not an address with a port")))
    }

    /// A path; one from a file is relative to the folder of that file.
    fn path(&self, name: &'static str) -> Result<PathBuf, ConfigError> {
        let text = self.text(name);
        if text.is_empty() {
            return Err(self.bad(name, "must not be empty"));
        }
        Ok(match &self.0.entry(name).source {
            Source::File(file) => file.parent().unwrap_or(Path::new("")).join(text),
            Source::Default | Source::Env(_) | Source::Flag => PathBuf::from(text),
        })
    }

    /// A file in the data folder, or anywhere. One that was named has to be there; those of a development bank are made
    /// after this check.
    fn tls_file(&self, name: &'static str, dir: &Path) -> Result<PathBuf, ConfigError> {
        let path = dir.join(self.text(name));
        match (&self.0.entry(name).source, std::fs::File::open(&path)) {
            (Source::Default, _) | (_, Ok(_)) => Ok(path),
            (Source::File(_) | Source::Env(_) | Source::Flag, Err(error)) => {
                Err(self.bad(name, format!("{}: {error}", path.display())))
            }
        }
    }

    fn filter(&self, name: &'static str) -> Result<String, ConfigError> {
        let text = self.text(name);
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|error| self.bad(name, format!("`{text}`: {error}")))
    }

    fn millis(&self, name: &'static str) -> Result<Duration, ConfigError> {
        Ok(Duration::from_millis(self.integer(name, 1..=3_600_000)?))
    }

    fn journal(&self) -> Result<JournalConfig, ConfigError> {
        let segment_len_bytes = self.integer("journal.segment_len_bytes", 4 << 20..=1 << 30)?;
        if !segment_len_bytes.is_power_of_two() {
            return Err(self.bad("journal.segment_len_bytes", format!("{segment_len_bytes} is not a power of two")));
        }
        Ok(JournalConfig {
            segment_len_bytes,
            io: self.choice(
                "journal.io",
                &[("auto", JournalIo::Auto), ("uring", JournalIo::Uring), ("blocking", JournalIo::Blocking)],
            )?,
            free_bytes_min: self.integer("journal.free_bytes_min", 0..=1 << 50)?,
            retention_bytes: self.limit("journal.retention_bytes")?,
        })
    }

    fn registry(&self, dir: &Path) -> Result<Option<RegistryConfig>, ConfigError> {
        let endpoints: Vec<_> = self
            .text("registry.endpoints")
            .split(',')
            .map(|endpoint| endpoint.trim().to_owned())
            .filter(|endpoint| !endpoint.is_empty())
            .collect();
        let has_port = |endpoint: &String| {
            endpoint.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if let Some(bad) = endpoints.iter().find(|endpoint| !has_port(endpoint)) {
            return Err(self.bad("registry.endpoints", format!("`{bad}` is not a host with a port")));
        }
        let config = RegistryConfig {
            endpoints,
            server_name: self.text("registry.server_name").to_owned(),
            ca_file: self.tls_file("registry.ca_file", dir)?,
            cert_file: self.tls_file("registry.cert_file", dir)?,
            key_file: self.tls_file("registry.key_file", dir)?,
        };
        Ok(Some(config).filter(|config| !config.endpoints.is_empty()))
    }

    fn limits(&self) -> Result<SessionLimits, ConfigError> {
        Ok(SessionLimits {
            connections_max: self.integer("limits.connections_max", 1..=1 << 20)? as usize,
            unauthenticated_max: self.integer("limits.unauthenticated_max", 1..=1 << 20)? as usize,
            in_flight_max: self.integer("limits.in_flight_max", 1..=IN_FLIGHT_MAX_MAX as u64)? as u32,
            large_frames_len_bytes_max: self.integer("limits.large_frames_len_bytes_max", 1 << 20..=1 << 40)? as usize,
            login_timeout: self.millis("limits.login_timeout_ms")?,
            frame_stall: self.millis("limits.frame_stall_ms")?,
            reply_stall: self.millis("limits.reply_stall_ms")?,
            keepalive: Duration::from_secs(self.integer("limits.keepalive_s", 1..=86_400)?),
            drain_timeout: self.millis("limits.drain_timeout_ms")?,
            login_failures_free: self.integer("limits.login_failures_free", 1..=1_000)? as u32,
            token_life: Duration::from_secs(self.integer("limits.token_life_s", 1..=86_400)?),
            slow_request: Duration::from_millis(self.integer("log.slow_request_ms", 0..=3_600_000)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags: Vec<_> = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::check(&Layers::load(None, [], &flags)?)
    }

    #[test]
    fn the_defaults_are_valid_and_are_those_of_the_types() {
        let config = check(&[]).expect("defaults are valid");
        assert_eq!(config.limits, SessionLimits::default());
        assert!(config.listen.session_threads >= 1 && config.workers.count >= 1);
        assert_eq!(config.tls.cert_file, Path::new("tally-data/tls/server.pem"));
        assert_eq!(config.checkpoint.bytes_per_second_max, Some(64 << 20));
    }

    #[test]
    fn a_bad_value_is_refused_by_name() {
        for (name, value, why) in [
            ("branch.id", "0", "0 is not in 1..=65535"),
            ("branch.id", "-1", "-1 is not in"),
            ("branch.dir", "", "must not be empty"),
            ("listen.address", "localhost", "is not an address with a port"),
            ("listen.address", "", "must not be empty"),
            ("workers.idle", "sleep", "`sleep` is not one of spin, yield, park"),
            ("journal.segment_len_bytes", "5000000", "is not a power of two"),
            ("registry.endpoints", "127.0.0.1:7421,registry", "`registry` is not a host with a port"),
            ("journal.io", "aio", "is not one of auto, uring, blocking"),
            ("limits.in_flight_max", "0", "0 is not in"),
            ("limits.frame_stall_ms", "0", "0 is not in"),
            ("log.level", "info=x=y", "info=x=y"),
            ("tls.cert_file", "/no/such/cert.pem", "/no/such/cert.pem: No such file"),
            ("tls.key_file", "none.key", "tally-data/none.key: No such file"),
        ] {
            let error = check(&[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(&format!("`{name}` (flag)")) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn paths_follow_their_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, key) = (folder.path().join("branch.toml"), folder.path().join("k.pem"));
        std::fs::write(&key, "").expect("written");
        let text = format!("[branch]\ndir = \"data\"\n[tls]\nkey_file = {key:?}\n");
        std::fs::write(&file, text).expect("written");
        let config = Config::check(&Layers::load(Some(&file), [], &[]).expect("loads")).expect("valid");
        assert_eq!(config.branch.dir, folder.path().join("data"));
        assert_eq!(config.tls.cert_file, folder.path().join("data/tls/server.pem"));
        assert_eq!(config.tls.key_file, key);
    }
}
