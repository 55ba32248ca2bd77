//! A term has one leader.

use std::collections::BTreeMap;

use stock_cluster::GroupId;

use super::{Checked, broken};

/// Who led what, and when.
#[derive(Default)]
pub(crate) struct Leaders {
    by_term: BTreeMap<(GroupId, u64), u64>,
}

impl Leaders {
    /// A node says that another, or it itself, leads a group in a term.
    pub(crate) fn saw(&mut self, group: GroupId, term: u64, leader: u64) -> Checked {
        let known = *self.by_term.entry((group, term)).or_insert(leader);
        if known == leader {
            return Ok(());
        }
        broken(
            "one leader",
            format!("term {term} of {group:?} is led by node {known} and by node {leader}"),
        )
    }

    /// Who led a group in this term, if anybody said so.
    pub(crate) fn of(&self, group: GroupId, term: u64) -> Option<u64> {
        self.by_term.get(&(group, term)).copied()
    }

    /// Whether a group had a leader in a later term than this.
    pub(crate) fn is_led_after(&self, group: GroupId, term: u64) -> bool {
        let later = (group, term + 1)..=(group, u64::MAX);
        self.by_term.range(later).next().is_some()
    }

    /// How many terms had a leader.
    pub(crate) fn terms(&self) -> usize {
        self.by_term.len()
    }
}
