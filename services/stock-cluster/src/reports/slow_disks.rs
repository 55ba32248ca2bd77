//! Which nodes' disks are slow: so slow, beside the others', that they should lead nothing.
//!
//! An entry is durable once a majority of disks have it, but it is the leader that takes every call
//! in before its own disk and answers it after: a slow disk under a leader is felt by every caller,
//! one under a follower by nobody. So leadership goes elsewhere, and the replicas stay.
//!
//! A disk is judged by each report of its node, and only beside the others: where most are slow,
//! there is no better place.

use std::collections::BTreeMap;

use crate::ids::Directory;

/// A disk is never called slow while half of its writes take less than this, in microseconds.
/// Network disks take some milliseconds, old ones with a busy queue twenty; callers feel fifty.
pub const SLOW_WRITE_US_MIN: u64 = 50_000;

/// A slow disk takes so many times as long as the others. What all disks share, such as a load that
/// is too much for them, makes less of a difference; a disk about to fail, or a noisy neighbour,
/// makes more.
pub const SLOW_TIMES_THE_OTHERS: u64 = 4;

/// A disk is slow after so many reports in a row that say so. Each is of the median write of some
/// seconds, so that a pause does not come so far; and a node that waits for its disk reports less
/// often than others, once in two seconds at worst.
pub const SLOW_AFTER_REPORTS: u32 = 3;

/// It is slow no more after so many reports in a row that it keeps up: a minute. Disks that are
/// slow now and then would otherwise have leadership go to and fro, and every hand-over costs
/// callers a little.
pub const FAST_AFTER_REPORTS: u32 = 120;

/// The disks of all nodes that were heard.
#[derive(Debug, Clone, Default)]
pub struct SlowDisks {
    disks: BTreeMap<u64, Disk>,
}

#[derive(Debug, Clone, Copy)]
struct Disk {
    directory: Directory,
    is_slow: bool,
    /// Reports in a row that say otherwise.
    otherwise: u32,
}

impl SlowDisks {
    /// Takes note of a report: half of the node's latest writes took `write_us` at most, and those
    /// of the other nodes took `others_us`. Who has written too little to tell is not among them,
    /// and is not judged.
    pub(super) fn hear(
        &mut self,
        node: u64,
        directory: Directory,
        write_us: Option<u64>,
        others_us: Vec<u64>,
    ) {
        let unknown = Disk {
            directory,
            is_slow: false,
            otherwise: 0,
        };
        let disk = self.disks.entry(node).or_insert(unknown);
        if disk.directory != directory {
            *disk = unknown;
        }
        let Some(seems_slow) = write_us.and_then(|write_us| seems_slow(write_us, others_us)) else {
            return;
        };
        if seems_slow == disk.is_slow {
            disk.otherwise = 0;
            return;
        }
        disk.otherwise += 1;
        let enough = match disk.is_slow {
            true => FAST_AFTER_REPORTS,
            false => SLOW_AFTER_REPORTS,
        };
        if disk.otherwise >= enough {
            disk.is_slow = seems_slow;
            disk.otherwise = 0;
        }
    }

    /// Whether a node's disk is slow.
    pub fn is_slow(&self, node: u64) -> bool {
        self.disks.get(&node).is_some_and(|disk| disk.is_slow)
    }

    /// Whether it is slow or, as its last report says, may be.
    pub fn may_be_slow(&self, node: u64) -> bool {
        let disk = self.disks.get(&node);
        disk.is_some_and(|disk| disk.is_slow || disk.otherwise > 0)
    }
}

/// `None` where there is nothing to compare with.
fn seems_slow(write_us: u64, mut others_us: Vec<u64>) -> Option<bool> {
    if write_us < SLOW_WRITE_US_MIN {
        return Some(false);
    }
    others_us.sort_unstable();
    // Of two in the middle the slower one: then half of the nodes or more are never slow at once,
    // and leadership is never crowded onto a few whose entries wait for the slow majority all the
    // same.
    let median_us = *others_us.get(others_us.len() / 2)?;
    Some(write_us >= median_us.saturating_mul(SLOW_TIMES_THE_OTHERS))
}
