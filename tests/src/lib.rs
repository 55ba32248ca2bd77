//! What the tests of the whole system are made of: a cluster of real processes that can be killed
//! and paused, disks that forget, networks that break, raw calls, a shop that trades meanwhile and
//! keeps a tally, a look at what stopped nodes left, and a few words about stock.
//!
//! Everything here waits for conditions, never for time, and every wait has a bound with a name.

pub mod buyers;
pub mod cluster;
pub mod crowd;
pub mod damage;
pub mod directories;
pub mod forgetful_disk;
pub mod holes;
pub mod inspection;
pub mod names;
pub mod network;
pub mod operator;
pub mod programs;
pub mod raw;
pub mod receipts;
pub mod settings;
pub mod shop;
pub mod sim;
pub mod stock;
pub mod visitor;
pub mod wait;
