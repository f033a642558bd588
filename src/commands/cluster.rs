//! `tally cluster`: who is in the registry and in the bank, and changes of that, while it serves.

use std::process::ExitCode;

use serde_json::{Value, json};
use tally_protocol::{AccountId, BranchId};

use super::operator::{OperatorArgs, print_table, shown};

/// Look at and change the members of the registry and the branches of the bank
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Who is there, who leads, how the branches are
    Status {
        /// As any node knows it: also where nobody leads
        #[arg(long)]
        any: bool,
    },
    /// Take in a node that waits (node.found = false), while the registry serves
    Join {
        /// Where the new node listens
        #[arg(value_name = "HOST:PORT")]
        endpoint: String,
        /// The number of a node whose disk or machine is lost: it leaves in the same step
        #[arg(long, value_name = "NODE")]
        replace: Option<u64>,
    },
    /// A node or a branch leaves for good: its number never comes back
    Leave(Target),
    /// A branch takes no new transfers; a node hands over leadership if it has it
    Drain {
        #[command(flatten)]
        target: Target,
        /// The branch takes transfers again
        #[arg(long, requires = "branch")]
        undo: bool,
    },
    /// An account goes to another branch, with all its money; it is still found by its id
    MoveAccount {
        /// Which account: 32 hexadecimal digits, or BRANCH:NUMBER with the number in hexadecimal
        #[arg(value_name = "ACCOUNT", value_parser = account_id)]
        account: AccountId,
        /// Where to
        #[arg(long, value_name = "BRANCH")]
        to: u16,
    },
    /// Keys of services, such as a gateway
    #[command(subcommand)]
    Key(KeyCommand),
    /// Another node is to lead, before this one is stopped
    TransferLeader {
        /// Which; without it the one that has most of the log
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
    },
}

#[derive(clap::Subcommand, Debug)]
enum KeyCommand {
    /// A service gets a key; it is shown once, the registry keeps only a hash of it
    Add {
        /// Whose
        name: String,
        /// What it opens: routes, status or transfers; repeat it for more
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
    },
    /// The key of a service opens nothing any more
    Remove {
        /// Whose
        name: String,
    },
    /// Which services have keys
    List,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// A node of the registry
    #[arg(long, value_name = "NODE")]
    node: Option<u64>,
    /// A branch
    #[arg(long, value_name = "BRANCH")]
    branch: Option<u16>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { operator, command } = args;
    match command {
        Command::Status { any } => operator.call(&json!({ "call": "cluster_status", "any": any }), print_status),
        Command::Join { endpoint, replace } => {
            let request = json!({ "call": "cluster_join", "endpoint": endpoint, "replace": replace });
            operator.call(&request, |answer| println!("node {} is a member", shown(&answer["node"])))
        }
        Command::Leave(Target { node, branch }) => {
            let request = json!({ "call": "cluster_leave", "node": node, "branch": branch });
            operator.call(&request, |_| println!("it has left; stop its process"))
        }
        Command::Drain { target: Target { node, branch }, undo } => {
            let request = json!({ "call": "cluster_drain", "node": node, "branch": branch, "undo": undo });
            operator.call(&request, |answer| match answer.get("status") {
                Some(status) => println!("branch {} is {}", shown(&answer["branch"]), shown(status)),
                None => println!("node {} leads", shown(&answer["leader"])),
            })
        }
        Command::MoveAccount { account, to } => {
            let account = format!("{:032x}", account.get());
            let request = json!({ "call": "move_account", "account": account, "to": to });
            operator.call(&request, |answer| match (&answer["moved"], &answer["applied"]) {
                (Value::Bool(false), _) => println!("the account is at branch {to} already"),
                (_, Value::Bool(false)) => println!("the account is at branch {to}; a branch has yet to carry it out"),
                _ => println!("the account is at branch {to}"),
            })
        }
        Command::Key(KeyCommand::Add { name, scopes }) => {
            let request = json!({ "call": "key_add", "name": name, "scopes": scopes });
            operator.call(&request, |answer| println!("{}", shown(&answer["key"])))
        }
        Command::Key(KeyCommand::Remove { name }) => {
            operator.call(&json!({ "call": "key_remove", "name": name }), |_| println!("removed"))
        }
        Command::Key(KeyCommand::List) => operator.call(&json!({ "call": "key_list" }), print_keys),
        Command::TransferLeader { to } => {
            let request = json!({ "call": "cluster_transfer_leader", "to": to });
            operator.call(&request, |answer| println!("node {} leads", shown(&answer["leader"])))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// As branches print it, or all of it in hexadecimal.
fn account_id(text: &str) -> Result<AccountId, String> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let parsed = match text.split_once(':') {
        Some((branch, local)) => {
            let branch: Option<u16> = branch.parse().ok().filter(|&branch| branch != 0);
            let local = u128::from_str_radix(local, 16).ok().filter(|&local| local >> AccountId::LOCAL_BITS == 0);
            branch.zip(local).map(|(branch, local)| AccountId::of_branch(BranchId::new(branch), local))
        }
        None => u128::from_str_radix(text, 16).ok().map(AccountId::new),
    };
    let is_one = |id: &AccountId| !id.is_none() && id.get() != u128::MAX && id.branch().get() != 0;
    parsed.filter(is_one).ok_or_else(|| "32 hexadecimal digits, or BRANCH:NUMBER".to_owned())
}

fn print_status(answer: &Value) {
    println!("registry {}", shown(&answer["cluster_id"]));
    println!(
        "leader: node {}, term {}; log at {}, applied {}\n",
        shown(&answer["leader"]),
        shown(&answer["term"]),
        shown(&answer["last_log_index"]),
        shown(&answer["applied_index"])
    );
    let rows = |list: &Value, fields: &[&str]| -> Vec<Vec<String>> {
        let row = |entry: &Value| fields.iter().map(|field| shown(&entry[*field])).collect();
        list.as_array().map_or(Vec::new(), |entries| entries.iter().map(row).collect())
    };
    print_table(
        &["node", "endpoint", "votes", "leads", "confirmed"],
        &rows(&answer["nodes"], &["node", "endpoint", "voter", "leader", "replicated_index"]),
    );
    println!();
    print_table(
        &["branch", "endpoint", "status", "linked", "in doubt"],
        &rows(&answer["branches"], &["branch", "endpoint", "status", "linked", "in_doubt"]),
    );
    println!(
        "\n{} transfers in hand; {} decisions not carried out by all, {} remembered",
        shown(&answer["transfers_in_hand"]),
        shown(&answer["decisions_open"]),
        shown(&answer["decisions_remembered"])
    );
}

fn print_keys(answer: &Value) {
    let keys = answer["keys"].as_array().cloned().unwrap_or_default();
    let row = |key: &Value| {
        let scopes = key["scopes"].as_array().map_or(Vec::new(), |scopes| scopes.iter().map(shown).collect());
        vec![shown(&key["name"]), scopes.join(", ")]
    };
    print_table(&["service", "opens"], &keys.iter().map(row).collect::<Vec<_>>());
}
