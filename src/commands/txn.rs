//! `tally txn`: transfers between branches that are not over, and the way to end one by hand.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::operator::{OperatorArgs, print_table, seconds, shown};

/// Look at transfers between branches, and end one that hangs
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Transfers that are not over, the oldest first
    List {
        /// Only those that are not decided
        #[arg(long)]
        in_doubt: bool,
        /// Print at most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        max: usize,
    },
    /// All that is known of one transfer, or of a chain by any of its members: every participant's state, votes, times,
    /// reasons
    Show {
        /// 32 hexadecimal digits
        id: String,
    },
    /// Abort a transfer that is not decided; refused where it is committed
    Resolve {
        /// 32 hexadecimal digits
        id: String,
        /// Why, for the auditors
        #[arg(long)]
        reason: String,
        /// Who, for the auditors; without it the user who runs the command
        #[arg(long)]
        operator_name: Option<String>,
    },
    /// What operators have ended, the newest first
    Audit,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { operator, command } = args;
    match command {
        Command::List { in_doubt, max } => {
            let request = json!({ "call": "txn_list", "in_doubt": in_doubt, "count_max": max });
            operator.call(&request, print_list)
        }
        Command::Show { id } => operator.call(&json!({ "call": "txn_show", "id": id }), print_transfer),
        Command::Resolve { id, reason, operator_name } => {
            let who =
                operator_name.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "unknown".to_owned());
            let request = json!({ "call": "txn_resolve", "id": id, "operator": who, "reason": reason });
            operator.call(&request, |answer| println!("{}: {}", shown(&answer["id"]), outcome(&answer["decision"])))
        }
        Command::Audit => operator.call(&json!({ "call": "txn_audit" }), print_audit),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// A decision for people.
fn outcome(decision: &Value) -> String {
    let reason = decision.get("reason").map(shown);
    let about = [
        decision.get("branch").map(|branch| format!("branch {branch}")),
        decision.get("refusal").map(shown),
        decision.get("member").map(|member| format!("member {member} of the chain")),
    ];
    let about: Vec<String> = reason.into_iter().chain(about.into_iter().flatten()).collect();
    match (decision, &about[..]) {
        (Value::Null, _) => "-".to_owned(),
        (_, []) => shown(&decision["outcome"]),
        _ => format!("{} ({})", shown(&decision["outcome"]), about.join(", ")),
    }
}

fn print_list(answer: &Value) {
    let transfers = answer["transfers"].as_array().cloned().unwrap_or_default();
    let row = |transfer: &Value| {
        vec![
            shown(&transfer["id"]),
            shown(&transfer["state"]),
            outcome(&transfer["decision"]),
            shown(&transfer["source"]),
            shown(&transfer["destination"]),
            seconds(&transfer["age_ns"]),
        ]
    };
    let rows: Vec<_> = transfers.iter().map(row).collect();
    print_table(&["id", "state", "decision", "from", "to", "age"], &rows);
    println!(
        "\n{} wait for votes, {} for the log, {} for acknowledgements",
        shown(&answer["collecting"]),
        shown(&answer["deciding"]),
        shown(&answer["decided"])
    );
}

fn print_transfer(transfer: &Value) {
    println!("{}: {}, {}", shown(&transfer["id"]), shown(&transfer["state"]), outcome(&transfer["decision"]));
    println!(
        "{} from branch {} to branch {}, {} minor units of currency {}; here for {}, said again {} times",
        shown(&transfer["kind"]),
        shown(&transfer["source"]),
        shown(&transfer["destination"]),
        shown(&transfer["amount"]),
        shown(&transfer["currency"]),
        seconds(&transfer["age_ns"]),
        shown(&transfer["repeats"])
    );
    if let Some(members) = transfer["members"].as_array() {
        let fields = ["id", "kind", "destination", "amount", "currency"];
        let rows: Vec<_> = members.iter().map(|member| fields.map(|field| shown(&member[field])).to_vec()).collect();
        println!("a chain of {}:", members.len());
        print_table(&["member", "kind", "to", "amount", "currency"], &rows);
    }
    let participants = transfer["participants"].as_array().cloned().unwrap_or_default();
    let row = |participant: &Value| {
        vec![shown(&participant["branch"]), shown(&participant["state"]), shown(&participant["voted_at_ns"])]
    };
    let rows: Vec<_> = participants.iter().map(row).collect();
    if !rows.is_empty() {
        print_table(&["branch", "state", "voted at (ns)"], &rows);
    }
}

fn print_audit(answer: &Value) {
    let entries = answer["entries"].as_array().cloned().unwrap_or_default();
    let fields = ["at_ns", "id", "operator", "done", "reason"];
    let rows: Vec<_> =
        entries.iter().map(|entry| fields.iter().map(|field| shown(&entry[*field])).collect::<Vec<_>>()).collect();
    print_table(&["at (ns)", "id", "operator", "done", "reason"], &rows);
}
