//! What a data directory has.

use std::sync::Arc;

use stock_storage::{CheckpointStore, Ledger, OnDamage, OsVolume, Volume};

use super::error::NodeError;
use crate::config::Config;
use crate::directory::disk::Disk;
use crate::directory::forgotten;
use crate::directory::node_record::NodeRecord;
use crate::host::sizes::Sizes;

/// What a data directory has, open.
pub(super) struct Stores {
    pub(super) volume: Arc<dyn Volume>,
    pub(super) disk: Disk,
    pub(super) checkpoints: CheckpointStore,
    pub(super) record: NodeRecord,
}

impl Stores {
    /// Opens it, and puts what was forgotten behind it.
    pub(super) fn open(config: &Config, sizes: &Sizes) -> Result<Self, NodeError> {
        let volume: Arc<dyn Volume> = Arc::new(OsVolume);
        let options = sizes.log_options();
        let disk = Disk::open(&volume, &config.data_dir, &options, OnDamage::Salvage)?;
        let checkpoints = CheckpointStore::open(Arc::clone(&volume), &config.data_dir)?;
        for damaged in checkpoints.damaged() {
            tracing::error!(file = %damaged.path.display(), reason = damaged.reason, "a checkpoint \
                is damaged; an older one, or a peer, takes its place");
        }
        let mut record = NodeRecord::open(&disk, config)?;
        if forgotten::is_said(&*volume, &config.data_dir)? {
            tracing::error!(
                "what this data directory held is not used: it joins anew, as an empty one does, \
                 once the others let it in"
            );
            record.renounce();
            record.write(&disk)?;
            forgotten::settle(&*volume, &config.data_dir)?;
        }
        Ok(Self {
            volume,
            disk,
            checkpoints,
            record,
        })
    }

    /// Whether nothing was ever kept in it: whoever had something is not one to found a cluster
    /// with.
    pub(super) fn is_new(&self, config: &Config) -> bool {
        let checkpoints = &self.checkpoints;
        let has_states = !checkpoints.groups().is_empty() || !checkpoints.damaged().is_empty();
        !self.record.must_join_anew() && !has_states && !Ledger::is_in(&config.data_dir)
    }
}
