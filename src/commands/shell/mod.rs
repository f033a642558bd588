//! `tally shell`: a prompt at a running bank, or single commands for scripts.

mod advice;
mod answer;
mod line;
mod perform;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use tally_client::{Bank, ClientOptions, ConnectFile};

pub(crate) use answer::Answer;
pub(crate) use line::{HELP, Line, parse};
pub(crate) use perform::perform;

use super::prompt;

/// Opens a prompt at a running bank, or does single commands
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The connect.json that `tally up` wrote into its data folder
    #[arg(long, value_name = "FILE", default_value = "tally-data/connect.json")]
    connect: PathBuf,
    /// Who to log in as, at every branch; by default the first admin or teller in the file
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Does this instead of reading from the prompt; may be given again. Ends with 1 if one of them was not done
    #[arg(short = 'c', long = "command", value_name = "COMMAND")]
    commands: Vec<String>,
    /// Prints one JSON object for each command
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = ConnectFile::read(&args.connect)?;
    let info = file.connect_info(args.user.as_deref())?;
    let bank = Bank::with_endpoints(info, file.endpoints.clone(), ClientOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.commands.is_empty() {
        prompt::run(&runtime, &Ok(bank), &file, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    for command in &args.commands {
        let action = match parse(command)? {
            Some(Line::Do(action)) => action,
            Some(Line::Help) => {
                println!("{HELP}");
                continue;
            }
            Some(Line::Quit) | None => bail!("`{command}` does nothing here"),
        };
        let answer = runtime.block_on(perform(&bank, &file, &action))?;
        print(&answer, args.json);
        if !answer.is_good() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer for people, or as one line of JSON.
pub(crate) fn print(answer: &Answer, json: bool) {
    if json { println!("{}", answer.json()) } else { println!("{answer}") }
}
