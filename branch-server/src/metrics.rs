//! Metrics: one table of names, and a page that is filled in when somebody scrapes.
//!
//! The parts of the branch count in plain atomics of their own; nothing of this runs on the way of a
//! payment. Units are base units (seconds, bytes), counters end in `_total`, and labels never hold an
//! account, a user or an address. The label `stage` has one value per stage of the pipeline.
//!
//! **Invariant:** every name that is put on a page is in [`METRICS`], with its help.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType};

use crate::histogram::{BOUNDS_US, Counts};

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

/// Every metric.
pub const METRICS: &[Metric] = &[
    gauge("tally_ready", "1 while the branch serves, 0 while it recovers or drains"),
    gauge("tally_start_time_seconds", "When the process began to serve, in seconds since 1970"),
    gauge(
        "tally_two_phase_linked",
        "1 while the registry's leader is reached; without it transfers between branches are refused",
    ),
    counter(
        "tally_two_phase_prepared_total",
        "Parts of transfers between branches that were held, by `leg`: source or destination",
    ),
    counter("tally_two_phase_refused_total", "Parts that this branch voted against as the destination"),
    counter(
        "tally_two_phase_decided_total",
        "Parts that the registry decided, by `outcome`: committed, kept (a hold that stands), or why aborted",
    ),
    counter("tally_two_phase_hold_ends_total", "Ends of holds carried out as the payee's branch, by `end`"),
    counter("tally_two_phase_asked_total", "Questions to the registry about parts that nobody decided"),
    counter(
        "tally_two_phase_contradictions_total",
        "Decisions that contradict this branch's journal: not carried out, somebody has to look",
    ),
    counter(
        "tally_two_phase_dropped_total",
        "Messages between registry and branch that were dropped and have to be said again",
    ),
    gauge("tally_two_phase_in_doubt", "Parts that are held and not decided"),
    gauge("tally_two_phase_in_doubt_age_seconds", "Age of the oldest of them"),
    gauge("tally_two_phase_holds_standing", "Holds between branches that stand, as either side"),
    gauge(
        "tally_two_phase_ends_untold",
        "Holds ended as the payer's branch, of which the payee's has not said that it knows",
    ),
    gauge("tally_two_phase_ends_untold_age_seconds", "Age of the oldest of them"),
    gauge("tally_accounts", "Accounts, closed ones included"),
    gauge("tally_holds_open", "Holds that are neither settled, voided nor expired, here and at the payee's branch"),
    counter("tally_transfers_total", "Transfers recorded, by result: posted or refused"),
    gauge("tally_stage_waiting", "Requests or replies that wait in front of a stage of the pipeline"),
    histogram("tally_stage_seconds", "How long requests took: in the intake, in worker and journal, and as a whole"),
    counter("tally_worker_cycles_total", "Duty cycles of the workers that had work"),
    counter("tally_worker_busy_seconds_total", "Time that the workers spent in them"),
    gauge("tally_worker_cycle_max_seconds", "The longest duty cycle since the last scrape"),
    gauge("tally_recovered_records", "Records that the start replayed"),
    counter("tally_connections_total", "Connections accepted"),
    gauge("tally_connections_open", "Connections, logged in or not"),
    counter("tally_connections_closed_total", "Connections that ended, by reason"),
    gauge("tally_sessions_open", "Sessions that are logged in"),
    counter("tally_logins_total", "Logins that went well"),
    counter("tally_session_frames_total", "Frames read from clients"),
    counter("tally_session_read_bytes_total", "Plaintext bytes read from clients"),
    counter("tally_session_reads_total", "Reads that brought something; frames / reads is how well clients coalesce"),
    counter("tally_session_replies_total", "Replies of the engine handed to sessions"),
    counter("tally_session_replies_dropped_total", "Replies for sessions that were gone"),
    counter("tally_session_written_bytes_total", "Plaintext bytes written to clients"),
    counter("tally_session_writes_total", "Writes; replies / writes is how well replies coalesce"),
    counter("tally_session_refused_total", "Frames that the sessions refused themselves, by refusal"),
    counter("tally_journal_flushes_total", "Groups made durable"),
    counter("tally_journal_records_total", "Records made durable; records / flushes is the group commit"),
    counter("tally_journal_written_bytes_total", "Bytes written, padding included"),
    histogram("tally_journal_flush_seconds", "How long one group took to become durable"),
    gauge("tally_journal_flush_max_seconds", "The longest of these since the last scrape"),
    gauge("tally_journal_durable_bytes", "The durable position"),
    gauge("tally_journal_checkpoint_bytes", "The position from which a restart would replay"),
    counter("tally_journal_sleeps_total", "Times that the flusher went to sleep for want of work"),
    counter("tally_journal_segments_total", "Segments begun"),
    counter("tally_journal_segments_unprepared_total", "Segments begun that had not been prepared in time"),
    counter("tally_journal_refused_total", "Writes refused for want of room, by what was full: ring or disk"),
    gauge("tally_ids_recent", "Transfer ids in memory that are not written out yet"),
    gauge("tally_ids_on_disk", "Transfer ids on disk"),
    gauge("tally_ids_runs", "Files that hold ids"),
    gauge("tally_ids_memory_bytes", "Memory of the id index, by part: recent or filters"),
    counter("tally_ids_disk_lookups_total", "Ids that were looked for on disk"),
    counter("tally_ids_disk_lookups_in_vain_total", "Of these, those that found nothing"),
    counter("tally_ids_written_bytes_total", "Bytes written to id files"),
    counter("tally_ids_errors_total", "Failures of the disk under the id index, and damage met"),
    gauge("tally_process_resident_bytes", "Memory of the process"),
    counter("tally_process_cpu_seconds_total", "CPU time of the process"),
    gauge("tally_process_threads", "Threads of the process"),
];

/// A page that is being filled in.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<MetricFamily>,
}

/// A label's name and value.
pub type Label<'a> = (&'static str, &'a str);

impl Page {
    /// Puts a counter or gauge on the page.
    pub fn put(&mut self, name: &'static str, labels: &[Label<'_>], value: f64) {
        let mut sample = sample(labels);
        match self.kind(name) {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Histogram => unreachable!("`{name}` is a histogram: use put_histogram"),
        }
        self.family(name).mut_metric().push(sample);
    }

    /// Puts a histogram on the page.
    pub fn put_histogram(&mut self, name: &'static str, labels: &[Label<'_>], counts: &Counts) {
        let mut cumulative = 0;
        let buckets = BOUNDS_US
            .iter()
            .zip(&counts.buckets)
            .map(|(&bound_us, &count)| {
                cumulative += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound_us as f64 / 1e6);
                bucket.set_cumulative_count(cumulative);
                bucket
            })
            .collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.buckets.iter().sum());
        histogram.set_sample_sum(counts.sum_ns as f64 / 1e9);
        let mut sample = sample(labels);
        sample.set_histogram(histogram);
        self.family(name).mut_metric().push(sample);
    }

    /// The page in Prometheus' text format.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.families).expect("families have names and samples")
    }

    fn kind(&self, name: &'static str) -> Kind {
        metric(name).kind
    }

    fn family(&mut self, name: &'static str) -> &mut MetricFamily {
        if let Some(index) = self.families.iter().position(|family| family.name() == name) {
            return &mut self.families[index];
        }
        let metric = metric(name);
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        self.families.push(family);
        self.families.last_mut().expect("just pushed")
    }
}

fn metric(name: &str) -> &'static Metric {
    METRICS.iter().find(|metric| metric.name == name).expect("every metric that is put on a page is in the table")
}

fn sample(labels: &[Label<'_>]) -> Sample {
    let label = |&(name, value): &Label<'_>| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    };
    Sample::from_label(labels.iter().map(label).collect())
}

/// `/proc` counts CPU time in this unit; fixed by the kernel's interface, whatever its own clock does.
const USER_TICKS_PER_SECOND: f64 = 100.0;

/// Puts what the kernel says about this process on the page; nothing where it does not say.
pub fn put_process(page: &mut Page) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The second field is the program's name in parentheses and may hold anything.
    if let Some((_, fields)) = stat.rsplit_once(')') {
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        page.put("tally_process_cpu_seconds_total", &[], (field(14) + field(15)) / USER_TICKS_PER_SECOND);
        page.put("tally_process_threads", &[], field(20));
    }
    let status = read("/proc/self/status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    if let Some(kibibytes) = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<f64>().ok()) {
        page.put("tally_process_resident_bytes", &[], kibibytes * 1024.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(metric.name.starts_with("tally_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
            assert!(METRICS[..index].iter().all(|earlier| earlier.name != metric.name), "{} twice", metric.name);
            for unit in ["_ms", "_us", "_ns", "_kib", "_mib"] {
                assert!(!metric.name.contains(unit), "{} is not in a base unit", metric.name);
            }
        }
    }

    #[test]
    fn a_page_reads_as_prometheus_expects() {
        let mut page = Page::default();
        page.put("tally_transfers_total", &[("result", "posted")], 3.0);
        page.put("tally_ready", &[], 1.0);
        page.put("tally_transfers_total", &[("result", "refused")], 1.0);
        let histogram = crate::histogram::Histogram::default();
        [900_000, 900_000, 9_000_000, 300_000_000].iter().for_each(|&time_ns| histogram.note(time_ns, 1));
        page.put_histogram("tally_stage_seconds", &[("stage", "whole")], &histogram.read());
        let text = page.text();
        for line in [
            "# TYPE tally_transfers_total counter",
            "tally_transfers_total{result=\"posted\"} 3",
            "tally_transfers_total{result=\"refused\"} 1",
            "# TYPE tally_ready gauge",
            "tally_ready 1",
            "tally_stage_seconds_bucket{stage=\"whole\",le=\"0.0005\"} 0",
            "tally_stage_seconds_bucket{stage=\"whole\",le=\"0.001\"} 2",
            "tally_stage_seconds_bucket{stage=\"whole\",le=\"0.01\"} 3",
            "tally_stage_seconds_bucket{stage=\"whole\",le=\"+Inf\"} 4",
            "tally_stage_seconds_sum{stage=\"whole\"} 0.3108",
            "tally_stage_seconds_count{stage=\"whole\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert_eq!(text.matches("# HELP tally_transfers_total").count(), 1);
    }

    #[test]
    fn the_process_is_seen() {
        let mut page = Page::default();
        put_process(&mut page);
        let text = page.text();
        let resident = text.lines().find(|line| line.starts_with("tally_process_resident_bytes")).expect("there");
        let bytes: f64 = resident.split(' ').nth(1).expect("a value").parse().expect("a number");
        assert!((1e6..1e11).contains(&bytes), "{bytes}");
    }
}
