//! Every raft setting, with its reason. One tick is 50 ms (the driver's choice).

use std::ops::Range;

use raft::{Config, ReadOnlyOption};

/// Ticks between a leader's heartbeats: 100 ms.
pub const HEARTBEAT_TICKS: usize = 2;

/// Shortest election timeout: 700 ms, seven heartbeats, so that a stall of the disk or the
/// scheduler does not cost a leader. Draws end below [`ELECTION_TICKS_MAX`], 1,100 ms, so that
/// writes resume within 1.5 s after a leader is lost, the election included.
pub const ELECTION_TICKS_MIN: usize = 14;
/// See [`ELECTION_TICKS_MIN`].
pub const ELECTION_TICKS_MAX: usize = 22;

/// A follower whose connection to the leader has ended stands for election so soon: 200 ms, in
/// which a leader that lives has connected again and sent a heartbeat.
pub const LEADER_LOST_TICKS: usize = 4;

/// So much later for each voter with a smaller id, so that they do not stand against each other:
/// 100 ms, in which an election is over.
pub(crate) const LEADER_LOST_TICKS_APART: usize = 2;

/// Largest entry: what fits into one message and one write without holding others up.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Entries of one append, in bytes: a follower that lags catches up in messages of this size.
const APPEND_BYTES_MAX: u64 = 256 * 1024;

/// Appends under way to one follower, whatever the window: one at least, and no more than a healthy
/// follower ever needs.
const APPENDS_IN_FLIGHT: std::ops::RangeInclusive<u64> = 1..=64;

/// Proposed and not yet committed; past this, proposals are refused. A leader that has lost its
/// quorum must not fill its memory before it steps down.
const UNCOMMITTED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Bytes of committed entries handed out at once: a restart applies a long log in many turns, each
/// of about ten milliseconds, so that a node answers meanwhile.
pub const COMMITTED_BYTES_PER_TURN: u64 = 512 * 1024;

/// What differs from replica to replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The replica's id; never 0.
    pub replica_id: u64,
    /// Bounds what may be on its way to one follower of this group, not yet acknowledged. Groups
    /// share a connection, so the driver divides what one connection may hold.
    pub window_bytes: u64,
    /// From which election timeouts are drawn. raft draws them from a generator that cannot be
    /// seeded; where a run must be repeatable, let one value fit.
    pub election_ticks: Range<usize>,
    /// [`COMMITTED_BYTES_PER_TURN`], but where short logs are to be replayed in many turns.
    pub committed_bytes_per_turn: u64,
}

impl Settings {
    /// With the usual election timeouts.
    pub fn new(replica_id: u64, window_bytes: u64) -> Self {
        Self {
            replica_id,
            window_bytes,
            election_ticks: ELECTION_TICKS_MIN..ELECTION_TICKS_MAX,
            committed_bytes_per_turn: COMMITTED_BYTES_PER_TURN,
        }
    }
}

/// How many appends may be under way to one follower of a group with this window. One entry may be
/// four times an append, so that they are four windows at most, where those are as large as an
/// append.
fn appends_in_flight(window_bytes: u64) -> u64 {
    let in_flight = window_bytes / APPEND_BYTES_MAX;
    in_flight.clamp(*APPENDS_IN_FLIGHT.start(), *APPENDS_IN_FLIGHT.end())
}

pub(crate) fn config(settings: &Settings, applied: u64) -> Config {
    Config {
        id: settings.replica_id,
        applied,
        heartbeat_tick: HEARTBEAT_TICKS,
        election_tick: ELECTION_TICKS_MIN,
        min_election_tick: settings.election_ticks.start,
        max_election_tick: settings.election_ticks.end,
        // The default, 0, would send one entry a message.
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: appends_in_flight(settings.window_bytes) as usize,
        // A leader that hears no quorum steps down instead of collecting what it cannot commit.
        check_quorum: true,
        // A node that was away asks before it raises the term: a healthy leader stays.
        pre_vote: true,
        // One round to a quorum for each batch of reads. A lease would save the round and trust
        // clocks; a voter that restarts fast breaks it (tikv/tikv#15035).
        read_only_option: ReadOnlyOption::Safe,
        // Followers learn of a commit with the next message instead of one made for it. The driver
        // pings soon after an unannounced commit, see `Replica::has_unannounced_commit`.
        skip_bcast_commit: true,
        // The driver already makes one entry of all that waits; merging appends would copy them.
        batch_append: false,
        // Placement is done by transferring leadership, not by winning elections.
        priority: 0,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: settings.committed_bytes_per_turn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a floor of four, what more than 32 groups had under way was more than their connection
    /// holds, and a follower that lagged was disconnected again and again.
    #[test]
    fn what_is_under_way_is_four_windows_at_most_however_many_share_a_connection() {
        let shared: u64 = 32 << 20;
        for groups in 1..=shared / APPEND_BYTES_MAX {
            let under_way = appends_in_flight(shared / groups) * ENTRY_BYTES_MAX as u64;
            assert!(under_way * groups <= 4 * shared, "{groups} groups");
        }
    }

    #[test]
    fn raft_accepts_the_settings() {
        super::config(&super::Settings::new(1, 1 << 20), 0)
            .validate()
            .unwrap();
    }
}
