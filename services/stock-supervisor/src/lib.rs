//! Clusters of real processes on one machine, as `stockd dev`, tests and load tests run them: how a
//! process is started and ended, what a node is told, and what a cluster looks like that is well.

pub mod health;
pub mod page;
pub mod ports;
mod process;
mod serve;
mod settings;
mod spawner;

pub use self::process::{Process, memory_bytes};
pub use self::serve::{Serve, without_settings};
pub use self::settings::{Beginning, Place, Settings};
