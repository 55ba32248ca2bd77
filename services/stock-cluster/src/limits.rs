//! How much of what there may be in a cluster.

/// The largest id of a node: it is half of a replica's id.
pub const NODE_ID_MAX: u64 = u32::MAX as u64;

/// Replica moves under way in the whole cluster. One snapshot at a time leaves disks and network to
/// callers, and one change at a time can be followed by a person.
pub const MOVES_MAX: usize = 1;

/// Nodes that are in the cluster at once.
pub const NODES_MAX: usize = 128;

/// Nodes that a cluster remembers, removed ones included: those are fenced for ever.
pub const NODES_EVER_MAX: usize = 4_096;

/// Longest address of a node, in bytes: a host name has 253 at most.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// Longest reason for which a replica is called failed, in bytes.
pub const FAILURE_BYTES_MAX: usize = 512;

/// How often a group's leader and every node report to the leader of group 0, in milliseconds. The
/// controller decides as often.
pub const REPORT_EVERY_MS: u64 = 500;
