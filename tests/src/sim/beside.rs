//! What works beside the loop of a node: its files, its ledger, and the snapshots that it sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use stock_cluster::{GroupId, ReplicaId};
use stock_node::chore::Chore;
use stock_node::ledger_rows::Page;
use stock_storage::{CheckpointInfo, CheckpointStore, Purger};
use stockd::host::chores::Chores;

use super::checks::{Checked, broken};

/// What works beside the loop of a node that runs.
pub(crate) struct Helpers {
    pub(crate) chores: Chores,
    pub(crate) waiting: VecDeque<Chore>,
    pub(crate) ledger_sync_is_due: bool,
}

impl Helpers {
    pub(crate) fn new(
        store: CheckpointStore,
        purger: Purger,
        incarnation: u128,
        directory: u128,
    ) -> Self {
        Self {
            chores: Chores {
                store,
                purger,
                incarnation,
                directory,
            },
            waiting: VecDeque::new(),
            ledger_sync_is_due: false,
        }
    }
}

/// How far the ledger of each group has come.
#[derive(Debug, Default, Clone)]
pub(crate) struct LedgerModel {
    pub(crate) durable: BTreeMap<GroupId, u64>,
    /// A snapshot has come, or history was lost: it may begin anew.
    pub(crate) may_begin_anew: BTreeSet<GroupId>,
    pub(crate) written: BTreeMap<GroupId, u64>,
}

impl LedgerModel {
    pub(crate) fn durable_indexes(&self, groups: u32) -> Vec<Option<u64>> {
        let groups = (0..groups).map(GroupId);
        groups
            .map(|group| self.durable.get(&group).copied())
            .collect()
    }

    pub(crate) fn lose_what_was_not_synced(&mut self) {
        self.written.clone_from(&self.durable);
    }

    /// What is known of a group is lost. `false` if there was nothing to lose.
    pub(crate) fn lose(&mut self, group: GroupId) -> bool {
        self.written.remove(&group);
        self.may_begin_anew.insert(group);
        self.durable.remove(&group).is_some()
    }

    /// Takes a page, and sees that nothing is missing before it.
    pub(crate) fn take(&mut self, page: &Page) -> Checked {
        match page {
            Page::Rows(rows) => {
                let known = self.written.get(&rows.group).copied();
                if known.is_some_and(|known| known < rows.after) {
                    return broken(
                        "gapless history",
                        format!(
                            "the ledger of {:?} ends at {known:?}, and what comes next begins \
                             after {}",
                            rows.group, rows.after
                        ),
                    );
                }
                let is_ordered = rows.rows.iter().is_sorted_by_key(|(index, _)| index)
                    && rows
                        .rows
                        .iter()
                        .all(|(index, _)| index > rows.after && index <= rows.to);
                if !is_ordered {
                    return broken("gapless history", format!("{rows:?} is out of order"));
                }
                let reached = known.unwrap_or(0).max(rows.to);
                self.written.insert(rows.group, reached);
            }
            Page::Begin { group, after } => {
                if !self.may_begin_anew.remove(group) {
                    return broken(
                        "gapless history",
                        format!(
                            "the ledger of {group:?} begins anew after {after}, and no snapshot \
                             came"
                        ),
                    );
                }
                self.written.insert(*group, *after);
                self.durable.remove(group);
            }
            Page::Forget(group) => {
                self.written.remove(group);
                self.durable.remove(group);
            }
        }
        Ok(())
    }
}

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct SnapshotUnderWay {
    pub(crate) from: u64,
    pub(crate) boot: u64,
    pub(crate) to: ReplicaId,
    pub(crate) group: GroupId,
    pub(crate) info: CheckpointInfo,
    pub(crate) content: Vec<u8>,
    pub(crate) envelope: Bytes,
}
