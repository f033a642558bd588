//! Keeps the house tidy: what the documents say of the code is compared with the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tally_branch_server::config::{Default, KEYS};
use tally_branch_server::metrics::METRICS;

/// A source file longer than this holds a second idea.
const SOURCE_LINES_MAX: usize = 800;

/// Which of our crates each may use, directly.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("tally-protocol", &[]),
    ("tally-ledger", &["tally-protocol"]),
    ("tally-journal", &["tally-protocol", "tally-ledger"]),
    ("tally-branch-server", &["tally-protocol", "tally-ledger", "tally-journal"]),
    ("tally-registry", &["tally-protocol", "tally-ledger", "tally-journal"]),
    ("tally-client", &["tally-protocol"]),
    (
        "tally-sim",
        &["tally-protocol", "tally-ledger", "tally-journal", "tally-branch-server", "tally-registry", "tally-client"],
    ),
    ("tally-benches", &["tally-protocol", "tally-ledger", "tally-branch-server", "tally-client", "tally-sim"]),
    (
        "tally",
        &[
            "tally-registry",
            "tally-protocol",
            "tally-ledger",
            "tally-branch-server",
            "tally-client",
            "tally-sim",
            "tally-benches",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Our crates, with the folder and our own dependencies of each.
fn crates() -> BTreeMap<String, (PathBuf, BTreeSet<String>)> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let names: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
            // A crate may be tested with what it may not be built from.
            let built_from = dependencies.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"));
            let ours = built_from.map(|dependency| text(&dependency["name"])).filter(|name| names.contains(name));
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let folder = manifest.parent().expect("a manifest lies in a folder").to_owned();
            (text(&package["name"]), (folder, ours.collect()))
        })
        .collect()
}

/// Files of the repository whose names end in `suffix`, without what a build leaves behind.
fn files(suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a readable name");
            if path.is_dir() {
                let ours = !name.starts_with('.') && !["target", "corpus", "artifacts"].contains(&name);
                if ours {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What stands between backticks in a document.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

#[test]
fn crates_see_only_what_they_may() {
    let crates = crates();
    let expected: BTreeSet<&str> = MAY_SEE.iter().map(|(name, _)| *name).collect();
    assert_eq!(crates.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "the crates of the workspace");
    for (name, may_see) in MAY_SEE {
        for seen in &crates[*name].1 {
            assert!(may_see.contains(&seen.as_str()), "{name} must not depend on {seen}");
        }
    }
}

#[test]
fn the_folder_map_of_the_readme_is_that_of_the_workspace() {
    let readme = read("README.md");
    let crates = crates();
    let folders = crates.values().filter_map(|(folder, _)| folder.strip_prefix(root()).ok());
    for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
        let name = format!("`{}/`", folder.display());
        assert!(readme.contains(&name), "README.md does not name {name}");
    }
    for folder in quoted(&readme).filter(|quote| quote.ends_with('/') && !quote.contains(' ')) {
        assert!(root().join(folder).is_dir(), "README.md names `{folder}`, which is not there");
    }
}

#[test]
fn files_that_the_documents_name_exist() {
    let sources = files("");
    for document in files(".md") {
        let text = read(&document);
        for name in quoted(&text).filter(|quote| quote.ends_with(".rs") && !quote.contains([' ', '*', '<', '{'])) {
            let exists = sources.iter().any(|source| source.ends_with(name));
            assert!(exists, "{} names `{name}`, which is not there", document.display());
        }
    }
}

#[test]
fn metrics_that_the_documents_name_exist() {
    let of_registry = tally_registry::metrics::METRICS.iter().map(|metric| metric.name);
    let metrics: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).chain(of_registry).collect();
    let crates: BTreeSet<String> = crates().keys().map(|name| name.replace('-', "_")).collect();
    for document in files(".md") {
        let text = read(&document);
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for word in words.filter(|word| word.starts_with("tally_") && !crates.contains(*word)) {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            let known = metrics.contains(word) || plain.is_some_and(|plain| metrics.contains(plain));
            assert!(known, "{} names {word}, which is no metric", document.display());
        }
    }
}

#[test]
fn every_alert_of_the_runbook_has_an_entry_and_every_entry_an_alert() {
    let manual = read("docs/OPERATING.md");
    let (_, runbook) = manual.split_once("\n# Runbook\n").expect("the manual has a runbook");
    let is_alert = |name: &&str| name.starts_with("Branch") || name.starts_with("Registry");
    let rows = runbook.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let alerts: BTreeSet<&str> = rows.filter(is_alert).collect();
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### "));
    let entries: BTreeSet<&str> = headings.flat_map(|heading| heading.split(", ")).collect();
    assert!(alerts.len() >= 20, "{alerts:?}");
    assert_eq!(alerts, entries);
    // What an entry refers to is an entry.
    for name in quoted(runbook).filter(|name| is_alert(name) && !name.contains([' ', '('])) {
        assert!(alerts.contains(name), "the runbook refers to {name}");
    }
    // An alert on nothing would never fire: each expression names a metric (the names are checked above) and a bound.
    for row in runbook.lines().filter(|line| line.starts_with("| `Branch") || line.starts_with("| `Registry")) {
        let expression = row.split('`').nth(3).expect("an expression");
        assert!(expression.contains("tally_") && expression.contains(['>', '=']), "{row}");
    }
}

#[test]
fn no_source_file_grows_past_two_ideas() {
    for source in files(".rs") {
        let lines = fs::read_to_string(&source).expect("a text").lines().count();
        assert!(lines <= SOURCE_LINES_MAX, "{} has {lines} lines", source.display());
    }
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    for source in files(".rs") {
        let text = fs::read_to_string(&source).expect("a text");
        for (number, line) in text.lines().enumerate() {
            for mark in marks {
                assert!(!line.contains(mark), "{}:{} says {mark}", source.display(), number + 1);
            }
        }
    }
}

#[test]
fn every_key_and_every_metric_is_in_the_operators_manual() {
    let manual = read("docs/OPERATING.md");
    let rows: BTreeSet<&str> = manual.lines().filter(|line| line.starts_with("| `")).collect();
    for key in KEYS {
        let default = match key.default {
            Default::Integer(value) => value.to_string(),
            Default::Flag(value) => value.to_string(),
            Default::Text(text) => text.to_owned(),
        };
        let row = format!("| `{}` | `{default}` | {} |", key.name, key.help);
        assert!(rows.contains(row.as_str()), "docs/OPERATING.md lacks\n{row}");
    }
    for metric in METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let row = format!("| `{}` | {kind} | {} |", metric.name, metric.help);
        assert!(rows.contains(row.as_str()), "docs/OPERATING.md lacks\n{row}");
    }
    for key in tally_registry::config::KEYS {
        let default = match key.default {
            tally_registry::config::Default::Integer(value) => value.to_string(),
            tally_registry::config::Default::Flag(value) => value.to_string(),
            tally_registry::config::Default::Text(text) => text.to_owned(),
        };
        let row = format!("| `{}` | `{default}` | {} |", key.name, key.help);
        assert!(rows.contains(row.as_str()), "docs/OPERATING.md lacks\n{row}");
    }
    for metric in tally_registry::metrics::METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let row = format!("| `{}` | {kind} | {} |", metric.name, metric.help);
        assert!(rows.contains(row.as_str()), "docs/OPERATING.md lacks\n{row}");
    }
    let metrics = METRICS.len() + tally_registry::metrics::METRICS.len();
    // The tables of faults begin with metrics, too; those of metrics have a kind in the second column.
    let kinds = [" counter ", " gauge ", " histogram "];
    let is_row =
        |row: &&&str| row.starts_with("| `tally_") && row.split('|').nth(2).is_some_and(|kind| kinds.contains(&kind));
    assert_eq!(rows.iter().filter(is_row).count(), metrics, "rows of old metrics");
}
