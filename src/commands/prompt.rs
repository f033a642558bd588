//! The prompt of `tally up` and `tally shell`.

use std::io::{BufRead, Write};

use reedline::{DefaultPrompt, DefaultPromptSegment, Reedline, Signal};
use tally_client::{Bank, ConnectFile};
use tokio::runtime::Runtime;

use super::shell::{HELP, Line, parse, perform, print};
use super::up::is_interactive;

/// Reads and runs commands until `quit` or the end of the input. Without a bank each says why there is none: the
/// branches are served all the same.
pub(super) fn run(
    runtime: &Runtime,
    bank: &anyhow::Result<Bank>,
    file: &ConnectFile,
    json: bool,
) -> anyhow::Result<()> {
    let mut lines = Lines::open();
    if is_interactive() {
        println!("Type `help` for what you can do here.");
    }
    while let Some(line) = lines.next()? {
        match parse(&line) {
            Ok(None) => {}
            Ok(Some(Line::Quit)) => return Ok(()),
            Ok(Some(Line::Help)) => println!("{HELP}"),
            Ok(Some(Line::Do(action))) => match bank {
                Ok(bank) => match runtime.block_on(perform(bank, file, &action)) {
                    Ok(answer) => print(&answer, json),
                    Err(error) => println!("{error:#}"),
                },
                Err(error) => println!("{error:#}"),
            },
            Err(error) => println!("{error:#}"),
        }
    }
    Ok(())
}

/// Where lines come from.
enum Lines {
    Person(Box<Reedline>),
    Script(std::io::StdinLock<'static>),
}

impl Lines {
    fn open() -> Self {
        if is_interactive() {
            Self::Person(Box::new(Reedline::create()))
        } else {
            Self::Script(std::io::stdin().lock())
        }
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Person(editor) => {
                let segment = DefaultPromptSegment::Basic("tally".to_owned());
                match editor.read_line(&DefaultPrompt::new(segment, DefaultPromptSegment::Empty))? {
                    Signal::Success(line) => Ok(Some(line)),
                    _ => Ok(None),
                }
            }
            Self::Script(input) => {
                std::io::stdout().flush()?;
                let mut line = String::new();
                Ok(if input.read_line(&mut line)? == 0 { None } else { Some(line) })
            }
        }
    }
}
