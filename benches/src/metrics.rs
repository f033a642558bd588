//! Asks a bank for its own metrics: one HTTP request, plain text back.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Samples by name, summed over their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Fetches `url`, such as `http://127.0.0.1:9100/metrics`.
    pub(crate) fn fetch(url: &str) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("not an http address: {url}"));
        let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut sums = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("tally_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let name = name.split('{').next().unwrap_or(name);
            *sums.entry(name.to_owned()).or_default() += value;
        }
        Self(sums)
    }

    /// The sample called `name`, if the bank has it.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_labels() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP tally_a x\n# TYPE tally_a counter\ntally_a{kind=\"x\"} 1\n\
                    tally_a{kind=\"y\"} 2.5\ntally_b 7\nother 9\n";
        let metrics = Metrics::parse(text);
        assert_eq!(
            (metrics.get("tally_a"), metrics.get("tally_b"), metrics.get("other")),
            (Some(3.5), Some(7.0), None)
        );
    }
}
