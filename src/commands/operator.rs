//! How operators' commands reach the registry, and how they print what it says.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;
use tally_registry::client::{self, CallError};
use tally_registry::link::Tls;

/// Where the registry is, and who asks.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct OperatorArgs {
    /// A node of the registry, any; repeat it for more
    #[arg(long = "registry", value_name = "HOST:PORT", default_value = "127.0.0.1:7421", global = true)]
    endpoints: Vec<String>,
    /// Folder with ca.pem, operator.pem and operator.key
    #[arg(long, value_name = "DIR", default_value = "tls", global = true)]
    tls: PathBuf,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

impl OperatorArgs {
    /// Asks the leader; prints the answer as JSON where that is wanted, else by `print`.
    pub(crate) fn call(&self, request: &Value, print: impl FnOnce(&Value)) -> anyhow::Result<()> {
        let answer = self.calls()?.ask(request)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
        } else {
            print(&answer);
        }
        Ok(())
    }

    /// For commands that ask more than once.
    pub(crate) fn calls(&self) -> anyhow::Result<Calls> {
        let file = |name: &str| self.tls.join(name);
        let tls = Tls::load(&file("operator.pem"), &file("operator.key"), &file("ca.pem"))
            .context("--tls: the operator's certificate cannot be used")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Calls { tls, endpoints: self.endpoints.clone(), runtime })
    }

    /// Whether the answer is for programs.
    pub(crate) const fn wants_json(&self) -> bool {
        self.json
    }
}

/// Asks the registry's leader, one question after the other.
pub(crate) struct Calls {
    tls: Tls,
    endpoints: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

impl Calls {
    /// The answer.
    pub(crate) fn ask(&self, request: &Value) -> Result<Value, CallError> {
        self.runtime.block_on(client::call(&self.tls, &self.endpoints, request))
    }
}

/// A field for people: texts without quotes, `-` for what is not there.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// Rows of equal columns, each as wide as its widest field.
pub(crate) fn print_table(heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).chain([heads[column].len()]).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let print = |fields: Vec<&str>| {
        let padded: Vec<_> = fields.iter().zip(&widths).map(|(field, &width)| format!("{field:<width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    print(heads.to_vec());
    rows.iter().for_each(|row| print(row.iter().map(String::as_str).collect()));
}

/// Seconds out of nanoseconds, with one decimal.
pub(crate) fn seconds(nanos: &Value) -> String {
    nanos.as_u64().map_or("-".to_owned(), |nanos| format!("{:.1} s", nanos as f64 / 1e9))
}
