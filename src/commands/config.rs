//! `tally config show`, and the flags by which every command names its configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use tally_branch_server::config::{Config, ConfigError, Layers};

/// Where the configuration comes from.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    /// TOML file; each key can be overridden by the environment (TALLY_SECTION_KEY) and by --set
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data folder (the same as --set branch.dir=DIR)
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Overrides one key
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) assignments: Vec<(String, String)>,
}

/// Reads `SECTION.KEY=VALUE`.
pub(crate) fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected SECTION.KEY=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl ConfigArgs {
    /// Each key's value and who set it.
    pub(crate) fn layers(&self) -> Result<Layers, ConfigError> {
        let mut flags = self.assignments.clone();
        if let Some(dir) = &self.dir {
            flags.push(("branch.dir".to_owned(), dir.to_string_lossy().into_owned()));
        }
        // A variable that is not Unicode cannot be one of ours: their names and values are.
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Layers::load(self.config.as_deref(), env, &flags)
    }

    /// The checked configuration.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        Config::check(&self.layers()?)
    }
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Print every key, its value, and where the value comes from
    Show(ConfigArgs),
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Show(args) = command;
    let layers = args.layers()?;
    // As a server would read it: a bad value is an error here too.
    Config::check(&layers)?;
    for (key, value, source) in layers.show() {
        println!("{:<36} = {value:<28} # {source}; {}", key.name, key.help);
    }
    Ok(ExitCode::SUCCESS)
}
