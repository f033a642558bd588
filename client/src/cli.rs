//! What the tools' command lines share: how to reach a branch, how long something lasts, where results go.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

pub use crate::output::OutputFile;
use crate::{ConnectError, ConnectFile, ConnectInfo, Credentials};

/// Where the branch is and who is asking: a connect file, or all of it by hand.
#[derive(Args, Clone, Debug)]
pub struct ConnectArgs {
    /// The connect.json that `tally up` wrote into its data folder
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "ca"])]
    pub connect: Option<PathBuf>,
    /// host:port of the branch, instead of --connect
    #[arg(long, value_name = "HOST:PORT", requires_all = ["ca", "user", "password"])]
    pub endpoint: Option<String>,
    /// The name in the branch's certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub server_name: String,
    /// PEM file with the certificate that signed the branch's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Who to log in as; with --connect, by default the first admin or teller in the file
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The user's password; with --connect, by default the one in the file
    #[arg(long, env = "TALLY_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl ConnectArgs {
    /// The arguments that `--connect FILE` gives.
    pub fn from_file(connect: impl Into<PathBuf>) -> Self {
        Self {
            connect: Some(connect.into()),
            endpoint: None,
            server_name: "localhost".to_owned(),
            ca: None,
            user: None,
            password: None,
        }
    }

    /// What the arguments say together.
    pub fn connect_info(&self) -> Result<ConnectInfo, ConnectError> {
        let missing = |what: &str| ConnectError::Config(format!("{what} is needed, or --connect FILE"));
        if let Some(path) = &self.connect {
            let file = ConnectFile::read(path)?;
            return match (&self.user, &self.password) {
                (Some(user), Some(password)) => {
                    let credentials = Credentials::Password { user: user.clone(), password: password.clone() };
                    ConnectInfo::new(&*file.endpoint, &*file.server_name, &file.ca_file, credentials)
                }
                (user, None) => file.connect_info(user.as_deref()),
                (None, Some(_)) => Err(ConnectError::Config("--password goes with --user".to_owned())),
            };
        }
        let endpoint = self.endpoint.as_ref().ok_or_else(|| missing("--endpoint"))?;
        let ca = self.ca.as_ref().ok_or_else(|| missing("--ca"))?;
        let credentials = Credentials::Password {
            user: self.user.clone().ok_or_else(|| missing("--user"))?,
            password: self.password.clone().ok_or_else(|| missing("--password"))?,
        };
        ConnectInfo::new(&**endpoint, &*self.server_name, ca, credentials)
    }
}

/// Reads a length of time: `90`, `90s`, `1.5m`, `500ms`, `2h`. A bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.trim().parse().map_err(|_| format!("{text:?} is not a length of time, such as 90s"))?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        unit => return Err(format!("unit {unit:?} is not one of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text:?}: {error}"))
}

/// Reads a count with an optional suffix: `5000`, `10k`, `1.5M`, `100_000`.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let cleaned: String = text.trim().chars().filter(|&c| c != '_' && c != ',').collect();
    let (digits, factor) = match cleaned.char_indices().last() {
        Some((at, 'k' | 'K')) => (&cleaned[..at], 1e3),
        Some((at, 'm' | 'M')) => (&cleaned[..at], 1e6),
        Some((at, 'g' | 'G')) => (&cleaned[..at], 1e9),
        Some(_) => return cleaned.parse().map_err(|_| format!("{text:?} is not a count, such as 10k")),
        None => return Err("a count is missing".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a count, such as 10k"))?;
    let count = number * factor;
    if count.fract() == 0.0 && (0.0..9e15).contains(&count) {
        Ok(count as u64)
    } else {
        Err(format!("{text:?} is not a whole count"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let cases = [("90", 90_000), ("1.5m", 90_000), ("250ms", 250), (" 2h ", 7_200_000), ("3 s", 3_000)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "x", "3 parsecs", "-1s", "1e400"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts() {
        let cases = [("7", 7), ("10k", 10_000), ("1.5M", 1_500_000), ("1_000_000", 1_000_000), ("2g", 2_000_000_000)];
        for (text, count) in cases {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "k", "-3", "1.5", "0.0001k", "ten"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
