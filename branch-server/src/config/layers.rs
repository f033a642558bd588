//! Where each value comes from: the layers of the configuration, before they are checked.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::keys::{Default, KEYS, Key};

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Env(String),
    /// A command-line flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

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
    #[error("unknown key `{name}` ({from}){hint}")]
    UnknownKey {
        /// As it was written.
        name: String,
        /// Who wrote it.
        from: Source,
        /// `; did you mean ...?`, or nothing.
        hint: String,
    },
    /// The value is of the wrong kind or out of range.
    #[error("`{name}` ({from}): {why}")]
    Value {
        /// Which key.
        name: &'static str,
        /// Who set it.
        from: Source,
        /// What is expected instead.
        why: String,
    },
}

/// A value and who set it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// All keys with the value of the topmost layer that sets them.
#[derive(Clone, Debug)]
pub struct Layers {
    entries: Vec<Entry>,
}

impl std::default::Default for Layers {
    fn default() -> Self {
        let entry = |key: &'static Key| Entry {
            key,
            value: match key.default {
                Default::Integer(value) => Value::Integer(value),
                Default::Flag(value) => Value::Boolean(value),
                Default::Text(value) => Value::String(value.to_owned()),
            },
            source: Source::Default,
        };
        Self { entries: KEYS.iter().map(entry).collect() }
    }
}

impl Layers {
    /// Defaults, then `file` if given, then the environment, then `flags` (`section.key`, text).
    ///
    /// # Errors
    /// Names the first key or value that is not understood.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
            layers.apply_file(path, &text)?;
        }
        layers.apply_env(env)?;
        for (name, text) in flags {
            layers.set_text(name, text, Source::Flag)?;
        }
        Ok(layers)
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let source = Source::File(path.to_owned());
        let table: toml::Table =
            text.parse().map_err(|error| ConfigError::Syntax { path: path.to_owned(), error: Box::new(error) })?;
        for (section, values) in table {
            let Value::Table(values) = values else {
                return Err(unknown(&section, source));
            };
            for (key, value) in values {
                self.set(&format!("{section}.{key}"), value, source.clone())?;
            }
        }
        Ok(())
    }

    fn apply_env(&mut self, env: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (name, text) in env {
            if !name.starts_with("TALLY_") {
                continue;
            }
            match KEYS.iter().find(|key| key.env_name() == name) {
                Some(key) => self.set_text(key.name, &text, Source::Env(name))?,
                // Only names of our own sections are ours: TALLY_LOAD_SOMETHING may be another tool's.
                None if KEYS.iter().any(|key| name.starts_with(&section_env_prefix(key))) => {
                    return Err(unknown(&name, Source::Env(name.clone())));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Sets a key from text, as environment and flags give it.
    fn set_text(&mut self, name: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown(name, source.clone()))?;
        let value = match key.default {
            Default::Integer(_) => text.replace('_', "").parse().ok().map(Value::Integer),
            Default::Flag(_) => text.parse().ok().map(Value::Boolean),
            Default::Text(_) => Some(Value::String(text.to_owned())),
        };
        let value = value.ok_or_else(|| wrong_kind(key, &source, &format!("`{text}`")))?;
        self.set(name, value, source)
    }

    fn set(&mut self, name: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.key.name == name)
            .ok_or_else(|| unknown(name, source.clone()))?;
        let fits = match entry.key.default {
            Default::Integer(_) => value.is_integer(),
            Default::Flag(_) => value.is_bool(),
            Default::Text(_) => value.is_str(),
        };
        if !fits {
            return Err(wrong_kind(entry.key, &source, &format!("a value of kind {}", value.type_str())));
        }
        entry.value = value;
        entry.source = source;
        Ok(())
    }

    /// Every key with its value as TOML and its source, in the table's order.
    pub fn show(&self) -> impl Iterator<Item = (&'static Key, String, &Source)> {
        self.entries.iter().map(|entry| (entry.key, entry.value.to_string(), &entry.source))
    }

    /// The entry of a key of the table.
    ///
    /// # Panics
    /// When the table has no such key: a slip in `checked.rs`, which its tests would show.
    pub(super) fn entry(&self, name: &str) -> &Entry {
        self.entries.iter().find(|entry| entry.key.name == name).expect("asked for by a name of the table")
    }
}

fn section_env_prefix(key: &Key) -> String {
    let section = key.name.split('.').next().unwrap_or_default();
    format!("TALLY_{}_", section.to_ascii_uppercase())
}

fn wrong_kind(key: &'static Key, source: &Source, found: &str) -> ConfigError {
    let expected = match key.default {
        Default::Integer(_) => "a whole number",
        Default::Flag(_) => "true or false",
        Default::Text(_) => "text",
    };
    ConfigError::Value { name: key.name, from: source.clone(), why: format!("expected {expected}, found {found}") }
}

fn unknown(name: &str, from: Source) -> ConfigError {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hint = KEYS
        .iter()
        .find(|key| key.name.rsplit('.').next() == Some(last))
        .map_or(String::new(), |key| format!("; did you mean `{}`?", key.name));
    ConfigError::UnknownKey { name: name.to_owned(), from, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Layers, ConfigError> {
        let own = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut layers = Layers::default();
        layers.apply_file(Path::new("t.toml"), file)?;
        layers.apply_env(own(env))?;
        for (name, text) in own(flags) {
            layers.set_text(&name, &text, Source::Flag)?;
        }
        Ok(layers)
    }

    #[test]
    fn a_later_layer_wins_and_is_named() {
        let file = "[branch]\nid = 2\n[listen]\nsession_threads = 3\n[limits]\nin_flight_max = 7\n";
        let env = [("TALLY_LISTEN_SESSION_THREADS", "4"), ("TALLY_LIMITS_IN_FLIGHT_MAX", "8"), ("OTHER", "x")];
        let layers = layers(file, &env, &[("limits.in_flight_max", "9")]).expect("all good");
        let found = |name| (layers.entry(name).value.to_string(), layers.entry(name).source.to_string());
        assert_eq!(found("branch.id"), ("2".into(), "file t.toml".into()));
        assert_eq!(found("listen.session_threads"), ("4".into(), "env TALLY_LISTEN_SESSION_THREADS".into()));
        assert_eq!(found("limits.in_flight_max"), ("9".into(), "flag".into()));
        assert_eq!(found("log.level"), ("\"info\"".into(), "default".into()));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let cases: [(&str, &[(&str, &str)], &[(&str, &str)], &str); 7] = [
            ("[branch]\nidd = 2", &[], &[], "unknown key `branch.idd` (file t.toml)"),
            ("[journal]\npin = true", &[], &[], "did you mean `workers.pin`?"),
            ("id = 2", &[], &[], "unknown key `id`"),
            ("[branch]\nid = \"two\"", &[], &[], "`branch.id` (file t.toml): expected a whole number"),
            ("", &[("TALLY_BRANCH_ID", "two")], &[], "`branch.id` (env TALLY_BRANCH_ID): expected a whole number"),
            ("", &[("TALLY_BRANCH_IDD", "2")], &[], "unknown key `TALLY_BRANCH_IDD`"),
            ("", &[], &[("workers.pin", "maybe")], "`workers.pin` (flag): expected true or false"),
        ];
        for (file, env, flags, expected) in cases {
            let error = layers(file, env, flags).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = layers("[branch", &[], &[]).expect_err("not TOML").to_string();
        assert!(error.contains("t.toml"), "{error}");
    }

    #[test]
    fn other_tools_variables_are_left_alone() {
        assert!(layers("", &[("TALLY_BENCH_ROWS", "3")], &[]).is_ok());
    }
}
