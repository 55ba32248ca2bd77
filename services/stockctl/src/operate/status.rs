//! How the cluster is: its nodes as `node list` has them, its shards, and what the one means for
//! the other.
//!
//! The leader of the meta group hears from every node, and what it says counts. A node that answers
//! for all of them knows only to whom it has a connection, and one to a node that is stopped stays.
//! Where that leader gives no answer, each node is asked by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::admin::v1::{
    ListNodesResponse, ListShardsResponse, NodeStatus, ReplicaStatus, ShardStatus,
};
use stock_proto::stock::v1::{GetTopologyResponse, Shard};

use super::last_resort;
use super::words::{groups, state_name, trouble, up_words};
use crate::columns::Columns;
use crate::message::message;

/// How the cluster is.
#[derive(Debug)]
pub(crate) struct ClusterStatus {
    /// As one node sees it.
    topology: GetTopologyResponse,
    nodes: Vec<NodeLine>,
    /// The meta group first.
    groups: Vec<GroupLine>,
    /// Why the leader of the meta group has not said it; none where it has.
    alone: Option<String>,
}

#[derive(Debug)]
struct NodeLine {
    id: u64,
    endpoint: String,
    state: &'static str,
    up: String,
    is_up: bool,
    /// What is wrong with it, if something is.
    trouble: Option<String>,
    /// As `node list` has it.
    status: Option<NodeStatus>,
}

#[derive(Debug)]
struct GroupLine {
    /// None: the meta group.
    shard: Option<u32>,
    leader: Option<u64>,
    term: u64,
    /// By the node that answers.
    applied: u64,
    /// The nodes that it is on.
    replicas: Vec<u64>,
    /// Those of them that are not up.
    missing: Vec<u64>,
    has_quorum: bool,
    /// As many as it shall have are up.
    is_complete: bool,
}

impl ClusterStatus {
    /// As the leader of the meta group has it.
    pub(super) fn told(
        topology: GetTopologyResponse,
        nodes: ListNodesResponse,
        shards: &ListShardsResponse,
    ) -> Self {
        let replication = nodes.replication as usize;
        let nodes: Vec<NodeLine> = nodes.nodes.into_iter().map(NodeLine::told).collect();
        let up = up(&nodes);
        let groups = topology.meta.iter().chain(&topology.shards).map(|seen| {
            let is_meta = is_meta(&topology, seen);
            let mut told = shards.shards.iter();
            let told = match is_meta {
                true => shards.meta.as_ref(),
                false => told.find(|told| told.shard == seen.shard),
            };
            GroupLine::told(seen, is_meta, told, &up, replication)
        });
        let groups = groups.collect();
        Self {
            topology,
            nodes,
            groups,
            alone: None,
        }
    }

    /// As the nodes have it that answer, each by itself.
    pub(super) fn asked(
        topology: GetTopologyResponse,
        answers: &BTreeMap<u64, GetTopologyResponse>,
        why: String,
    ) -> Self {
        let seen = last_resort::together(topology.clone(), answers);
        let nodes: Vec<NodeLine> = seen
            .nodes
            .iter()
            .map(|node| {
                let is_up = node.reachable;
                NodeLine {
                    id: node.node_id,
                    endpoint: node.endpoint.clone(),
                    state: "-",
                    up: if is_up { "yes" } else { "no answer" }.into(),
                    is_up,
                    trouble: (!is_up).then(|| "no answer".into()),
                    status: None,
                }
            })
            .collect();
        let up = up(&nodes);
        let groups = seen.meta.iter().chain(&seen.shards);
        let groups = groups.map(|it| GroupLine::told(it, is_meta(&seen, it), None, &up, 0));
        let groups = groups.collect();
        Self {
            topology,
            nodes,
            groups,
            alone: Some(why),
        }
    }

    /// Text without a last line break.
    pub(super) fn table(&self) -> String {
        let mut nodes = Columns::new(&[">NODE", "STATE", "UP", ">LEADS", "ENDPOINT"]);
        for node in &self.nodes {
            let led = self.groups.iter();
            let led = led.filter(|group| group.leader == Some(node.id));
            nodes.row([
                node.id.to_string(),
                node.state.to_owned(),
                node.up.clone(),
                led.count().to_string(),
                node.endpoint.clone(),
            ]);
        }
        let mut shards = Columns::new(&[">SHARD", ">LEADER", ">TERM", ">APPLIED", "REPLICAS"]);
        for group in &self.groups {
            shards.row([
                group.shard.map_or("meta".into(), |shard| shard.to_string()),
                group.leader.map_or("none".into(), |node| node.to_string()),
                group.term.to_string(),
                group.applied.to_string(),
                group.marked(),
            ]);
        }
        format!(
            "Cluster {}, node {} answers\n\n{}\n\n{}\n\n{}",
            self.topology.cluster_id,
            self.topology.node_id,
            nodes.finish(),
            shards.finish(),
            self.remarks().join("\n")
        )
    }

    /// What is not as it should be, and what that means for the shards.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let unwell = self.nodes.iter().filter_map(|node| {
            let trouble = node.trouble.as_ref()?;
            Some(format!("node {} ({trouble})", node.id))
        });
        let unwell: Vec<String> = unwell.collect();
        if !unwell.is_empty() {
            remarks.push(format!("Not well: {}.", unwell.join(", ")));
        }
        let apart: Vec<String> = self.apart().iter().map(u64::to_string).collect();
        if !apart.is_empty() {
            let (node, apart) = (self.topology.node_id, apart.join(", "));
            remarks.push(format!("Node {node} has no connection to: {apart}."));
        }
        if let Some(named) = self.named(|group| !group.has_quorum) {
            remarks.push(format!(
                "No quorum: {named}. Half of their replicas or more are on nodes that are not up: \
                 they take no changes until those are back."
            ));
        }
        if let Some(named) = self.named(|group| group.has_quorum && group.leader.is_none()) {
            remarks.push(format!(
                "No leader: {named}. There is a quorum: one is elected within seconds."
            ));
        }
        if let Some(named) = self.named(GroupLine::is_short) {
            remarks.push(format!(
                "Short of a replica, and served by the others: {named}."
            ));
        }
        if remarks.is_empty() {
            remarks.push(
                "Every node is well, and every shard has a leader and all of its replicas.".into(),
            );
        }
        if let Some(why) = &self.alone {
            let why = why.trim_end_matches('.');
            remarks.push(format!(
                "The leader of the meta group gives no answer, so that each node was asked by \
                 itself: {why}."
            ));
        }
        remarks
    }

    /// Nodes that are up and that the answering one has no connection to.
    fn apart(&self) -> Vec<u64> {
        let seen = self.topology.nodes.iter();
        let apart = seen.filter(|node| !node.reachable && node.node_id != self.topology.node_id);
        let apart: BTreeSet<u64> = apart.map(|node| node.node_id).collect();
        let up = self.nodes.iter().filter(|node| node.is_up);
        up.map(|node| node.id)
            .filter(|id| apart.contains(id))
            .collect()
    }

    fn named(&self, is_one: impl Fn(&GroupLine) -> bool) -> Option<String> {
        let those = self.groups.iter().filter(|group| is_one(group));
        let (meta, shards): (Vec<_>, Vec<_>) = those.partition(|group| group.shard.is_none());
        let shards: Vec<u32> = shards.iter().filter_map(|group| group.shard).collect();
        groups(!meta.is_empty(), &shards)
    }

    /// The topology, with what is known beside it.
    pub(super) fn value(&self) -> anyhow::Result<Value> {
        let mut value = message(&self.topology)?;
        let mut nodes = Vec::new();
        for node in &self.nodes {
            let seen = self.topology.nodes.iter();
            let mut seen = seen.filter(|seen| seen.node_id == node.id);
            let mut fields = object(seen.next().map(message).transpose()?);
            fields.insert("node_id".into(), node.id.into());
            fields.insert("endpoint".into(), node.endpoint.as_str().into());
            fields.entry("reachable").or_insert(false.into());
            if let Some(status) = &node.status {
                let told = object(Some(message(status)?));
                let told = told.into_iter();
                fields.extend(told.filter(|(name, _)| OF_NODE_LIST.contains(&name.as_str())));
            }
            fields.insert("up".into(), node.is_up.into());
            nodes.push(Value::Object(fields));
        }
        value["nodes"] = nodes.into();
        let (meta, shards): (Vec<_>, Vec<_>) =
            self.groups.iter().partition(|group| group.shard.is_none());
        for group in meta {
            group.put_into(&mut value["meta"]);
        }
        for (number, group) in shards.into_iter().enumerate() {
            group.put_into(&mut value["shards"][number]);
        }
        let unwell = self.nodes.iter().filter(|node| node.trouble.is_some());
        let unwell: Vec<u64> = unwell.map(|node| node.id).collect();
        value["unwell_node_ids"] = json!(unwell);
        value["remarks"] = json!(self.remarks());
        value["meta_answers"] = self.alone.is_none().into();
        Ok(value)
    }
}

/// What of a node's status is told here, too, under the same names.
const OF_NODE_LIST: [&str; 5] = [
    "state",
    "silent_for",
    "slow_disk",
    "disk_full",
    "memory_full",
];

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn is_meta(topology: &GetTopologyResponse, group: &Shard) -> bool {
    let meta = topology.meta.as_ref();
    meta.is_some_and(|meta| std::ptr::eq(meta, group))
}

fn up(nodes: &[NodeLine]) -> BTreeSet<u64> {
    let up = nodes.iter().filter(|node| node.is_up);
    up.map(|node| node.id).collect()
}

impl NodeLine {
    fn told(status: NodeStatus) -> Self {
        Self {
            id: status.node_id,
            endpoint: status.endpoint.clone(),
            state: state_name(status.state()),
            up: up_words(&status),
            is_up: status.up,
            trouble: trouble(&status),
            status: Some(status),
        }
    }
}

impl GroupLine {
    /// `told` is what the leader of the meta group says of it.
    fn told(
        seen: &Shard,
        is_meta: bool,
        told: Option<&ShardStatus>,
        up: &BTreeSet<u64>,
        replication: usize,
    ) -> Self {
        let reported = told.and_then(|told| told.leader_node_id);
        // Who is silent leads nothing, whatever is remembered.
        let remembered = seen.leader_node_id.filter(|leader| up.contains(leader));
        let replicas = told.map_or(&[][..], |told| &told.replicas);
        let voters = replicas.iter().filter(|replica| votes(replica));
        let mut replicas: Vec<u64> = voters.map(|replica| replica.node_id).collect();
        if replicas.is_empty() {
            replicas.clone_from(&seen.replica_node_ids);
        }
        let is_missing = |node: &u64| !up.contains(node);
        let missing: Vec<u64> = replicas.iter().copied().filter(is_missing).collect();
        let there = replicas.len() - missing.len();
        Self {
            shard: (!is_meta).then_some(seen.shard),
            leader: reported.or(remembered),
            term: told.and_then(|told| told.term).unwrap_or(seen.term),
            applied: seen.applied_index,
            has_quorum: there * 2 > replicas.len(),
            is_complete: missing.is_empty() && there >= replication,
            replicas,
            missing,
        }
    }

    /// It works, and with fewer replicas than it shall have.
    fn is_short(&self) -> bool {
        self.has_quorum && self.leader.is_some() && !self.is_complete
    }

    /// The leader with a star, and who is not up with an exclamation mark.
    fn marked(&self) -> String {
        let marked = self.replicas.iter().map(|node| {
            let leads = if self.leader == Some(*node) { "*" } else { "" };
            let missing = if self.missing.contains(node) { "!" } else { "" };
            format!("{node}{leads}{missing}")
        });
        marked.collect::<Vec<_>>().join(" ")
    }

    fn put_into(&self, value: &mut Value) {
        let Value::Object(fields) = value else {
            return;
        };
        match self.leader {
            Some(leader) => drop(fields.insert("leader_node_id".into(), leader.into())),
            None => drop(fields.remove("leader_node_id")),
        }
        fields.insert("term".into(), self.term.into());
        fields.insert("has_quorum".into(), self.has_quorum.into());
        let missing = json!(self.missing);
        fields.insert("missing_replica_node_ids".into(), missing);
    }
}

fn votes(replica: &ReplicaStatus) -> bool {
    matches!(replica.role(), Role::Voter | Role::Leaving)
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::admin::v1::node_status::State;
    use stock_proto::stock::v1::Node;

    use super::*;

    /// Of three nodes, as node 1 sees them, which has a connection to each.
    fn topology(leaders: [u64; 2]) -> GetTopologyResponse {
        let group = |shard, leader| Shard {
            shard,
            leader_node_id: Some(leader),
            replica_node_ids: vec![1, 2, 3],
            term: 4,
            applied_index: 12,
        };
        let node = |node_id| Node {
            node_id,
            endpoint: format!("http://n{node_id}:7401"),
            reachable: node_id != 1,
        };
        GetTopologyResponse {
            cluster_id: "shop".into(),
            node_id: 1,
            nodes: [1, 2, 3].map(node).into(),
            meta: Some(group(u32::MAX, leaders[0])),
            shards: vec![group(0, leaders[1])],
            shard_count: 1,
            ..GetTopologyResponse::default()
        }
    }

    fn node(node_id: u64, up: bool) -> NodeStatus {
        let mut node = NodeStatus {
            node_id,
            up,
            endpoint: format!("http://n{node_id}:7401"),
            silent_for: Some(prost_types::Duration {
                seconds: 8,
                nanos: 0,
            }),
            ..NodeStatus::default()
        };
        node.set_state(State::Active);
        node
    }

    fn told(topology: GetTopologyResponse, nodes: [NodeStatus; 3]) -> ClusterStatus {
        let nodes = ListNodesResponse {
            nodes: nodes.into(),
            replication: 3,
            ..ListNodesResponse::default()
        };
        ClusterStatus::told(topology, nodes, &ListShardsResponse::default())
    }

    fn last_line(status: &ClusterStatus) -> String {
        let table = status.table();
        table.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_silent_node_is_named_though_there_is_a_connection_to_it() {
        let nodes = [node(1, true), node(2, true), node(3, false)];
        let status = told(topology([1, 3]), nodes);
        assert_eq!(
            status.table(),
            "\
Cluster shop, node 1 answers

NODE  STATE   UP             LEADS  ENDPOINT
   1  active  yes                1  http://n1:7401
   2  active  yes                0  http://n2:7401
   3  active  silent for 8s      0  http://n3:7401

SHARD  LEADER  TERM  APPLIED  REPLICAS
 meta       1     4       12  1* 2 3!
    0    none     4       12  1 2 3!

Not well: node 3 (silent for 8s).
No leader: 0. There is a quorum: one is elected within seconds.
Short of a replica, and served by the others: meta."
        );
        let value = status.value().expect("it has a JSON form");
        assert_eq!(value["unwell_node_ids"], json!([3]));
        let (well, silent) = (&value["nodes"][1], &value["nodes"][2]);
        assert_eq!((&well["up"], &silent["up"]), (&json!(true), &json!(false)));
        assert_eq!(silent["state"], "STATE_ACTIVE");
        assert_eq!(silent["silent_for"], "8s");
        assert_eq!(silent["reachable"], true, "as node 1 sees it");
        assert_eq!(value["shards"][0]["leader_node_id"], Value::Null);
        assert_eq!(value["shards"][0]["has_quorum"], true);
        assert_eq!(value["meta"]["leader_node_id"], 1);
        assert_eq!(value["meta"]["missing_replica_node_ids"], json!([3]));
    }

    #[test]
    fn a_cluster_that_is_well_is_told_in_a_sentence_and_so_is_a_slow_disk() {
        let well = || [1, 2, 3].map(|id| node(id, true));
        let status = told(topology([1, 3]), well());
        let all = "Every node is well, and every shard has a leader and all of its replicas.";
        assert_eq!(last_line(&status), all);
        let mut nodes = well();
        nodes[1].slow_disk = true;
        let status = told(topology([1, 3]), nodes);
        assert_eq!(last_line(&status), "Not well: node 2 (slow disk).");
        let mut apart = topology([1, 3]);
        apart.nodes[1].reachable = false;
        let status = told(apart, well());
        assert_eq!(last_line(&status), "Node 1 has no connection to: 2.");
    }

    #[test]
    fn without_a_leader_who_hears_of_all_each_node_is_asked() {
        let answers = [(1, topology([3, 1]))].into();
        let why = "no answer within 5 s".to_owned();
        let status = ClusterStatus::asked(topology([3, 1]), &answers, why);
        let remarks = status.remarks();
        assert_eq!(
            remarks[0],
            "Not well: node 2 (no answer), node 3 (no answer)."
        );
        assert!(remarks[1].starts_with("No quorum: meta, 0."), "{remarks:?}");
        assert!(remarks[2].ends_with("itself: no answer within 5 s."));
        let value = status.value().expect("it has a JSON form");
        assert_eq!(value["meta_answers"], false);
        assert_eq!(value["nodes"][2]["up"], false);
        assert_eq!(value["meta"]["leader_node_id"], Value::Null);
    }
}
