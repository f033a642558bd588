//! From the counters of the parts to the metrics page.

use std::sync::atomic::Ordering;

use tally_protocol::Timestamp;

use crate::branch::{Branch, BranchStats};
use crate::clock;
use crate::metrics::Page;
use crate::session::{Backend, CloseReason, SessionStats};
use crate::two_phase::{ABORT_REASONS, HOLD_ENDS, TwoPhase};

pub(super) fn branch(page: &mut Page, branch: &Branch) {
    let stats = branch.stats();
    let status = branch.status();
    page.put("tally_start_time_seconds", &[], status.started_at.get() as f64 / 1e9);
    page.put("tally_accounts", &[], stats.accounts as f64);
    page.put("tally_holds_open", &[], stats.open_holds as f64);
    page.put("tally_transfers_total", &[("result", "posted")], stats.posted as f64);
    page.put("tally_transfers_total", &[("result", "refused")], stats.refused as f64);
    for (class, depth) in ["control", "two_phase", "interactive", "bulk"].into_iter().zip(stats.intake_depths) {
        page.put("tally_stage_waiting", &[("stage", "intake"), ("class", class)], depth as f64);
    }
    page.put("tally_stage_waiting", &[("stage", "lookup"), ("class", "all")], stats.lookups_out as f64);
    page.put("tally_worker_cycles_total", &[], stats.cycles as f64);
    page.put("tally_worker_busy_seconds_total", &[], stats.busy_ns as f64 / 1e9);
    page.put("tally_worker_cycle_max_seconds", &[], branch.take_cycle_max_ns() as f64 / 1e9);
    page.put("tally_recovered_records", &[], stats.recovered_records as f64);
    page.put("tally_journal_durable_bytes", &[], status.durable.get() as f64);
    page.put("tally_journal_checkpoint_bytes", &[], status.checkpoint.get() as f64);
    let ids = stats.ids;
    page.put("tally_ids_recent", &[], ids.recent_count as f64);
    page.put("tally_ids_on_disk", &[], ids.disk_entry_count as f64);
    page.put("tally_ids_runs", &[], ids.run_count as f64);
    page.put("tally_ids_memory_bytes", &[("part", "recent")], ids.recent_len_bytes as f64);
    page.put("tally_ids_memory_bytes", &[("part", "filters")], ids.filter_len_bytes as f64);
    page.put("tally_ids_disk_lookups_total", &[], ids.look_ups as f64);
    page.put("tally_ids_disk_lookups_in_vain_total", &[], ids.look_ups_in_vain as f64);
    page.put("tally_ids_written_bytes_total", &[], ids.written_len_bytes as f64);
    page.put("tally_ids_errors_total", &[], ids.errors as f64);
    journal(page, branch);
    if let Some(shared) = branch.two_phase() {
        two_phase(page, shared, &stats);
    }
}

fn two_phase(page: &mut Page, two_phase: &TwoPhase, branch: &BranchStats) {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let stats = &two_phase.stats;
    page.put("tally_two_phase_linked", &[], f64::from(u8::from(two_phase.is_linked())));
    page.put("tally_two_phase_prepared_total", &[("leg", "source")], count(&stats.begun));
    page.put("tally_two_phase_prepared_total", &[("leg", "destination")], count(&stats.prepared));
    page.put("tally_two_phase_refused_total", &[], count(&stats.refused));
    page.put("tally_two_phase_decided_total", &[("outcome", "committed")], count(&stats.committed));
    for (reason, counter) in ABORT_REASONS.into_iter().zip(&stats.aborted) {
        page.put("tally_two_phase_decided_total", &[("outcome", reason)], count(counter));
    }
    page.put("tally_two_phase_decided_total", &[("outcome", "kept")], count(&stats.kept));
    for (end, counter) in HOLD_ENDS.iter().zip(&stats.ended) {
        page.put("tally_two_phase_hold_ends_total", &[("end", end)], count(counter));
    }
    page.put("tally_two_phase_asked_total", &[], count(&stats.asked));
    page.put("tally_two_phase_contradictions_total", &[], count(&stats.contradictions));
    page.put("tally_two_phase_dropped_total", &[], count(&stats.dropped));
    let age = |oldest: Option<Timestamp>| {
        oldest.map_or(0.0, |oldest| clock::wall().as_nanos().saturating_sub(oldest.as_nanos()) as f64 / 1e9)
    };
    let (in_doubt, oldest) = two_phase.doubts.summary();
    page.put("tally_two_phase_in_doubt", &[], in_doubt as f64);
    page.put("tally_two_phase_in_doubt_age_seconds", &[], age(oldest));
    let (untold, oldest) = branch.ends_untold;
    page.put("tally_two_phase_holds_standing", &[], branch.standing_holds as f64);
    page.put("tally_two_phase_ends_untold", &[], untold as f64);
    page.put("tally_two_phase_ends_untold_age_seconds", &[], age(oldest));
}

fn journal(page: &mut Page, branch: &Branch) {
    let stats = branch.journal().stats();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    page.put("tally_journal_flushes_total", &[], count(&stats.flushes));
    page.put("tally_journal_records_total", &[], count(&stats.records));
    page.put("tally_journal_written_bytes_total", &[], count(&stats.written_len_bytes));
    page.put("tally_journal_sleeps_total", &[], count(&stats.sleeps));
    page.put("tally_journal_segments_total", &[], count(&stats.segments));
    page.put("tally_journal_segments_unprepared_total", &[], count(&stats.segments_unprepared));
    let refused = branch.journal().refused();
    page.put("tally_journal_refused_total", &[("full", "ring")], count(&refused.ring));
    page.put("tally_journal_refused_total", &[("full", "disk")], count(&refused.disk));
    page.put_histogram("tally_journal_flush_seconds", &[], &stats.flush_times.read());
    let flush_max_ns = stats.flush_max_ns.swap(0, Ordering::Relaxed);
    page.put("tally_journal_flush_max_seconds", &[], flush_max_ns as f64 / 1e9);
}

pub(super) fn sessions(page: &mut Page, stats: &SessionStats) {
    page.put("tally_connections_total", &[], stats.total(|thread| &thread.connections) as f64);
    page.put("tally_connections_open", &[], stats.total(|thread| &thread.connections_open) as f64);
    for &reason in CloseReason::ALL {
        page.put("tally_connections_closed_total", &[("reason", reason.name())], stats.closed(reason) as f64);
    }
    page.put("tally_sessions_open", &[], stats.total(|thread| &thread.sessions_open) as f64);
    page.put("tally_logins_total", &[], stats.total(|thread| &thread.logins) as f64);
    page.put("tally_session_frames_total", &[], stats.total(|thread| &thread.frames) as f64);
    page.put("tally_session_read_bytes_total", &[], stats.total(|thread| &thread.read_bytes) as f64);
    page.put("tally_session_reads_total", &[], stats.total(|thread| &thread.reads) as f64);
    page.put("tally_session_replies_total", &[], stats.total(|thread| &thread.replies) as f64);
    page.put("tally_session_replies_dropped_total", &[], stats.total(|thread| &thread.replies_dropped) as f64);
    page.put("tally_session_written_bytes_total", &[], stats.total(|thread| &thread.written_bytes) as f64);
    page.put("tally_session_writes_total", &[], stats.total(|thread| &thread.writes) as f64);
    for (refusal, count) in stats.refused() {
        page.put("tally_session_refused_total", &[("refusal", refusal.name())], count as f64);
    }
    for (stage, counts) in stats.stage_times() {
        page.put_histogram("tally_stage_seconds", &[("stage", stage)], &counts);
    }
    let in_flight = stats.total(|thread| &thread.in_flight) as f64;
    page.put("tally_stage_waiting", &[("stage", "session"), ("class", "all")], in_flight);
}
