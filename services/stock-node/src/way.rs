//! The way of a call through a node to whoever can answer it: to the leader of its group, wherever
//! that is; to a node that has a replica; to the leader of group 0. Decisions only: whoever carries
//! the call asks what is next, does it, and says what came of it.
//!
//! ```text
//! commands    here, or forwarded to the leader; nobody leads: again after a while, within bounds
//! reads       here, or sent on, once, to one node after the other that may know
//! operators   here, or sent on, once, to the leader of group 0
//! ```

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stock_cluster::GroupId;

use crate::answer::{Answer, Failure};
use crate::standing::ClusterState;

/// Calls wait this long for a leader from the first one on that found none, and are refused then:
/// an election takes up to a second (`stock-replica/src/settings.rs`). Later ones are refused at
/// once, so that their callers ask a node that knows or reaches one.
pub const LEADER_WITHIN_MS: u64 = 1_500;

/// It looks this often whether there is one.
pub const LEADER_CHECK_EVERY_MS: u64 = 20;

/// Calls that may wait for a leader; more are refused at once.
pub const WAITING_FOR_LEADER_MAX: usize = 1_024;

/// Calls of a node that wait for a leader.
#[derive(Debug, Default)]
pub struct WaitingForLeader {
    calls: AtomicUsize,
    /// The groups of which calls have found no leader lately.
    leaderless: Mutex<BTreeMap<GroupId, Leaderless>>,
    /// Whether there are any.
    are_leaderless: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Leaderless {
    /// When a call found no leader first, and last.
    since_ms: u64,
    seen_ms: u64,
}

impl WaitingForLeader {
    /// A call of a group has found nobody who leads: since when that is so.
    fn found_none(&self, group: GroupId, now_ms: u64) -> u64 {
        let mut leaderless = self.leaderless();
        let known = leaderless.entry(group).or_insert(Leaderless {
            since_ms: now_ms,
            seen_ms: now_ms,
        });
        // Whatever was long ago has nothing to do with it.
        if now_ms.saturating_sub(known.seen_ms) > LEADER_WITHIN_MS {
            known.since_ms = now_ms;
        }
        known.seen_ms = now_ms;
        self.are_leaderless.store(true, Ordering::Relaxed);
        known.since_ms
    }

    /// A call of a group was answered.
    fn found_one(&self, group: GroupId) {
        if self.are_leaderless.load(Ordering::Relaxed) {
            let mut leaderless = self.leaderless();
            leaderless.remove(&group);
            let are_some = !leaderless.is_empty();
            self.are_leaderless.store(are_some, Ordering::Relaxed);
        }
    }

    fn leaderless(&self) -> MutexGuard<'_, BTreeMap<GroupId, Leaderless>> {
        self.leaderless
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among them, given back when it is dropped.
#[derive(Debug)]
struct Place<W: Deref<Target = WaitingForLeader>>(W);

impl<W: Deref<Target = WaitingForLeader>> Place<W> {
    fn take(waiting: W) -> Option<Self> {
        let place = Self(waiting);
        let before = place.0.calls.fetch_add(1, Ordering::Relaxed);
        (before < WAITING_FOR_LEADER_MAX).then_some(place)
    }
}

impl<W: Deref<Target = WaitingForLeader>> Drop for Place<W> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way of commands to the leader of their group.
#[derive(Debug)]
pub struct ToLeader<W: Deref<Target = WaitingForLeader>> {
    own: u64,
    group: GroupId,
    waiting: W,
    /// Its place among those who wait.
    place: Option<Place<W>>,
    /// To whom it was forwarded last.
    forwarded: Option<u64>,
}

/// What is next for commands.
#[derive(Debug)]
pub enum Next {
    /// They go into the inbox of this node's own loop.
    Propose,
    /// They are forwarded to this node.
    Forward {
        /// By what this node knows, it leads.
        to: u64,
    },
    /// After so long it is to be asked once more.
    Wait {
        /// In milliseconds.
        ms: u64,
    },
    /// This is what comes of them.
    Answer(Answer),
}

impl<W: Deref<Target = WaitingForLeader> + Clone> ToLeader<W> {
    /// From this node. All calls of a node share `waiting`.
    pub fn new(own: u64, group: GroupId, waiting: W) -> Self {
        Self {
            own,
            group,
            waiting,
            place: None,
            forwarded: None,
        }
    }

    /// Where to at first, and after each wait. `now_ms` reads any clock that never goes back: only
    /// who has to wait needs it.
    pub fn next(&mut self, cluster: &ClusterState, now_ms: impl FnOnce() -> u64) -> Next {
        match cluster.group(self.group).leader {
            Some(leader) if leader == self.own => Next::Propose,
            Some(to) => {
                self.forwarded = Some(to);
                Next::Forward { to }
            }
            None => self.not_led(now_ms()),
        }
    }

    /// Whoever was asked has said this. That it does not lead ends nothing: nothing was done.
    pub fn answered(&mut self, answer: Answer, now_ms: impl FnOnce() -> u64) -> Next {
        match answer {
            Answer::Failed(Failure::NotLeader { .. }) => self.not_led(now_ms()),
            answer => {
                self.waiting.found_one(self.group);
                Next::Answer(answer)
            }
        }
    }

    fn not_led(&mut self, now_ms: u64) -> Next {
        let until_ms = self.waiting.found_none(self.group, now_ms) + LEADER_WITHIN_MS;
        if self.place.is_none() {
            self.place = Place::take(self.waiting.clone());
        }
        match &self.place {
            Some(_) if now_ms < until_ms => Next::Wait {
                ms: LEADER_CHECK_EVERY_MS,
            },
            _ => Next::Answer(Answer::Failed(Failure::NotLeader {
                leader: self.forwarded,
            })),
        }
    }
}

/// Who answers a call that a node may have to send on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answerer {
    /// This node.
    Here,
    /// One of these, the likeliest first: they are asked one after the other until one can answer.
    Others(Vec<u64>),
}

/// Who answers a read of a group: this node where it has a replica that knows anything, or where
/// the call was sent on to it. So every node answers every read as long as one node can.
pub fn of_read(cluster: &ClusterState, group: GroupId, was_sent_on: bool) -> Answerer {
    match was_sent_on || cluster.is_here(group) {
        true => Answerer::Here,
        false => Answerer::Others(cluster.others_with(group)),
    }
}

/// Who answers what only the leader of group 0 knows, or what only it may change: it, or this node
/// while nobody is known to lead.
pub fn of_operator(cluster: &ClusterState, own: u64, was_sent_on: bool) -> Answerer {
    match cluster.group(GroupId::META).leader {
        Some(leader) if leader != own && !was_sent_on => Answerer::Others(vec![leader]),
        _ => Answerer::Here,
    }
}

#[cfg(test)]
mod tests {
    use stock_cluster::identity::Acquaintances;

    use super::*;

    const OWN: u64 = 1;
    const GROUP: GroupId = GroupId(0);

    /// A cluster of one shard, of which nobody knows anything but who leads a group.
    fn led_by(leader: u64) -> ClusterState {
        let cluster = ClusterState::new(OWN, 2, Acquaintances::default());
        if leader != 0 {
            cluster.publish_hint(GROUP.index(), leader, 1);
        }
        cluster
    }

    fn not_leader() -> Answer {
        Answer::Failed(Failure::NotLeader { leader: None })
    }

    #[test]
    fn commands_go_to_the_leader_wherever_it_is_and_wait_for_one_within_bounds() {
        let waiting = WaitingForLeader::default();
        let mut way = ToLeader::new(OWN, GROUP, &waiting);
        assert!(matches!(way.next(&led_by(OWN), || 5), Next::Propose));
        assert!(matches!(
            way.next(&led_by(2), || 5),
            Next::Forward { to: 2 }
        ));
        assert_eq!(waiting.calls.load(Ordering::Relaxed), 0);
        // It leads no more, and nobody else does yet.
        assert!(matches!(
            way.answered(not_leader(), || 10),
            Next::Wait { .. }
        ));
        assert!(matches!(way.next(&led_by(0), || 30), Next::Wait { .. }));
        assert!(matches!(
            way.next(&led_by(3), || 50),
            Next::Forward { to: 3 }
        ));
        let late = 10 + LEADER_WITHIN_MS;
        assert!(matches!(
            way.answered(not_leader(), || late - 1),
            Next::Wait { .. }
        ));
        let over = way.answered(not_leader(), || late);
        assert!(matches!(
            over,
            Next::Answer(Answer::Failed(Failure::NotLeader { .. }))
        ));
        drop(way);
        assert_eq!(waiting.calls.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_group_that_has_had_no_leader_for_long_keeps_no_further_call_waiting() {
        let waiting = WaitingForLeader::default();
        let new = || ToLeader::new(OWN, GROUP, &waiting);
        // By what this node knows node 2 leads, and it does not reach that one.
        let cluster = led_by(2);
        let mut first = new();
        assert!(matches!(
            first.next(&cluster, || 0),
            Next::Forward { to: 2 }
        ));
        assert!(matches!(
            first.answered(not_leader(), || 0),
            Next::Wait { .. }
        ));
        let mut later = new();
        later.next(&cluster, || LEADER_WITHIN_MS);
        let refused = later.answered(not_leader(), || LEADER_WITHIN_MS);
        let Next::Answer(Answer::Failed(Failure::NotLeader { leader })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(leader, Some(2), "whoever asks is told");
        // An answer ends that, and so does time.
        let reached = Answer::Reached { applied_index: 1 };
        new().answered(reached, || LEADER_WITHIN_MS + 1);
        let mut next = new();
        next.next(&cluster, || LEADER_WITHIN_MS + 2);
        let waits = next.answered(not_leader(), || LEADER_WITHIN_MS + 2);
        assert!(matches!(waits, Next::Wait { .. }));
        let much_later = 10 * LEADER_WITHIN_MS;
        assert!(matches!(
            new().answered(not_leader(), || much_later),
            Next::Wait { .. }
        ));
    }

    #[test]
    fn whatever_may_have_been_done_is_not_tried_again() {
        let waiting = WaitingForLeader::default();
        let mut way = ToLeader::new(OWN, GROUP, &waiting);
        for failure in [Failure::OutcomeUnknown, Failure::Overloaded] {
            let next = way.answered(Answer::Failed(failure), || 5);
            assert!(matches!(next, Next::Answer(Answer::Failed(f)) if f == failure));
        }
    }

    #[test]
    fn no_more_calls_wait_for_a_leader_than_there_are_places() {
        let waiting = WaitingForLeader::default();
        let cluster = led_by(0);
        let mut ways: Vec<_> = (0..WAITING_FOR_LEADER_MAX)
            .map(|_| ToLeader::new(OWN, GROUP, &waiting))
            .collect();
        for way in &mut ways {
            assert!(matches!(way.next(&cluster, || 0), Next::Wait { .. }));
        }
        let mut late = ToLeader::new(OWN, GROUP, &waiting);
        assert!(matches!(late.next(&cluster, || 0), Next::Answer(_)));
        drop(ways);
        assert!(matches!(late.next(&cluster, || 0), Next::Wait { .. }));
    }

    #[test]
    fn what_is_not_known_here_is_asked_of_others_once() {
        let cluster = led_by(2);
        cluster.set_reachable(2, true);
        assert_eq!(of_read(&cluster, GROUP, false), Answerer::Others(vec![2]));
        assert_eq!(of_read(&cluster, GROUP, true), Answerer::Here);
        assert_eq!(of_operator(&cluster, OWN, false), Answerer::Others(vec![2]));
        assert_eq!(of_operator(&cluster, OWN, true), Answerer::Here);
        assert_eq!(of_operator(&led_by(OWN), OWN, false), Answerer::Here);
        assert_eq!(of_operator(&led_by(0), OWN, false), Answerer::Here);
    }
}
