//! What was found, for people and for programs.

use serde_json::{Value, json};
use tally_ledger::audit::{Finding, Pair, Report, Totals};
use tally_protocol::{BranchId, Currency};

use super::super::operator::print_table;
use super::gather::Gathered;

/// A sum in minor units, as the currency is written.
fn amount(minor_units: i128, currency: Currency) -> String {
    let sign = if minor_units < 0 { "-" } else { "" };
    let (whole, decimals) = (minor_units.unsigned_abs(), u32::from(currency.decimals()));
    let unit = 10u128.pow(decimals);
    match decimals {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{}.{:0width$}", whole / unit, whole % unit, width = decimals as usize),
    }
}

fn verdict(agrees: bool) -> String {
    if agrees { "ok" } else { "DIFFERS" }.to_owned()
}

/// Sums over 2^64 accounts fit.
const fn signed(sum: u128) -> i128 {
    sum as i128
}

/// One line per finding.
fn words(finding: &Finding) -> String {
    match *finding {
        Finding::Unbalanced { branch, currency, what, debits, credits } => {
            let who = branch.map_or("all branches".to_owned(), |branch| format!("branch {branch}"));
            let by = amount(signed(credits) - signed(debits), currency);
            format!(
                "DIFFERS: {who}: {what} debits of {} {currency}, credits of {}: {by} more",
                amount(signed(debits), currency),
                amount(signed(credits), currency)
            )
        }
        Finding::HoldsDiffer { branch, currency, held, holds } => format!(
            "DIFFERS: branch {branch}: its accounts hold {} {currency}, its open holds add up to {}",
            amount(signed(held), currency),
            amount(signed(holds), currency)
        ),
        Finding::MirrorDiffers(Pair { source, destination, currency, sent, received }) => {
            let (at_source, at_destination) = (
                tally_ledger::settlement_account_id(source, destination, currency),
                tally_ledger::settlement_account_id(destination, source, currency),
            );
            format!(
                "DIFFERS: branch {source} sent {} {currency} to branch {destination} (credits of account {at_source}), which \
                 received {} (debits of account {at_destination}): {} less",
                amount(sent, currency),
                amount(received, currency),
                amount(sent - received, currency)
            )
        }
    }
}

/// For people.
pub(super) fn text(gathered: &Gathered, report: &Report) {
    println!(
        "as of {} ns, {} branches asked in {:.1} s\n",
        gathered.stamp,
        gathered.books.len(),
        gathered.took.as_secs_f64()
    );
    let row = |who: String, currency: Currency, totals: &Totals, agrees: bool| {
        vec![
            who,
            currency.to_string(),
            totals.accounts.to_string(),
            amount(signed(totals.debits_posted), currency),
            amount(signed(totals.credits_posted), currency),
            amount(signed(totals.debits_held), currency),
            amount(signed(totals.credits_held), currency),
            verdict(agrees),
        ]
    };
    let mut rows = Vec::new();
    for books in &gathered.books {
        for (&currency, totals) in &books.currencies {
            rows.push(row(books.branch.to_string(), currency, totals, is_right(report, Some(books.branch), currency)));
        }
    }
    for (&currency, totals) in &report.totals {
        rows.push(row("all".to_owned(), currency, totals, is_right(report, None, currency)));
    }
    let heads = ["branch", "currency", "accounts", "debits", "credits", "debits held", "credits held", ""];
    print_table(&heads, &rows);
    println!();
    let rows: Vec<_> = report
        .pairs
        .iter()
        .map(|pair| {
            vec![
                pair.source.to_string(),
                pair.destination.to_string(),
                pair.currency.to_string(),
                amount(pair.sent, pair.currency),
                amount(pair.received, pair.currency),
                verdict(pair.sent == pair.received),
            ]
        })
        .collect();
    if !rows.is_empty() {
        print_table(&["from", "to", "currency", "sent", "received", ""], &rows);
        println!();
    }
    for (branch, peer, currency) in &report.unmatched {
        println!("not compared: what branch {branch} owes branch {peer} and is owed, in {currency}");
    }
    for branch in &gathered.left {
        println!("not asked: branch {branch}, which has left the bank");
    }
    for (branch, why) in &gathered.missing {
        println!("MISSING: branch {branch}: {why}");
    }
    report.findings.iter().for_each(|finding| println!("{}", words(finding)));
    let open: usize = gathered.books.iter().map(|books| books.open.len()).sum();
    println!(
        "{}: {open} parts of transfers were open then and are not known to have ended; {} of them had been committed",
        conclusion(gathered, report),
        gathered
            .books
            .iter()
            .flat_map(|books| books.open.iter().map(|leg| leg.key(books.branch)))
            .filter(|key| gathered.committed.contains_key(key))
            .count()
    );
}

fn conclusion(gathered: &Gathered, report: &Report) -> &'static str {
    match (report.findings.is_empty(), gathered.missing.is_empty()) {
        (false, _) => "DIFFERS",
        (true, false) => "incomplete",
        (true, true) => "ok",
    }
}

/// Whether nothing was found about the books of `branch`, or of all, in `currency`.
fn is_right(report: &Report, branch: Option<BranchId>, currency: Currency) -> bool {
    report.findings.iter().all(|finding| match *finding {
        Finding::Unbalanced { branch: of, currency: in_currency, .. } => (of, in_currency) != (branch, currency),
        Finding::HoldsDiffer { branch: of, currency: in_currency, .. } => (Some(of), in_currency) != (branch, currency),
        Finding::MirrorDiffers(_) => true,
    })
}

/// For programs. Sums are texts, in minor units.
pub(super) fn json(gathered: &Gathered, report: &Report) -> Value {
    let totals = |currency: Currency, totals: &Totals, agrees: bool| {
        json!({
            "currency": currency.get(),
            "accounts": totals.accounts,
            "debits_posted": totals.debits_posted.to_string(),
            "credits_posted": totals.credits_posted.to_string(),
            "debits_held": totals.debits_held.to_string(),
            "credits_held": totals.credits_held.to_string(),
            "holds": totals.holds.to_string(),
            "ok": agrees,
        })
    };
    let branches = gathered.books.iter().map(|books| {
        let said = &gathered.said[&books.branch];
        let currencies: Vec<Value> = books
            .currencies
            .iter()
            .map(|(&currency, sums)| totals(currency, sums, is_right(report, Some(books.branch), currency)))
            .collect();
        json!({
            "branch": books.branch.get(),
            "durable": said["durable"],
            "accounts_from_checkpoint": said["accounts_from_checkpoint"],
            "records": said["records"],
            "open": books.open.len(),
            "currencies": currencies,
        })
    });
    let pairs = report.pairs.iter().map(|pair| {
        json!({
            "source": pair.source.get(),
            "destination": pair.destination.get(),
            "currency": pair.currency.get(),
            "sent": pair.sent.to_string(),
            "received": pair.received.to_string(),
            "ok": pair.sent == pair.received,
        })
    });
    let all = report.totals.iter().map(|(&currency, sums)| totals(currency, sums, is_right(report, None, currency)));
    json!({
        "result": conclusion(gathered, report),
        "stamp": gathered.stamp,
        "branches": branches.collect::<Vec<_>>(),
        "all": all.collect::<Vec<_>>(),
        "settlements": pairs.collect::<Vec<_>>(),
        "committed": gathered.committed.len(),
        "findings": report.findings.iter().map(words).collect::<Vec<_>>(),
        "missing": gathered.missing.iter().map(|(id, why)| json!({ "branch": id.get(), "why": why })).collect::<Vec<_>>(),
        "left": gathered.left.iter().map(|id| id.get()).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_findings_read_as_people_write_them() {
        assert_eq!(amount(123_456, Currency::EUR), "1234.56");
        assert_eq!(amount(-5, Currency::EUR), "-0.05");
        assert_eq!(amount(-5, Currency::JPY), "-5");
        let (source, destination) = (BranchId::new(1), BranchId::new(2));
        let pair = Pair { source, destination, currency: Currency::EUR, sent: 31, received: 30 };
        let told = words(&Finding::MirrorDiffers(pair));
        for part in
            ["branch 1 sent 0.31 EUR to branch 2", "1:80000000000000000002000303d2", "received 0.30", "0.01 less"]
        {
            assert!(told.contains(part), "no `{part}` in {told}");
        }
    }
}
