//! stockd: the server.

pub mod cluster_state;
pub mod disk;
pub mod host;
pub mod inbox;
pub mod log_codec;
pub mod peers;
pub mod telemetry;
pub mod view;
pub mod worker;
