//! What is left to do where most nodes are lost for good. `stockd recover` does it, on nodes that
//! do not run; here an operator learns whether it has come to that.

use std::collections::BTreeMap;

use stock_proto::stock::v1::GetTopologyResponse;

/// The cluster as all nodes see it that answer: a group is led where its leader says so himself.
/// One node alone may be cut off from all others, or remember a leader that is gone.
pub(super) fn together(
    seen: GetTopologyResponse,
    answers: &BTreeMap<u64, GetTopologyResponse>,
) -> GetTopologyResponse {
    let led_by = |group: fn(&GetTopologyResponse, u32) -> Option<u64>, shard: u32| {
        let leaders = answers.iter();
        let mut leaders = leaders.filter(|(node, answer)| group(answer, shard) == Some(**node));
        leaders.next().map(|(node, _)| *node)
    };
    let meta = |answer: &GetTopologyResponse, _| answer.meta.as_ref()?.leader_node_id;
    let shard = |answer: &GetTopologyResponse, number: u32| {
        let mut shards = answer.shards.iter();
        shards.find(|shard| shard.shard == number)?.leader_node_id
    };
    let mut seen = seen;
    if let Some(group) = &mut seen.meta {
        group.leader_node_id = led_by(meta, group.shard);
    }
    for group in &mut seen.shards {
        group.leader_node_id = led_by(shard, group.shard);
    }
    for node in &mut seen.nodes {
        node.reachable = answers.contains_key(&node.node_id);
    }
    seen
}

/// Groups without a leader: shards by number, and whether the meta group is among them.
fn leaderless(topology: &GetTopologyResponse) -> Vec<String> {
    let meta = topology
        .meta
        .iter()
        .filter(|meta| meta.leader_node_id.is_none());
    let shards = topology.shards.iter();
    let shards = shards.filter(|shard| shard.leader_node_id.is_none());
    meta.map(|_| "the meta group".to_owned())
        .chain(shards.map(|shard| format!("shard {}", shard.shard)))
        .collect()
}

/// Whether some group has no leader.
pub(super) fn is_needed(topology: &GetTopologyResponse) -> bool {
    !leaderless(topology).is_empty()
}

/// What an operator should do, without a last line break.
pub(super) fn advice(topology: &GetTopologyResponse) -> String {
    let cluster = &topology.cluster_id;
    let leaderless = leaderless(topology);
    if leaderless.is_empty() {
        return format!(
            "Every group of cluster {cluster} has a leader that says so itself: there is nothing \
             to recover."
        );
    }
    let here = |node: u64, reachable: bool| reachable || node == topology.node_id;
    let (left, silent): (Vec<_>, Vec<_>) = topology
        .nodes
        .iter()
        .partition(|node| here(node.node_id, node.reachable));
    let ids = |nodes: &[&stock_proto::stock::v1::Node]| {
        let ids: Vec<String> = nodes.iter().map(|node| node.node_id.to_string()).collect();
        match ids.is_empty() {
            true => "none".to_owned(),
            false => ids.join(", "),
        }
    };
    let dirs: String = left
        .iter()
        .map(|node| format!(" --data-dir DATA_DIR_OF_NODE_{}", node.node_id))
        .collect();
    let stops: String = left
        .iter()
        .map(|node| {
            format!(
                "\n     on {} (node {}): stop stockd",
                node.endpoint, node.node_id
            )
        })
        .collect();
    format!(
        "No leader: {}\nNodes that answer: {}\nNodes that do not: {}\n\n\
         If one of the silent nodes can come back with its disk, start it: that is all, and \
         nothing is lost.\n\
         Only if they are lost for good, with their disks (docs/recovery.md has more):\n\n\
         1. Stop every node that is left.{stops}\n\
         2. Bring their data directories together on one machine, and look at what would be \
         done:\n     \
         stockd recover{dirs}\n\
         3. Do it:\n     \
         stockd recover{dirs} --lose-everything-else --confirm {cluster}\n\
         4. Bring the directories back and start the nodes. Then start fresh ones, with empty \
         directories:\n     \
         stockd serve --cluster-id {cluster} --join ADDRESS_FOR_NODES_OF_NODE_{} ...",
        leaderless.join(", "),
        ids(&left),
        ids(&silent),
        left.first().map_or(1, |node| node.node_id),
    )
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::{Node, Shard};

    use super::*;

    fn topology(leaders: [u64; 3]) -> GetTopologyResponse {
        let [meta, shards @ ..] = leaders;
        let shard = |(shard, leader_node_id)| Shard {
            shard,
            leader_node_id: Some(leader_node_id).filter(|node| *node != 0),
            ..Shard::default()
        };
        GetTopologyResponse {
            cluster_id: "shop".to_owned(),
            node_id: 1,
            nodes: [(1, false), (2, false), (4, true)]
                .map(|(node_id, reachable)| Node {
                    node_id,
                    endpoint: format!("http://n{node_id}"),
                    reachable,
                })
                .into(),
            meta: Some(shard((0, meta))),
            shards: (0..).zip(shards).map(shard).collect(),
            ..GetTopologyResponse::default()
        }
    }

    #[test]
    fn a_group_is_led_where_its_leader_says_so() {
        let answer = |node_id, leaders| GetTopologyResponse {
            node_id,
            ..topology(leaders)
        };
        // Node 1 hears nobody, and the other two go on without it.
        let apart = [
            answer(1, [0, 0, 0]),
            answer(2, [2, 4, 4]),
            answer(4, [2, 4, 4]),
        ];
        let answers = apart.map(|answer| (answer.node_id, answer)).into();
        let seen = together(answer(1, [0, 0, 0]), &answers);
        assert!(!is_needed(&seen));
        // Node 1 remembers leaders that are gone.
        let answers = [(1, answer(1, [2, 2, 2]))].into();
        let seen = together(answer(1, [2, 2, 2]), &answers);
        let text = advice(&seen);
        let begin = "No leader: the meta group, shard 0, shard 1\nNodes that answer: 1\nNodes \
            that do not: 2, 4\n";
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn who_has_leaders_is_told_that_nothing_is_to_be_done() {
        assert!(!is_needed(&topology([1, 2, 4])));
        assert!(advice(&topology([1, 2, 4])).contains("nothing to recover"));
    }

    #[test]
    fn who_has_not_is_told_what_to_run_with_every_node_that_is_left() {
        let text = advice(&topology([1, 0, 0]));
        assert!(is_needed(&topology([1, 0, 0])));
        assert!(text.starts_with("No leader: shard 0, shard 1\nNodes that answer: 1, 4\n"));
        let command = "stockd recover --data-dir DATA_DIR_OF_NODE_1 --data-dir DATA_DIR_OF_NODE_4 \
                       --lose-everything-else --confirm shop";
        assert!(text.contains(command), "{text}");
    }
}
