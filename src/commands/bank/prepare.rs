//! Makes the folders of a bank ready for their first start, or leaves those alone that are: certificates,
//! configuration, users.
//!
//! Invariant: a folder that has served is left as it is, whatever has become of its users and accounts; only one
//! whose first start was not finished gets what that start still owed it.

use std::path::Path;

use anyhow::Context;
use tally_branch_server::server::prepare_development_folder;
use tally_branch_server::tls::dev::{Authority, SERVER_NAME, Service};
use tally_branch_server::users::{RoleName, Users};
use tally_client::{ConnectFile, ConnectFileUser};
use tally_protocol::BranchId;

use super::layout::{Layout, Member};
use super::samples::{self, Sample};

/// Folders that can be served.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What their `connect.json` says so far.
    pub(crate) file: ConnectFile,
    /// Whether the bank got its users just now.
    pub(crate) is_new: bool,
}

/// See the module. `branch_id` is that of a bank of one branch.
pub(crate) fn prepare(layout: &Layout, branch_id: BranchId) -> anyhow::Result<Prepared> {
    let members = layout.members();
    for (number, node) in (1..).zip(layout.registry_dirs()) {
        prepare_node(layout.dir(), number, &node).with_context(|| format!("{}", node.display()))?;
    }
    for member in &members {
        prepare_member(layout, member, branch_id).with_context(|| format!("{}", member.dir.display()))?;
    }
    let users_path = Users::path(&members[0].dir);
    if users_path.exists() {
        // Passwords are only known from the first start; a user that was added since keeps its own.
        let mut file = read(layout.dir())?.unwrap_or_else(|| connect_file(branch_id, Vec::new()));
        welcome(layout.dir(), &members, &mut file)?;
        return Ok(Prepared { file, is_new: false });
    }
    let mut users = Users::default();
    let known = add(&mut users, samples::everybody(members.len()))?;
    // Before the users: a crash in between then leaves a folder that is begun afresh, not one whose
    // passwords nobody knows. The first branch's last: by them a bank is known to be finished.
    let file = connect_file(branch_id, known);
    write(layout.dir(), &file)?;
    for member in members.iter().rev() {
        users.save(&Users::path(&member.dir))?;
    }
    Ok(Prepared { file, is_new: true })
}

fn prepare_node(dir: &Path, number: u64, node: &Path) -> anyhow::Result<()> {
    let tls = dir.join("tls");
    let authority = Authority::open(&tls).with_context(|| format!("{}", tls.display()))?;
    authority.issue(&tls, Service::Operator)?;
    authority.issue(&node.join("tls"), Service::Registry(number))?;
    // The first one founds the registry; the others wait until they are joined to it.
    let found = if number == 1 { "" } else { "found = false\n" };
    write_new(
        &node.join("registry.toml"),
        &format!("# A node of this development bank's registry.\n[node]\nid = {number}\ndir = \".\"\n{found}"),
    )
}

fn prepare_member(layout: &Layout, member: &Member, single_id: BranchId) -> anyhow::Result<()> {
    if !layout.registry_dirs().is_empty() {
        let authority = Authority::open(&layout.dir().join("tls"))?;
        let tls = member.dir.join("tls");
        authority.issue(&tls, Service::Clients)?;
        authority.issue(&tls, Service::Branch(member.branch_id.unwrap_or(single_id)))?;
    }
    prepare_development_folder(&member.dir)?;
    let config = member.dir.join("branch.toml");
    let text = format!(
        "# Configuration of this development bank; `tally config show --config {}` explains it.\n\
         [branch]\nid = {}\ndir = \".\"\n",
        config.display(),
        member.branch_id.unwrap_or(single_id)
    );
    write_new(&config, &text)
}

/// A branch that has no users yet joins a bank that has: it gets those of the first branch, and its own customers
/// become users of all.
fn welcome(dir: &Path, members: &[Member], file: &mut ConnectFile) -> anyhow::Result<()> {
    for (branch_index, member) in members.iter().enumerate().skip(1) {
        if Users::path(&member.dir).exists() {
            continue;
        }
        let mut first = Users::load(&Users::path(&members[0].dir))?;
        let unknown =
            samples::customers_of(branch_index).into_iter().filter(|sample| first.get(&sample.name).is_none());
        let unknown: Vec<_> = unknown.collect();
        let known = add(&mut first, unknown)?;
        // An interrupted start may have told of them already, with passwords that nobody has.
        file.users.retain(|user| known.iter().all(|new| new.name != user.name));
        file.users.extend(known.iter().cloned());
        write(dir, file)?;
        for other in &members[..branch_index] {
            let mut users = Users::load(&Users::path(&other.dir))?;
            for user in known.iter().filter(|user| users.get(&user.name).is_none()).cloned().collect::<Vec<_>>() {
                users.add(&user.name, &user.password, RoleName::Customer, user.customer_id)?;
            }
            users.save(&Users::path(&other.dir))?;
        }
        first.save(&Users::path(&member.dir))?;
    }
    Ok(())
}

/// Adds `samples` with passwords of their own.
fn add(users: &mut Users, samples: Vec<Sample>) -> anyhow::Result<Vec<ConnectFileUser>> {
    let mut known = Vec::new();
    for sample in samples {
        let password = samples::random_password()?;
        users.add(&sample.name, &password, sample.role, sample.customer_id)?;
        known.push(sample.with_password(password));
    }
    Ok(known)
}

/// The `connect.json` of a folder, if it has one.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<ConnectFile>> {
    let path = ConnectFile::path(dir);
    Ok(if path.exists() { Some(ConnectFile::read(&path)?) } else { None })
}

/// Writes the `connect.json` of a folder.
pub(crate) fn write(dir: &Path, file: &ConnectFile) -> anyhow::Result<()> {
    let path = ConnectFile::path(dir);
    file.write(&path).with_context(|| format!("{}", path.display()))
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("{}", path.display()))
}

/// What `connect.json` says before the first start.
fn connect_file(branch_id: BranchId, users: Vec<ConnectFileUser>) -> ConnectFile {
    ConnectFile {
        branch_id: branch_id.get(),
        endpoint: String::new(),
        endpoints: Vec::new(),
        server_name: SERVER_NAME.to_owned(),
        ca_file: "tls/ca.pem".into(),
        metrics: None,
        pid: 0,
        users,
        accounts: Vec::new(),
        branches: Vec::new(),
        registry: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_prepared_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::of(folder.path(), Some(1)).expect("new");
        let first = prepare(&layout, BranchId::new(3)).expect("prepared");
        assert!(first.is_new);
        assert_eq!(first.file.users.len(), 5);
        assert!(first.file.users.iter().all(|user| user.password.len() == 20));
        let config = std::fs::read_to_string(folder.path().join("branch.toml")).expect("written");
        assert!(config.contains("id = 3"), "{config}");
        let second = prepare(&layout, BranchId::new(3)).expect("left alone");
        assert!(!second.is_new, "the first start was not finished");
        assert_eq!(first.file.users, second.file.users);
        let users = Users::load(&Users::path(folder.path())).expect("saved");
        assert!(users.get("alice").expect("there").password_matches(first.file.users[3].password.as_bytes()));

        std::fs::remove_file(ConnectFile::path(folder.path())).expect("there");
        let third = prepare(&layout, BranchId::new(3)).expect("left alone");
        assert!(!third.is_new && third.file.users.is_empty(), "a folder with users of somebody else's");
    }

    #[test]
    fn a_branch_that_is_added_knows_everybody_and_is_known() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |branches| Layout::of(folder.path(), Some(branches)).expect("it may grow");
        let first = prepare(&of(2), BranchId::new(1)).expect("prepared");
        let grown = prepare(&of(3), BranchId::new(1)).expect("prepared");
        assert_eq!(grown.file.users[..first.file.users.len()], first.file.users);
        let erin = grown.file.user(Some("erin")).expect("a customer of the new branch");
        for member in of(3).members() {
            let users = Users::load(&Users::path(&member.dir)).expect("saved");
            for user in &grown.file.users {
                let saved = users.get(&user.name).expect("known everywhere");
                assert!(user.name != erin.name || saved.password_matches(erin.password.as_bytes()));
            }
            let ca = |path: &Path| std::fs::read(path).expect("there");
            assert_eq!(ca(&member.dir.join("tls/ca.pem")), ca(&folder.path().join("tls/ca.pem")));
        }
        assert!(folder.path().join("registry/tls/registry.key").exists());
        assert!(folder.path().join("tls/operator.key").exists());
    }
}
