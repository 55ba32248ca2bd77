//! Which node a call goes to. Nothing here knows a connection or a clock.

use crate::route::Target;
use crate::topology::Topology;

/// A node that a call may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its id; none for an address that stands for no node in particular, such as that of a load
    /// balancer.
    pub node: Option<u64>,
    /// It did not answer lately.
    pub is_suspect: bool,
    /// It has just failed this call.
    pub is_avoided: bool,
}

/// The best of so many candidates, which are the topology's nodes in their order, and others behind
/// them: the one that answers `target` itself, unless it has just failed this call or is suspect.
/// Those that are as good as each other take turns.
pub fn choose(
    topology: &Topology,
    target: Target,
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    turn: usize,
) -> Option<usize> {
    let leader = topology.leader_for(target);
    let in_turn = (0..count).map(|step| turn.wrapping_add(step) % count);
    in_turn.min_by_key(|index| {
        let is_unseen = topology
            .nodes()
            .get(*index)
            .is_some_and(|node| !topology.saw(node));
        let Candidate {
            node,
            is_suspect,
            is_avoided,
        } = candidate(*index);
        let is_follower = leader.is_some() && node != leader;
        (
            is_suspect,
            is_avoided,
            is_unseen,
            node.is_none(),
            is_follower,
        )
    })
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::{GetTopologyResponse, Node, Shard};

    use super::*;

    /// Three nodes, of which the second leads shard 0, and an address of none.
    fn topology() -> Topology {
        let node = |node_id| Node {
            node_id,
            reachable: true,
            ..Node::default()
        };
        Topology::new(GetTopologyResponse {
            node_id: 1,
            nodes: [1, 2, 3].map(node).into(),
            shard_count: 1,
            shards: vec![Shard {
                leader_node_id: Some(2),
                term: 1,
                ..Shard::default()
            }],
            ..GetTopologyResponse::default()
        })
    }

    fn chosen(target: Target, suspect: &[usize], avoided: &[usize], turn: usize) -> usize {
        let candidate = |index: usize| Candidate {
            node: [Some(1), Some(2), Some(3), None][index],
            is_suspect: suspect.contains(&index),
            is_avoided: avoided.contains(&index),
        };
        choose(&topology(), target, 4, candidate, turn).unwrap()
    }

    #[test]
    fn the_leader_answers_unless_it_has_just_failed() {
        let shard = Target::Shard(0);
        assert!((0..4).all(|turn| chosen(shard, &[], &[], turn) == 1));
        assert_ne!(chosen(shard, &[1], &[], 1), 1);
        assert_ne!(chosen(shard, &[], &[1], 1), 1);
        assert_eq!(
            chosen(shard, &[0, 2, 3], &[1], 0),
            1,
            "rather than a suspect"
        );
    }

    #[test]
    fn what_anybody_answers_goes_round() {
        let turns = [0, 1, 2, 4, usize::MAX];
        let asked = turns.map(|turn| chosen(Target::Any, &[], &[], turn));
        assert_eq!(asked, [0, 1, 2, 0, 0]);
        assert_eq!(
            chosen(Target::Any, &[0, 1, 2], &[], 0),
            3,
            "the address of none"
        );
    }

    #[test]
    fn of_no_node_there_is_none() {
        let none = |_| unreachable!("there is none");
        assert_eq!(choose(&topology(), Target::Any, 0, none, 7), None);
    }
}
