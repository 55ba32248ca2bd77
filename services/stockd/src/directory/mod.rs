//! What a node has in its data directory: the log, checkpoints, and whose it is.

pub mod bring_back;
pub mod checkpoint_files;
pub mod disk;
pub mod forgotten;
pub mod node_record;
