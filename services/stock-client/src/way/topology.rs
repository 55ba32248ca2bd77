//! Who is in the cluster and who leads what, as one node saw it.

use stock_proto::stock::v1::{GetTopologyResponse, Node, Shard};

use super::target::{self, Target};

/// A snapshot of the cluster. It ages: leaders change, and the client takes a new one about every
/// second while it is used, and after each failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    view: GetTopologyResponse,
}

impl Topology {
    /// As a node says.
    pub fn new(view: GetTopologyResponse) -> Self {
        Self { view }
    }

    /// A newer answer, in which no leadership is older than in this one: a node that has been cut
    /// off goes on naming leaders that the others have long replaced, and the term tells.
    pub fn succeeded_by(&self, mut view: GetTopologyResponse) -> Self {
        let old = &self.view;
        if old.cluster_id == view.cluster_id && old.shard_count == view.shard_count {
            for (new, old) in view.shards.iter_mut().zip(&old.shards) {
                keep_newer_leader(new, old);
            }
            if let (Some(new), Some(old)) = (&mut view.meta, &old.meta) {
                keep_newer_leader(new, old);
            }
        }
        Self { view }
    }

    /// The cluster's name for itself.
    pub fn cluster_id(&self) -> &str {
        &self.view.cluster_id
    }

    /// How many stock shards there are; fixed when the cluster was born.
    pub fn shard_count(&self) -> u32 {
        self.view.shard_count
    }

    /// Every node, in the order of the answer.
    pub fn nodes(&self) -> &[Node] {
        &self.view.nodes
    }

    /// Every stock shard, by number.
    pub fn shards(&self) -> &[Shard] {
        &self.view.shards
    }

    /// The group that keeps locations.
    pub fn meta(&self) -> Option<&Shard> {
        self.view.meta.as_ref()
    }

    /// The shard a SKU lives in.
    pub fn shard_of(&self, sku: &str) -> u32 {
        target::shard_of_sku(sku, self.shard_count())
    }

    /// The node that leads a stock shard; `None` while that is unknown.
    pub fn leader_of(&self, shard: u32) -> Option<u64> {
        self.shard(shard)?.leader_node_id
    }

    fn shard(&self, shard: u32) -> Option<&Shard> {
        let shards = &self.view.shards;
        let in_place = shards.get(shard as usize).filter(|it| it.shard == shard);
        in_place.or_else(|| shards.iter().find(|it| it.shard == shard))
    }

    /// The node that leads the meta group; `None` while that is unknown.
    pub fn meta_leader(&self) -> Option<u64> {
        self.meta().and_then(|meta| meta.leader_node_id)
    }

    /// The node that answers a call itself, and since which term; none where that is unknown or
    /// all do.
    pub(crate) fn leadership_of(&self, target: Target) -> (Option<u64>, u64) {
        let group = match target {
            Target::Shard(shard) => self.shard(shard),
            Target::Hash(hash) => self.shard(target::shard_of_hash(hash, self.shard_count())),
            Target::Meta => self.meta(),
            Target::Any => None,
        };
        group.map_or((None, 0), |group| (group.leader_node_id, group.term))
    }

    /// Whether both name the same leaders of the same terms.
    pub(crate) fn leads_as(&self, other: &Self) -> bool {
        let groups = |it: &Self| -> Vec<(u32, Option<u64>, u64)> {
            let groups = it.view.shards.iter().chain(&it.view.meta);
            let leadership = groups.map(|group| (group.shard, group.leader_node_id, group.term));
            leadership.collect()
        };
        groups(self) == groups(other)
    }

    /// Whether the node that gave this answer had a connection to `node`, or is it.
    pub(crate) fn saw(&self, node: &Node) -> bool {
        node.reachable || node.node_id == self.view.node_id
    }
}

fn keep_newer_leader(new: &mut Shard, old: &Shard) {
    let forgotten = new.term == old.term && new.leader_node_id.is_none();
    if new.shard == old.shard && (new.term < old.term || forgotten) {
        new.term = old.term;
        new.leader_node_id = old.leader_node_id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(leaders: &[(u64, u64)]) -> GetTopologyResponse {
        GetTopologyResponse {
            cluster_id: "c".into(),
            node_id: 1,
            shard_count: leaders.len() as u32,
            shards: (0..)
                .zip(leaders)
                .map(|(shard, (leader_node_id, term))| Shard {
                    shard,
                    leader_node_id: Some(*leader_node_id).filter(|id| *id != 0),
                    term: *term,
                    ..Shard::default()
                })
                .collect(),
            ..GetTopologyResponse::default()
        }
    }

    #[test]
    fn an_unknown_leader_is_none() {
        let topology = Topology::new(view(&[(2, 5), (0, 5)]));
        assert_eq!(topology.leader_of(0), Some(2));
        assert_eq!(topology.leader_of(1), None);
        assert_eq!(topology.leader_of(9), None);
        assert_eq!(topology.meta_leader(), None);
    }

    #[test]
    fn leadership_never_goes_back() {
        let known = Topology::new(view(&[(1, 5), (2, 5), (3, 5)]));
        let answer = view(&[(2, 4), (0, 5), (1, 6)]);
        let next = known.succeeded_by(answer.clone());
        assert_eq!(next.leader_of(0), Some(1), "an older term is not believed");
        assert_eq!(
            next.leader_of(1),
            Some(2),
            "a known leader is not forgotten"
        );
        assert_eq!(next.leader_of(2), Some(1), "a newer term wins");

        let mut grown = answer.clone();
        grown.nodes.push(Node::default());
        let next = known.succeeded_by(grown);
        assert_eq!(next.leader_of(0), Some(1), "a node more changes nothing");

        let reborn = GetTopologyResponse {
            cluster_id: "another".into(),
            ..answer
        };
        let other = known.succeeded_by(reborn);
        assert_eq!(other.leader_of(0), Some(2), "another cluster starts afresh");
    }
}
