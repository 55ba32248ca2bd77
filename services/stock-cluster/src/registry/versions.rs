//! Which version the cluster speaks.

use super::{NodeState, Refusal, Registry};

impl Registry {
    /// The version that the cluster speaks: see [`crate::Speaks`]. 0 before it was founded.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// One that is reached is no mistake: an operator may say it twice.
    pub(super) fn raise_version(&mut self, version: u32) -> Result<(), Refusal> {
        let current = self.version;
        if version == current {
            return Ok(());
        }
        if version != current + 1 {
            return Err(Refusal::NotNextVersion { version, current });
        }
        // Who was announced and is not there yet is refused when it comes.
        let mut joined = self
            .nodes
            .iter()
            .filter(|(_, record)| record.state != NodeState::Removed && record.directory.is_some());
        if let Some((node, record)) = joined.find(|(_, record)| record.newest_version < version) {
            return Err(Refusal::NodeTooOld {
                node: *node,
                newest: record.newest_version,
                version,
            });
        }
        self.version = version;
        Ok(())
    }
}
