//! `tally replay`: plays the payments of a file as transfers, then reconciles every balance to the last cent.
//!
//! **Invariant:** a replay succeeds only if every row that moves something is posted, now or earlier. It agrees only if
//! every account that the file touches holds what it held before, plus what the file says of the rows that this replay
//! posted. Rows that an earlier replay posted change nothing.

mod args;
mod bank;
mod book;
mod names;
mod payments;
mod report;
mod traffic;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tally_protocol::message::Transfer;
use tally_protocol::{Amount, Currency, Lsn};

pub use args::{ReplayArgs, Speed};
pub use report::{RefusedRow, ReplayReport};

use crate::cli::OutputFile;
use crate::lane::{Clock, LaneOptions, LaneRun, LaneStats, run_lanes};
use crate::load::{Grouped, Micros};
use crate::{Between, Dialer, Money, bulk, transfers};
use book::{Entry, Parties, Party};
use names::Names;
use payments::Payment;
use traffic::{Rows, due_times};

/// How exactly rows are sent at their time.
const TICK: Duration = Duration::from_micros(200);
/// How long a lost connection may take to come back before the replay is given up.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Deposits in flight while customers are given their money.
const FUNDING: LaneOptions = LaneOptions::for_work(4, 64);
/// Mismatches told in words.
const EXAMPLES_MAX: usize = 5;

/// Runs `tally replay` to the end. The exit code is 0 only when every row that moves something is posted and every balance agrees.
///
/// Blocks, and makes runtimes of its own: not to be called inside one.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let json = args.json.as_deref().map(OutputFile::open).transpose()?;
    let report = execute(args)?;
    if let Some(mut json) = json {
        json.write_json(&report)?;
    }
    print!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replays and reconciles, and returns how it went.
pub fn execute(args: &ReplayArgs) -> anyhow::Result<ReplayReport> {
    anyhow::ensure!(args.sessions >= 1 && args.in_flight >= 1, "--sessions and --in-flight must be at least 1");
    let currency = Currency::from_code(&args.currency)
        .ok_or_else(|| anyhow::anyhow!("currency {:?} is not known", args.currency))?;
    let rows_max = args.rows.map_or(usize::MAX, |rows| rows as usize);
    let payments = payments::read(&args.file, rows_max)?;
    payments::check(&payments)?;
    let parties = Parties::of(&payments);
    let deposits = if args.overdraft { Vec::new() } else { parties.spending(&payments)? };

    let dialer = Arc::new(Dialer::new(args.connect.connect_info()?)?);
    let session = LaneRun::connect(&dialer, bulk::ONE)?.session();
    let file_tag = payments::file_tag(&args.file)?;
    let names = Names::new(session.branch_id, &file_tag, &args.tag, payments.len(), currency);
    let shape = Shape { names, currency };

    bank::open(&dialer, names, parties.list(), currency, args.overdraft)?;
    let start_lsn = bulk::durable(&dialer)?;
    let before = bank::balances(&dialer, names, parties.list())?;
    let deposit_entries = fund(&dialer, shape, &deposits, start_lsn)?;
    let payments = Arc::new(payments);
    let played = play(&dialer, shape, &payments, start_lsn, args)?;

    let mut report = played.report;
    report.currency.clone_from(&args.currency);
    report.customers = parties.list().iter().filter(|party| matches!(party, Party::Customer(_))).count() as u64;
    report.payees = parties.list().len() as u64 - report.customers;
    for (payment, &entry) in payments.iter().zip(&played.entries) {
        report.count(entry, payment);
    }
    let expected = parties.expected(&before, &deposits, &deposit_entries, &payments, &played.entries);
    reconcile(&dialer, names, parties.list(), &expected, &mut report)?;
    Ok(report)
}

/// What all transfers of a replay have in common.
#[derive(Clone, Copy)]
struct Shape {
    names: Names,
    currency: Currency,
}

impl Shape {
    fn money(&self, minor_units: u64) -> Money {
        Money { amount: Amount::new(minor_units), currency: self.currency }
    }

    fn deposit(&self, customer_id: u64, amount: u64) -> Transfer {
        transfers::deposit(self.names.deposit(customer_id), self.names.customer(customer_id), self.money(amount))
    }

    fn payment(&self, payment: &Payment) -> Transfer {
        let between = Between {
            debit_account_id: self.names.customer(payment.customer_id),
            credit_account_id: self.names.payee(payment.payee_id),
        };
        let id = self.names.transfer(payment.tx_id);
        let mut transfer = transfers::transfer(id, between, self.money(payment.amount));
        // The file's own time, for whoever looks the payment up later.
        transfer.user_data_64.set(payment.t);
        transfer
    }
}

/// Pays in what each customer will spend.
fn fund(dialer: &Arc<Dialer>, shape: Shape, deposits: &[(u64, u64)], start_lsn: Lsn) -> anyhow::Result<Vec<Entry>> {
    let made = deposits.to_vec();
    let rows = Rows::new(deposits.len(), start_lsn, Vec::new(), move |index| {
        let (customer_id, amount) = made[index];
        shape.deposit(customer_id, amount)
    });
    let (rows, _) = run_lanes(dialer, FUNDING, rows)?;
    for (entry, &(customer_id, amount)) in rows.entries().iter().zip(deposits) {
        if let Entry::Refused(code) = entry
            && amount > 0
        {
            let refused = crate::Refused::of_code(*code);
            anyhow::bail!("deposit of {amount} for customer {customer_id} was refused: {refused}");
        }
    }
    Ok(rows.entries().to_vec())
}

struct Played {
    entries: Vec<Entry>,
    report: ReplayReport,
}

fn play(
    dialer: &Arc<Dialer>,
    shape: Shape,
    payments: &Arc<Vec<Payment>>,
    start_lsn: Lsn,
    args: &ReplayArgs,
) -> anyhow::Result<Played> {
    let options = LaneOptions {
        lane_count: args.sessions,
        in_flight: args.in_flight,
        tick: TICK,
        reconnect_within: RECONNECT_WITHIN,
    };
    let due = due_times(args.speed_up, payments.iter().map(|payment| payment.t));
    let made = Arc::clone(payments);
    let rows = Rows::new(payments.len(), start_lsn, due, move |index| shape.payment(&made[index]));
    let rows = Rc::new(RefCell::new(rows));
    let lanes = LaneRun::connect(dialer, options)?;
    let clock = Clock::start();
    let telling = tell_progress(Rc::clone(&rows), payments.len() as u64, args.quiet);
    let LaneStats { reconnects } = lanes.run(Rc::clone(&rows), clock, telling)?;
    let seconds = clock.now() as f64 / 1e9;
    let rows = rows.borrow();
    if let Some(problem) = &rows.problem {
        anyhow::bail!("the branch answered a transfer with something else: {problem}");
    }
    let report = ReplayReport {
        seconds,
        rows_per_second: payments.len() as f64 / seconds,
        p50_us: rows.latencies.quantile_us(0.5),
        p99_us: rows.latencies.quantile_us(0.99),
        p999_us: rows.latencies.quantile_us(0.999),
        busy: rows.busy,
        reconnects,
        ..ReplayReport::default()
    };
    Ok(Played { entries: rows.entries().to_vec(), report })
}

async fn tell_progress<F: Fn(usize) -> Transfer>(rows: Rc<RefCell<Rows<F>>>, count: u64, quiet: bool) {
    let mut answered = 0;
    for second in 1.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rows = rows.borrow();
        let (rate, share) = (rows.answered - answered, rows.answered as f64 / count as f64 * 100.0);
        answered = rows.answered;
        if !quiet {
            let p99 = Micros(rows.latencies.quantile_us(0.99));
            eprintln!("{second:>5} s {share:>6.1} %  {:>10}/s  p99 {p99}", Grouped(rate));
        }
    }
}

/// Compares every balance with our own sum.
fn reconcile(
    dialer: &Arc<Dialer>,
    names: Names,
    parties: &[Party],
    expected: &[i128],
    report: &mut ReplayReport,
) -> anyhow::Result<()> {
    let balances = bank::balances(dialer, names, parties)?;
    report.accounts = parties.len() as u64;
    for ((party, expected), got) in parties.iter().zip(expected).zip(&balances) {
        if expected != got {
            report.mismatches += 1;
            if report.examples.len() < EXAMPLES_MAX {
                report.examples.push(format!("{party:?} holds {got}, our own sum is {expected}"));
            }
        }
    }
    Ok(())
}
