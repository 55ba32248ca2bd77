//! What a recovery has given up, kept in every directory that it was done with:
//! `recovered-LIFE.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stock_storage::{LogError, Volume, read_file, write_file};

use super::DataDir;
use super::plan::{Fate, GroupPlan, Plan};

/// Between these, in a file's name, are the first digits of the life that began.
const NAME: (&str, &str) = ("recovered-", ".json");
const DIGITS: usize = 12;

/// What a recovery has given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The life of the cluster that began with it: hexadecimal.
    pub life: String,
    /// The life that it went on from: hexadecimal.
    pub went_on_from: String,
    /// The nodes whose directories were gone on from.
    pub nodes: Vec<u64>,
    /// The nodes whose directories were there, and of another life: nothing of them was used.
    pub left_out: Vec<u64>,
    /// The nodes that were lost, as the registry knew them.
    pub lost_nodes: Vec<u64>,
    /// Every group, group 0 first.
    pub groups: Vec<GroupAccount>,
}

/// What became of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAccount {
    /// What people call it.
    pub name: String,
    /// What became of it.
    pub fate: FateOfGroup,
    /// The replica that was gone on from: NODE or NODE.GENERATION.
    pub replica: Option<String>,
    /// As of this index.
    pub index: Option<u64>,
    /// Why the replica would not have gone on by itself, if more than its peers was missing.
    pub lack: Option<String>,
    /// The indexes, first and last, of which it was known that something was committed there, and
    /// which are lost.
    pub lost: Option<(u64, u64)>,
}

/// See [`Fate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FateOfGroup {
    /// Most of its voters were left.
    Kept,
    /// One replica became the only voter.
    Recovered,
    /// Nothing was left.
    Lost,
}

impl Account {
    /// Of a plan that is carried out, into this life.
    pub(super) fn of(plan: &Plan, dirs: &[DataDir], life: u128) -> Self {
        let kept = (0..dirs.len()).find(|at| !plan.outdated.contains(at));
        let from = kept.map_or(0, |at| dirs[at].record.incarnation());
        Self {
            life: format!("{life:032x}"),
            went_on_from: format!("{from:032x}"),
            nodes: plan.nodes.clone(),
            left_out: plan
                .outdated
                .iter()
                .map(|at| dirs[*at].record.node_id)
                .collect(),
            lost_nodes: plan.lost_nodes.clone(),
            groups: plan.groups.iter().map(GroupAccount::of).collect(),
        }
    }

    /// Writes it to a directory, unless it is there: who goes on with a recovery that was
    /// interrupted sees another plan.
    pub(super) fn write(&self, volume: &dyn Volume, dir: &Path) -> Result<(), LogError> {
        let (begin, end) = NAME;
        let path = dir.join(format!("{begin}{}{end}", &self.life[..DIGITS]));
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let write = || {
            if volume.list(dir)?.contains(&path) {
                return Ok(());
            }
            write_file(volume, &path, text.as_bytes())
        };
        write().map_err(|source| LogError::Io {
            action: "write",
            path: path.clone(),
            source,
        })
    }

    /// Those in a directory, by their names; and files that are none, with the reason.
    pub(super) fn all_in(volume: &dyn Volume, dir: &Path) -> (Vec<Self>, Vec<(PathBuf, String)>) {
        let (begin, end) = NAME;
        let is_one = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(begin) && name.ends_with(end)
        };
        let files = volume
            .list(dir)
            .unwrap_or_default()
            .into_iter()
            .filter(is_one);
        let (mut accounts, mut damaged) = (Vec::new(), Vec::new());
        for path in files {
            let read = read_file(volume, &path).map_err(|error| error.to_string());
            let account = read
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            match account {
                Ok(account) => accounts.push(account),
                Err(error) => damaged.push((path, error)),
            }
        }
        (accounts, damaged)
    }
}

impl GroupAccount {
    fn of(plan: &GroupPlan) -> Self {
        let chosen = plan.chosen().filter(|_| plan.fate == Fate::Recovered);
        Self {
            name: plan.group.to_string(),
            fate: match plan.fate {
                Fate::Kept => FateOfGroup::Kept,
                Fate::Recovered => FateOfGroup::Recovered,
                Fate::Lost => FateOfGroup::Lost,
            },
            replica: chosen.map(|chosen| chosen.replica.to_string()),
            index: chosen.map(|chosen| chosen.ending.point.index),
            lack: chosen.and_then(|chosen| chosen.lack.clone()),
            lost: plan.lost(),
        }
    }
}
