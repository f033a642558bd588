//! The flags of `tally replay`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::ConnectArgs;

/// Plays the payments of a file as transfers, then reconciles every balance to the cent.
///
/// Rows come from CSV (plain or .zst) or parquet, with columns tx_id, t (seconds), customer_id, terminal_id or
/// merchant_id, and amount_cents; other columns are ignored. A transfer's id follows from the file and tx_id,
/// so a second replay is answered as repeats and changes nothing. Rows that the branch refuses are listed, and the
/// exit code is then 1.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The payments: .csv, .csv.zst or .parquet (plain or packed by any of snappy, gzip, lz4, brotli and zstd)
    pub file: PathBuf,
    /// How to reach the branch.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How many times faster than the file's own time, or `max` for as fast as the branch answers
    #[arg(long, default_value = "max", value_parser = parse_speed)]
    pub speed_up: Speed,
    /// Sessions to spread the rows over
    #[arg(long, default_value_t = 16)]
    pub sessions: usize,
    /// Requests outstanding on each session
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Let customers overdraw without limit, instead of paying in beforehand what they will spend
    #[arg(long)]
    pub overdraft: bool,
    /// Three-letter currency of the amounts
    #[arg(long, default_value = "EUR")]
    pub currency: String,
    /// Use only the first N rows
    #[arg(long, value_name = "N", value_parser = crate::cli::parse_count)]
    pub rows: Option<u64>,
    /// Sets this replay's accounts and ids apart from those of the same file with another tag
    #[arg(long, default_value = "")]
    pub tag: String,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No line each second
    #[arg(long)]
    pub quiet: bool,
}

/// How fast rows are played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the branch answers.
    Max,
    /// This many times the file's own time.
    Times(f64),
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => Ok(Speed::Max),
        _ => match text.trim_end_matches(['x', 'X']).parse() {
            Ok(times) if times > 0.0 && f64::is_finite(times) => Ok(Speed::Times(times)),
            Ok(_) | Err(_) => Err(format!("{text:?} is neither `max` nor a factor above 0")),
        },
    }
}
