//! Which folders a bank has.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tally_protocol::BranchId;

/// The most branches that `tally up` starts: beyond that one machine is the wrong place.
pub(crate) const BRANCHES_MAX: u16 = 64;
/// The bank of somebody who says nothing has as many as a payment between branches needs.
const BRANCHES_DEFAULT: u16 = 2;
/// What a registry may have: a majority of an even number is no better than that of one less.
const NODES_ALLOWED: [u16; 3] = [1, 3, 5];

/// The folders of a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One branch, in this folder.
    Single(PathBuf),
    /// A registry and branches, numbered from 1.
    Several {
        /// The bank's folder.
        dir: PathBuf,
        /// How many.
        branches: u16,
        /// Nodes of the registry.
        nodes: u16,
    },
}

/// The data folder of one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its number, where the folder's name says it.
    pub(crate) branch_id: Option<BranchId>,
    /// The folder.
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// What is in `dir`, with so many branches as are `wanted`; a bank may only grow.
    pub(crate) fn of(dir: &Path, wanted: Option<u16>) -> anyhow::Result<Self> {
        if let Some(wanted) = wanted
            && !(1..=BRANCHES_MAX).contains(&wanted)
        {
            bail!("--branches is 1 to {BRANCHES_MAX}");
        }
        match (Self::find(dir)?, wanted) {
            (Some(Self::Single(_)), Some(2..)) => bail!(
                "{} holds a bank of one branch without a registry; give another folder for one of several",
                dir.display()
            ),
            (Some(Self::Several { branches, .. }), Some(wanted)) if wanted < branches => bail!(
                "{} holds a bank of {branches} branches; a branch leaves with `tally cluster leave`",
                dir.display()
            ),
            (Some(Self::Several { dir, branches, nodes }), wanted) => {
                Ok(Self::Several { dir, branches: wanted.unwrap_or(branches), nodes })
            }
            (Some(single), _) => Ok(single),
            (None, Some(1)) => Ok(Self::Single(dir.to_owned())),
            (None, wanted) => {
                Ok(Self::Several { dir: dir.to_owned(), branches: wanted.unwrap_or(BRANCHES_DEFAULT), nodes: 1 })
            }
        }
    }

    /// The same with so many nodes of the registry as are `wanted`; it, too, may only grow.
    pub(crate) fn with_nodes(self, wanted: Option<u16>) -> anyhow::Result<Self> {
        let Some(wanted) = wanted else { return Ok(self) };
        if !NODES_ALLOWED.contains(&wanted) {
            bail!("--registry-nodes is 1, 3 or 5: an even number survives no more losses than one less");
        }
        match self {
            Self::Single(_) => bail!("a bank of one branch has no registry: --registry-nodes goes with --branches"),
            Self::Several { nodes, .. } if wanted < nodes => {
                bail!("the registry has {nodes} nodes; one leaves with `tally cluster leave`")
            }
            Self::Several { dir, branches, .. } => Ok(Self::Several { dir, branches, nodes: wanted }),
        }
    }

    /// What is in `dir`, if there is a bank.
    pub(crate) fn find(dir: &Path) -> anyhow::Result<Option<Self>> {
        let is_there = |name: &str| dir.join(name).exists();
        let mut branches = 0;
        while branches < BRANCHES_MAX && dir.join(format!("branch-{}", branches + 1)).is_dir() {
            branches += 1;
        }
        if branches > 0 || is_there("registry") {
            // A first start that was interrupted may have made fewer folders than it wanted.
            let mut nodes = 1;
            while dir.join(node_folder(nodes + 1)).is_dir() {
                nodes += 1;
            }
            return Ok(Some(Self::Several { dir: dir.to_owned(), branches: branches.max(1), nodes }));
        }
        let is_single = ["branch.toml", "users.json", "journal"].into_iter().any(is_there);
        Ok(is_single.then(|| Self::Single(dir.to_owned())))
    }

    /// The bank's folder.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Single(dir) | Self::Several { dir, .. } => dir,
        }
    }

    /// The branches, the first one first.
    pub(crate) fn members(&self) -> Vec<Member> {
        match self {
            Self::Single(dir) => vec![Member { branch_id: None, dir: dir.clone() }],
            Self::Several { dir, branches, .. } => (1..=*branches)
                .map(|number| Member {
                    branch_id: Some(BranchId::new(number)),
                    dir: dir.join(format!("branch-{number}")),
                })
                .collect(),
        }
    }

    /// The folders of the registry's nodes, the first one first; none for a bank of one branch.
    pub(crate) fn registry_dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::Single(_) => Vec::new(),
            Self::Several { dir, nodes, .. } => (1..=*nodes).map(|number| dir.join(node_folder(number))).collect(),
        }
    }

    /// The same bank by the folder's full name. The folder must be there.
    pub(crate) fn canonical(self) -> anyhow::Result<Self> {
        let full = |dir: PathBuf| dir.canonicalize().with_context(|| format!("{}", dir.display()));
        Ok(match self {
            Self::Single(dir) => Self::Single(full(dir)?),
            Self::Several { dir, branches, nodes } => Self::Several { dir: full(dir)?, branches, nodes },
        })
    }
}

/// The folder of a node, numbered from 1.
fn node_folder(number: u16) -> String {
    if number == 1 { "registry".to_owned() } else { format!("registry-{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_what_is_in_it_and_only_grows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path();
        let several = |branches| Layout::Several { dir: dir.to_owned(), branches, nodes: 1 };
        let single = Layout::Single(dir.to_owned());
        assert_eq!(Layout::find(dir).expect("read"), None);
        for (wanted, expected) in [(None, several(2)), (Some(1), single.clone()), (Some(3), several(3))] {
            assert_eq!(Layout::of(dir, wanted).expect("new"), expected);
        }
        assert!(Layout::of(dir, Some(0)).is_err() && Layout::of(dir, Some(BRANCHES_MAX + 1)).is_err());

        std::fs::write(dir.join("branch.toml"), "").expect("ours");
        for wanted in [None, Some(1)] {
            assert_eq!(Layout::of(dir, wanted).expect("served as it is"), single);
        }
        assert!(Layout::of(dir, Some(2)).expect_err("it has no registry").to_string().contains("another folder"));
        std::fs::remove_file(dir.join("branch.toml")).expect("ours");

        for name in ["registry", "branch-1", "branch-2"] {
            std::fs::create_dir(dir.join(name)).expect("ours");
        }
        for (wanted, expected) in [(None, several(2)), (Some(2), several(2)), (Some(4), several(4))] {
            assert_eq!(Layout::of(dir, wanted).expect("served"), expected);
        }
        assert!(Layout::of(dir, Some(1)).expect_err("fewer").to_string().contains("tally cluster leave"));

        let three = several(2).with_nodes(Some(3)).expect("it may grow");
        assert_eq!(three.registry_dirs(), ["registry", "registry-2", "registry-3"].map(|name| dir.join(name)));
        assert_eq!(several(2).with_nodes(None).expect("as it is"), several(2));
        for (layout, wanted, why) in [
            (several(2), 2, "1, 3 or 5"),
            (several(2), 0, "1, 3 or 5"),
            (three.clone(), 1, "tally cluster leave"),
            (single, 3, "--branches"),
        ] {
            assert!(layout.with_nodes(Some(wanted)).expect_err("refused").to_string().contains(why), "{wanted}");
        }
        for name in ["registry-2", "registry-3"] {
            std::fs::create_dir(dir.join(name)).expect("ours");
        }
        assert_eq!(Layout::of(dir, None).expect("served"), three);
    }
}
