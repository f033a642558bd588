//! `tally user ...`: the users of a branch. A running server sees a change within a second.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tally_branch_server::users::{RoleName, Users, UsersError};

/// The branch whose users are meant.
#[derive(clap::Args, Debug)]
pub(crate) struct Folder {
    /// Data folder of the branch
    #[arg(long, value_name = "DIR", default_value = "tally-data")]
    dir: PathBuf,
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Add a user; the password is read from standard input
    Add {
        #[command(flatten)]
        folder: Folder,
        /// Login name
        name: String,
        /// customer, teller, auditor or admin
        #[arg(long)]
        role: RoleName,
        /// Whom a customer acts for
        #[arg(long, default_value_t = 0)]
        customer_id: u64,
    },
    /// List the users
    List {
        #[command(flatten)]
        folder: Folder,
    },
    /// Change a password, which is read from standard input; ends the user's sessions
    Passwd {
        #[command(flatten)]
        folder: Folder,
        /// Login name
        name: String,
    },
    /// Change a role; ends the user's sessions
    Role {
        #[command(flatten)]
        folder: Folder,
        /// Login name
        name: String,
        /// customer, teller, auditor or admin
        #[arg(long)]
        role: RoleName,
        /// Whom a customer acts for
        #[arg(long, default_value_t = 0)]
        customer_id: u64,
    },
    /// Lock a user out; ends the user's sessions
    Disable {
        #[command(flatten)]
        folder: Folder,
        /// Login name
        name: String,
    },
    /// Let a user in again
    Enable {
        #[command(flatten)]
        folder: Folder,
        /// Login name
        name: String,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add { folder, name, role, customer_id } => {
            let mut users = load_or_begin(folder)?;
            users.add(name, &read_password()?, *role, *customer_id)?;
            save(folder, &users)?;
        }
        Command::List { folder } => list(&load_or_begin(folder)?),
        Command::Passwd { folder, name } => {
            let password = read_password()?;
            change(folder, |users| users.set_password(name, &password))?;
        }
        Command::Role { folder, name, role, customer_id } => {
            change(folder, |users| users.set_role(name, *role, *customer_id))?;
        }
        Command::Disable { folder, name } => change(folder, |users| users.set_disabled(name, true))?,
        Command::Enable { folder, name } => change(folder, |users| users.set_disabled(name, false))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The first user of a branch is added where there is no file yet.
fn load_or_begin(folder: &Folder) -> anyhow::Result<Users> {
    let path = Users::path(&folder.dir);
    if !path.exists() {
        std::fs::create_dir_all(&folder.dir).with_context(|| format!("{}", folder.dir.display()))?;
        return Ok(Users::default());
    }
    Ok(Users::load(&path)?)
}

fn save(folder: &Folder, users: &Users) -> anyhow::Result<()> {
    Ok(users.save(&Users::path(&folder.dir))?)
}

fn change(folder: &Folder, change: impl FnOnce(&mut Users) -> Result<(), UsersError>) -> anyhow::Result<()> {
    let mut users = Users::load(&Users::path(&folder.dir))?;
    change(&mut users)?;
    save(folder, &users)
}

fn read_password() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the password from standard input")?;
    let password = line.trim_end_matches(['\n', '\r']);
    anyhow::ensure!(!password.is_empty(), "give the password on standard input");
    Ok(password.to_owned())
}

fn list(users: &Users) {
    println!("{:<20} {:<9} {:<20} state", "name", "role", "customer");
    for user in users.iter() {
        let customer = if user.customer_id == 0 { String::new() } else { user.customer_id.to_string() };
        let state = if user.disabled { "disabled" } else { "active" };
        println!("{:<20} {:<9} {customer:<20} {state}", user.name, user.role.to_string());
    }
}
