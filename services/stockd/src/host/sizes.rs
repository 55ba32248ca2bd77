//! Sizes that nobody chooses but tests, which would otherwise write for long before anything is
//! written down or cut. They are no keys of the configuration and stand in no help.

use clap::Args;
use stock_node::worker::{CheckpointPace, USUAL_CHECKPOINT_PACE};
use stock_storage::LogOptions;

/// Where they are left out everything is as large as usual.
#[derive(Debug, Default, Clone, Copy, Args)]
pub struct Sizes {
    /// Bytes of log after which a state is written down, however large it is
    #[arg(long, hide = true)]
    pub checkpoint_after_bytes: Option<u64>,
    /// Bytes of one file of the log
    #[arg(long, hide = true)]
    pub log_file_bytes: Option<u64>,
}

impl Sizes {
    /// How the log is kept.
    pub fn log_options(&self) -> LogOptions {
        let usual = LogOptions::default();
        LogOptions {
            file_bytes: self.log_file_bytes.unwrap_or(usual.file_bytes),
        }
    }

    /// When a checkpoint is due.
    pub fn checkpoint_pace(&self) -> CheckpointPace {
        match self.checkpoint_after_bytes {
            Some(log_bytes_min) => CheckpointPace {
                log_bytes_min,
                of_file_percent: 0,
            },
            None => USUAL_CHECKPOINT_PACE,
        }
    }
}
