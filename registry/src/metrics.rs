//! Metrics: one table of names, and a page that is made when somebody scrapes.
//!
//! **Invariant:** every name that is put on a page is in [`METRICS`], with its help.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_journal::histogram::{BOUNDS_US, Counts, Histogram};

use crate::clock::wall;
use crate::core::Core;
use crate::server::Node;

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What the value means to an operator.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}
const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}
const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, help }
}

/// Every metric of a registry node.
pub const METRICS: &[Metric] = &[
    gauge("tally_registry_ready", "1 while the node leads, or follows a leader that it knows"),
    gauge("tally_registry_leading", "1 while the node leads and serves; of all nodes exactly one should"),
    gauge("tally_registry_term", "The election that the node is in; rising often means that leaders are lost"),
    gauge("tally_registry_voters", "Nodes that vote"),
    gauge("tally_registry_applied_index", "The last entry of the log that was applied"),
    gauge("tally_registry_log_index", "The last entry of the log"),
    gauge("tally_registry_replication_lag_entries", "At the leader: entries that a node has not confirmed, by node"),
    counter("tally_registry_led_total", "Times that the node began to lead"),
    counter("tally_registry_batches_total", "Batches proposed; commands / batches is how well decisions share a flush"),
    counter("tally_registry_batch_bytes_total", "Bytes in them"),
    counter("tally_registry_commands_total", "Commands applied"),
    histogram("tally_registry_commit_seconds", "From proposal to application of a batch"),
    histogram("tally_registry_flush_seconds", "How long one group of the log took to become durable"),
    counter("tally_registry_flushes_total", "Groups of the log made durable"),
    counter("tally_registry_log_written_bytes_total", "Bytes written to the log, padding included"),
    gauge("tally_registry_log_writable", "0 while the disk is nearly full"),
    counter("tally_registry_snapshots_total", "Snapshots begun"),
    gauge("tally_registry_branches", "Branches by status: serving, draining, suspect, down or left"),
    gauge("tally_registry_branch_links", "Branches with a link to this node"),
    gauge("tally_registry_transfers", "Transfers in hand by state: collecting, deciding or decided"),
    gauge("tally_registry_undecided_age_seconds", "Age of the oldest transfer that is not decided"),
    gauge("tally_registry_decisions", "Decisions in the state: open (not acknowledged by all) or remembered"),
    counter("tally_registry_begun_total", "Transfers begun since the node began to lead"),
    counter("tally_registry_decided_total", "Decisions since then, by outcome: commit or abort"),
    counter("tally_registry_done_total", "Transfers that all branches have carried out since then"),
    counter("tally_registry_busy_total", "Begins since then that found no room, or no destination"),
    counter("tally_registry_repeated_total", "Items said again since then because time had passed"),
    counter("tally_registry_dropped_total", "Items since then that found a link's queue full; a timer says them again"),
    counter("tally_registry_ends_total", "Ends of holds between branches passed on since then, repeats included"),
    counter(
        "tally_registry_contradictions_total",
        "Messages since then that break the rules of two-phase commit; any is a bug or a restored backup",
    ),
    counter("tally_registry_connections_total", "Connections accepted"),
    gauge("tally_registry_connections_open", "Connections that are open"),
    counter("tally_registry_refused_total", "Links refused"),
    counter("tally_registry_stamps_refused_total", "Frames whose stamp was too far ahead for the clock to follow"),
    counter("tally_registry_link_frames_total", "Frames read from branches"),
    counter("tally_registry_link_items_total", "Items in them; items / frames is how well branches coalesce"),
    counter("tally_registry_link_written_bytes_total", "Bytes written to branches"),
];

/// A histogram of times that only the node's thread writes.
#[derive(Debug, Default)]
pub struct Timing(Histogram);

impl Timing {
    /// Notes one time.
    pub fn note(&self, time: Duration) {
        self.0.note(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1), 1);
    }
}

/// A page in Prometheus' text format.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    last: &'static str,
}

impl Page {
    /// Puts a counter or gauge on the page. Samples of one name follow each other.
    pub fn put(&mut self, name: &'static str, label: Option<(&'static str, &str)>, value: f64) {
        self.begin(name);
        let label = label.map_or(String::new(), |(key, value)| format!("{{{key}=\"{value}\"}}"));
        writeln!(self.text, "{name}{label} {value}").expect("a string takes all");
    }

    /// Puts a histogram on the page.
    pub fn put_histogram(&mut self, name: &'static str, counts: &Counts) {
        self.begin(name);
        let mut sum = 0;
        for (bound_us, count) in BOUNDS_US.iter().zip(counts.buckets) {
            sum += count;
            writeln!(self.text, "{name}_bucket{{le=\"{}\"}} {sum}", *bound_us as f64 / 1e6)
                .expect("a string takes all");
        }
        let count: u64 = counts.buckets.iter().sum();
        let seconds = counts.sum_ns as f64 / 1e9;
        write!(self.text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}\n")
            .expect("a string takes all");
    }

    /// The page.
    pub fn text(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &'static str) {
        if self.last != name {
            let metric = METRICS.iter().find(|metric| metric.name == name).expect("every metric is in the table");
            let kind = format!("{:?}", metric.kind).to_lowercase();
            writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help).expect("a string takes all");
            self.last = name;
        }
    }
}

/// Everything about `node`.
pub fn page(node: &Node) -> String {
    let mut page = Page::default();
    page.put("tally_registry_ready", None, f64::from(u8::from(node.leader().is_some())));
    let core = node.shared.lock();
    page.put("tally_registry_leading", None, f64::from(u8::from(core.leading.is_some())));
    put_raft(&mut page, node, core.commands_applied);
    put_state(&mut page, &core);
    drop(core);
    let counters = &node.counters;
    for (name, count) in [
        ("tally_registry_connections_total", &counters.connections),
        ("tally_registry_connections_open", &counters.connections_open),
        ("tally_registry_refused_total", &counters.refused),
        ("tally_registry_stamps_refused_total", &node.shared.stamps_refused),
        ("tally_registry_link_frames_total", &counters.frames),
        ("tally_registry_link_items_total", &counters.items),
        ("tally_registry_link_written_bytes_total", &counters.written_bytes),
    ] {
        page.put(name, None, count.load(Ordering::Relaxed) as f64);
    }
    page.text()
}

fn put_raft(page: &mut Page, node: &Node, commands_applied: u64) {
    let Some(running) = node.running() else { return };
    let metrics = running.raft.metrics().borrow().clone();
    let last = metrics.last_log_index.unwrap_or(0);
    page.put("tally_registry_term", None, metrics.current_term as f64);
    page.put("tally_registry_voters", None, metrics.membership_config.membership().voter_ids().count() as f64);
    page.put("tally_registry_applied_index", None, metrics.last_applied.map_or(0, |log_id| log_id.index) as f64);
    page.put("tally_registry_log_index", None, last as f64);
    for (id, confirmed) in metrics.replication.iter().flatten() {
        let lag = last.saturating_sub(confirmed.map_or(0, |log_id| log_id.index));
        page.put("tally_registry_replication_lag_entries", Some(("node", &id.to_string())), lag as f64);
    }
    let counters = &node.counters;
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    page.put("tally_registry_led_total", None, count(&counters.led));
    page.put("tally_registry_batches_total", None, count(&counters.batches));
    page.put("tally_registry_batch_bytes_total", None, count(&counters.batch_bytes));
    page.put("tally_registry_commands_total", None, commands_applied as f64);
    page.put_histogram("tally_registry_commit_seconds", &counters.commit.0.read());
    let journal = running.log.stats();
    page.put_histogram("tally_registry_flush_seconds", &journal.flush_times.read());
    page.put("tally_registry_flushes_total", None, count(&journal.flushes));
    page.put("tally_registry_log_written_bytes_total", None, count(&journal.written_len_bytes));
    page.put("tally_registry_log_writable", None, f64::from(u8::from(running.log.writable())));
    page.put("tally_registry_snapshots_total", None, count(&running.snapshots_built));
}

fn put_state(page: &mut Page, core: &Core) {
    use tally_protocol::link::BranchStatus::{Down, Draining, Left, Serving, Suspect};
    for status in [Serving, Draining, Suspect, Down, Left] {
        let count = core.state.directory.branches.values().filter(|entry| entry.status == status).count();
        page.put("tally_registry_branches", Some(("status", status.name())), count as f64);
    }
    if let Some(leading) = &core.leading {
        page.put("tally_registry_branch_links", None, leading.connected().count() as f64);
        let census = leading.coordinators.census();
        for (state, count) in
            [("collecting", census.collecting), ("deciding", census.deciding), ("decided", census.decided)]
        {
            page.put("tally_registry_transfers", Some(("state", state)), count as f64);
        }
        let age_ns = census.oldest_undecided.map_or(0, |since| wall().as_nanos().saturating_sub(since.as_nanos()));
        page.put("tally_registry_undecided_age_seconds", None, age_ns as f64 / 1e9);
    }
    let decisions = &core.state.decisions;
    page.put("tally_registry_decisions", Some(("state", "open")), decisions.open_count() as f64);
    page.put("tally_registry_decisions", Some(("state", "remembered")), decisions.done_count() as f64);
    if let Some(leading) = &core.leading {
        let counters = leading.coordinators.counters();
        page.put("tally_registry_begun_total", None, counters.begun as f64);
        page.put("tally_registry_decided_total", Some(("outcome", "commit")), counters.committed as f64);
        page.put("tally_registry_decided_total", Some(("outcome", "abort")), counters.aborted as f64);
        page.put("tally_registry_done_total", None, counters.done as f64);
        page.put("tally_registry_busy_total", None, counters.busy as f64);
        page.put("tally_registry_repeated_total", None, counters.repeated as f64);
        page.put("tally_registry_dropped_total", None, counters.dropped as f64);
        page.put("tally_registry_ends_total", None, counters.ends as f64);
        page.put("tally_registry_contradictions_total", None, counters.contradictions as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(metric.name.starts_with("tally_registry_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
            assert!(METRICS[..index].iter().all(|earlier| earlier.name != metric.name), "{} twice", metric.name);
        }
    }

    #[test]
    fn a_page_reads_as_prometheus_expects() {
        let mut page = Page::default();
        page.put("tally_registry_decided_total", Some(("outcome", "commit")), 3.0);
        page.put("tally_registry_decided_total", Some(("outcome", "abort")), 1.0);
        let timing = Timing::default();
        timing.note(Duration::from_micros(900));
        timing.note(Duration::from_secs(1));
        page.put_histogram("tally_registry_commit_seconds", &timing.0.read());
        let text = page.text();
        for line in [
            "# TYPE tally_registry_decided_total counter",
            "tally_registry_decided_total{outcome=\"commit\"} 3",
            "tally_registry_decided_total{outcome=\"abort\"} 1",
            "# TYPE tally_registry_commit_seconds histogram",
            "tally_registry_commit_seconds_bucket{le=\"0.0005\"} 0",
            "tally_registry_commit_seconds_bucket{le=\"0.001\"} 1",
            "tally_registry_commit_seconds_bucket{le=\"+Inf\"} 2",
            "tally_registry_commit_seconds_sum 1.0009",
            "tally_registry_commit_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert_eq!(text.matches("# HELP tally_registry_decided_total").count(), 1);
    }
}
