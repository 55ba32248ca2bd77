//! Replicas of equal index have equal states.

use std::collections::BTreeMap;

use stock_cluster::GroupId;

use super::{Checked, broken};

/// The state hashes seen at each index.
#[derive(Default)]
pub(crate) struct Replicas {
    seen: BTreeMap<(GroupId, u64), (u128, String)>,
    compared: u64,
}

impl Replicas {
    /// A replica has this state hash at this index.
    pub(crate) fn saw(&mut self, group: GroupId, index: u64, hash: u128, whose: &str) -> Checked {
        match self.seen.get(&(group, index)) {
            Some((known, by)) if *known != hash => broken(
                "equal replicas",
                format!(
                    "{group:?} at index {index} is {known:032x} on {by} and {hash:032x} on {whose}"
                ),
            ),
            Some(_) => {
                self.compared += 1;
                Ok(())
            }
            None => {
                self.seen.insert((group, index), (hash, whose.to_owned()));
                Ok(())
            }
        }
    }

    /// How many states were compared with another.
    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }
}
