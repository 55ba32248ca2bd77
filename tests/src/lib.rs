//! What the tests of the whole system are made of: a cluster of real processes that can be killed and
//! paused, raw calls to it, and a few words about stock.
//!
//! Everything here waits for conditions, never for time, and every wait has a bound with a name.

pub mod cluster;
pub mod names;
pub mod ports;
pub mod programs;
pub mod raw;
pub mod spawner;
pub mod stock;
pub mod wait;
