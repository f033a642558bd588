//! The flags of `tally load`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, FromArgMatches as _, ValueEnum};
use tally_protocol::message::BATCH_LEN_MAX;

use crate::cli::{ConnectArgs, parse_count, parse_duration};

/// Puts load on a branch, measures it, and checks afterwards that every acknowledged transfer is there.
///
/// The check makes every unknown outcome final, compares every balance, and reads the branch's durable feed: each
/// acknowledged transfer must be in it once, as it was sent and with the outcome that was acknowledged. That takes
/// about 16 bytes of memory for each transfer (500 MB for 30,000,000), and a user who may read the feed.
///
/// Without --rate the loop is closed: each connection keeps --in-flight requests outstanding, and latency is
/// from sending to reply. With --rate it is open: requests have intended times, and latency counts from those,
/// so a branch that stalls is charged for everybody who would have been waiting.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// How to reach the branch.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Connections to the branch
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests outstanding on each connection (closed loop)
    #[arg(long, default_value_t = 16)]
    pub in_flight: usize,
    /// Requests per second over all connections: makes the loop open
    #[arg(long, value_parser = parse_count)]
    pub rate: Option<u64>,
    /// Open loop: this many requests in a row go to one connection before it is the next one's turn
    #[arg(long, default_value_t = 16)]
    pub run_len: u32,
    /// Open loop: how exactly requests keep their intended times; finer costs more processor time
    #[arg(long, default_value = "200us", value_parser = parse_duration)]
    pub tick: Duration,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long to run before measuring
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Accounts to open and spread the load over
    #[arg(long, default_value = "10k", value_parser = parse_count)]
    pub accounts: u64,
    /// The lowest local account number; by default one that was not used before
    #[arg(long, value_parser = parse_count)]
    pub accounts_base: Option<u64>,
    /// Which accounts: uniform, zipf:THETA (0.01 to 5), or one-hot (every transfer touches one account)
    #[arg(long, default_value = "uniform")]
    pub choice: Choice,
    /// Transfers per request; 0 for single transfers
    #[arg(long, default_value_t = 0)]
    pub batch: usize,
    /// Percentage of requests that read a balance instead
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    /// Percentage of transfers that go to accounts of another branch
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub cross: u8,
    /// The other branch; by default the first that the bank knows
    #[arg(long, value_name = "BRANCH")]
    pub to: Option<u16>,
    /// Give the accounts no money, so that every transfer is refused for insufficient funds
    #[arg(long)]
    pub refused: bool,
    /// How transfer ids are made
    #[arg(long, default_value = "v7")]
    pub ids: IdChoice,
    /// Three-letter currency
    #[arg(long, default_value = "EUR")]
    pub currency: String,
    /// What is checked afterwards
    #[arg(long, default_value = "exact")]
    pub verify: VerifyChoice,
    /// Threads that make the load
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Stop after this many transfers, if that is sooner than --duration (closed loop)
    #[arg(long, value_parser = parse_count)]
    pub transfers: Option<u64>,
    /// Start of the random choices; by default different each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies' percentile distribution (HdrHistogram's .hgrm text)
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// No line each second
    #[arg(long)]
    pub quiet: bool,
}

impl LoadArgs {
    /// What the flags' defaults say, against the branch of a connect file.
    pub fn new(connect: ConnectArgs) -> Self {
        // clap alone knows the defaults; reading an empty command line brings them out.
        let matches = Self::augment_args(clap::Command::new("load")).get_matches_from(["load"]);
        let args = Self::from_arg_matches(&matches).expect("every flag has a default or may be left out");
        Self { connect, ..args }
    }

    /// Refuses what cannot be run, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), String> {
        let checks = [
            (self.connections >= 1, "--connections must be at least 1"),
            (self.in_flight >= 1, "--in-flight must be at least 1"),
            (self.rate != Some(0), "--rate must be at least 1"),
            (self.run_len >= 1, "--run-len must be at least 1"),
            (!self.tick.is_zero(), "--tick must be longer than 0"),
            (!self.duration.is_zero(), "--duration must be longer than 0"),
            ((2..=u64::from(u32::MAX)).contains(&self.accounts), "--accounts must be 2 to 4,294,967,295"),
            (self.batch <= BATCH_LEN_MAX, "--batch must be at most 8190"),
            ((1..=self.connections).contains(&self.threads), "--threads must be 1 to the number of connections"),
            (self.transfers.is_none() || self.rate.is_none(), "--transfers goes without --rate"),
            (self.batch == 0 || self.cross == 0, "--cross goes with single transfers only"),
            (self.batch == 0 || self.reads == 0, "--reads goes with single transfers only"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, problem)) => Err((*problem).to_owned()),
            None => Ok(()),
        }
    }
}

/// Which accounts a transfer is between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Any two, evenly.
    Uniform,
    /// The account of rank r with a probability that falls as `1 / r^theta`, on both sides.
    Zipf {
        /// The exponent, above 0.
        theta: f64,
    },
    /// One side is always the same account.
    OneHot,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "one-hot" => Ok(Self::OneHot),
            None if text == "zipf" => Ok(Self::Zipf { theta: 0.99 }),
            Some(("zipf", theta)) => match theta.parse() {
                Ok(theta) if (0.01..=5.0).contains(&theta) => Ok(Self::Zipf { theta }),
                Ok(_) | Err(_) => Err(format!("zipf exponent {theta:?} is not a number from 0.01 to 5")),
            },
            _ => Err(format!("{text:?} is none of uniform, zipf:THETA, one-hot")),
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { theta } => write!(f, "zipf:{theta}"),
            Self::OneHot => f.write_str("one-hot"),
        }
    }
}

/// How transfer ids are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdChoice {
    /// 128 random bits: the worst case for an index of ids.
    Random,
    /// Time first, then random bits, as UUIDv7.
    V7,
    /// One after the other, from a random start.
    Sequence,
}

/// What is checked after the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyChoice {
    /// Every balance and every acknowledged transfer
    Exact,
    /// Every balance, and a sample of the acknowledged transfers
    Balances,
    /// A sample of both
    Sample,
    /// Nothing
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for text in ["uniform", "zipf:0.99", "zipf:1.2", "one-hot"] {
            assert_eq!(text.parse::<Choice>().map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "zipf:", "zipf:0", "zipf:nan", "zipf:9", "hot", "uniform:2"] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }
}
