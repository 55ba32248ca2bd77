//! Which node a call goes to, by what the client itself has seen first, and by what nodes say
//! second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use stock_proto::stock::v1::GetTopologyResponse;

use super::life::{Life, Said};
use super::standing::Standing;
use super::target::Target;
use super::topology::Topology;

/// How old the topology of a client in use may get. A leader that handed over goes on forwarding,
/// so nothing fails that would tell; each call costs a hop until the client looks again.
pub const TOPOLOGY_AGE_MAX: Duration = Duration::from_secs(1);

/// The least time between two looks at the topology, however many calls fail: during an election
/// all of them do, and none learns more by asking more often.
pub const TOPOLOGY_AGE_MIN: Duration = Duration::from_millis(20);

/// What a client knows of a cluster. `L` is whatever reaches a node: a connection, or a node of a
/// simulated network. Times are since the client was opened.
#[derive(Debug)]
pub struct Router<L> {
    life: Life,
    topology: Arc<Topology>,
    /// The nodes of the topology in its order, then the endpoints that the client was given and
    /// that are no node's own.
    peers: Vec<Peer<L>>,
    seeds: Vec<(Arc<str>, L)>,
    /// Who answered last in the place of a leader that does not answer itself.
    in_place_of: BTreeMap<u64, Arc<str>>,
    turn: usize,
    learnt_at: Option<Duration>,
    looked_at: Option<Duration>,
    is_looking: bool,
}

#[derive(Debug)]
struct Peer<L> {
    /// None for an endpoint that stands for no node in particular, such as that of a load balancer.
    node: Option<u64>,
    endpoint: Arc<str>,
    link: L,
    standing: Standing,
    /// The node that told the topology is it or reaches it.
    is_seen: bool,
}

/// Where an attempt goes, and what was known then.
#[derive(Debug, Clone)]
pub struct Chosen<L> {
    /// What reaches it.
    pub link: L,
    /// Where it is.
    pub endpoint: Arc<str>,
    /// How long it may be silent before it is doubted.
    pub patience: Duration,
    node: Option<u64>,
    /// Who led then whoever answers the call itself.
    pub led: Leadership,
}

/// Who leads a group, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    leader: Option<u64>,
    term: u64,
}

impl Leadership {
    fn of(topology: &Topology, target: Target) -> Self {
        let (leader, term) = topology.leadership_of(target);
        Self { leader, term }
    }

    /// Whether somebody leads now who did not before: calls that failed for want of a leader are
    /// worth repeating.
    fn is_newer_than(self, before: Self) -> bool {
        self.leader.is_some() && (self.term > before.term || before.leader.is_none())
    }
}

/// Why an attempt that waits for its answer is better given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overtaken {
    /// Another node leads by now.
    LedElsewhere,
    /// Its connection was left, since a new one is answered.
    Left,
    /// Its node is lost, as far as a probe can tell.
    Lost,
}

/// What came of an answer to the question who leads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learnt {
    /// Calls under way may be better off elsewhere.
    News,
    /// Nothing that would change the way of a call.
    Nothing,
    /// It is of another cluster: nothing is learnt from it.
    Stranger,
}

impl<L> Chosen<L> {
    /// The node it goes to; none for an endpoint that is no node's own.
    pub fn node(&self) -> Option<u64> {
        self.node
    }

    /// Whether it is asked in the place of the leader that would answer itself.
    pub fn is_in_place(&self) -> bool {
        self.led.leader.is_some() && self.node != self.led.leader
    }
}

impl<L: Clone> Router<L> {
    /// Of the cluster of this name, or of the first one that answers. Nobody is known to answer
    /// yet.
    pub fn new(cluster_id: Option<String>, seeds: Vec<(Arc<str>, L)>, turn: usize) -> Self {
        let mut router = Self {
            life: Life::new(cluster_id),
            topology: Arc::new(Topology::new(GetTopologyResponse::default())),
            peers: Vec::new(),
            seeds,
            in_place_of: BTreeMap::new(),
            turn,
            learnt_at: None,
            looked_at: None,
            is_looking: false,
        };
        router.place_seeds();
        router
    }

    /// The cluster as it was last seen; of no shards before that.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Whether it is known who leads what, or was once.
    pub fn has_learnt(&self) -> bool {
        self.learnt_at.is_some()
    }

    /// Every known node, and what reaches it.
    pub fn nodes(&self) -> impl Iterator<Item = (u64, &L)> {
        let peers = self.peers.iter();
        peers.filter_map(|peer| Some((peer.node?, &peer.link)))
    }

    /// What reaches each endpoint.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.peers.iter().map(|peer| &peer.link)
    }

    /// The cluster's name, once it is known.
    pub fn cluster_id(&self) -> Option<&str> {
        self.life.cluster_id()
    }

    /// Where the next attempt at a call goes. `failures` tells how often each endpoint has failed
    /// it. None where no node takes calls: a probe that is answered ends that.
    ///
    /// The client's own experience counts first: a node that it does not reach is not asked, one
    /// that has failed this call is asked after the others, and so is one that it doubts, unless
    /// that one leads: before others have sent a call on, a probe has told. Then whoever answers
    /// the call itself, then whoever has answered it in that one's place; what other nodes say of
    /// each other comes last. Those that are as good as each other take turns.
    pub fn choose(
        &mut self,
        target: Target,
        now: Duration,
        failures: impl Fn(&str) -> u32,
    ) -> Option<Chosen<L>> {
        let led = Leadership::of(&self.topology, target);
        let leader = led.leader;
        let deputy = leader.and_then(|leader| self.in_place_of.get(&leader));
        let count = self.peers.len();
        let first = self.turn;
        self.turn = self.turn.wrapping_add(1);
        let in_turn = (0..count).map(|step| first.wrapping_add(step) % count.max(1));
        let usable = in_turn.filter(|index| self.peers[*index].standing.takes_calls());
        let best = usable.min_by_key(|index| {
            let peer = &self.peers[*index];
            (
                failures(&peer.endpoint),
                target == Target::Any && peer.standing.is_doubted(),
                peer.standing.is_silent(now),
                target == Target::Any && peer.standing.is_slow(now),
                leader.is_some() && peer.node != leader,
                deputy.is_some_and(|deputy| *deputy != peer.endpoint),
                !peer.is_seen,
                peer.node.is_none(),
            )
        })?;
        let peer = &self.peers[best];
        Some(Chosen {
            link: peer.link.clone(),
            endpoint: Arc::clone(&peer.endpoint),
            patience: peer.standing.patience(),
            node: peer.node,
            led,
        })
    }

    /// Whether an attempt that waits for its answer is better given up.
    pub fn overtaken(&self, target: Target, chosen: &Chosen<L>) -> Option<Overtaken> {
        if self.is_led_elsewhere(target, chosen.led, chosen) {
            return Some(Overtaken::LedElsewhere);
        }
        let mut peers = self.peers.iter();
        let peer = peers.find(|peer| peer.endpoint == chosen.endpoint);
        let is_lost = peer.is_none_or(|peer| !peer.standing.takes_calls());
        is_lost.then_some(Overtaken::Lost)
    }

    /// Whether somebody else leads than the node `at` which something was sent, who did not then.
    pub fn is_led_elsewhere(&self, target: Target, then: Leadership, at: &Chosen<L>) -> bool {
        let now = Leadership::of(&self.topology, target);
        now.leader.is_some() && now.term > then.term && now.leader != at.node
    }

    /// Whether somebody leads who did not then.
    pub fn is_led_anew(&self, target: Target, then: Leadership) -> bool {
        Leadership::of(&self.topology, target).is_newer_than(then)
    }

    /// The node has answered an attempt, whatever it said. `true` if it was not trusted before.
    pub fn answered(&mut self, chosen: &Chosen<L>) -> bool {
        if let Some(leader) = chosen.led.leader.filter(|_| chosen.is_in_place()) {
            self.in_place_of
                .insert(leader, Arc::clone(&chosen.endpoint));
        }
        let Some(standing) = self.standing(&chosen.endpoint) else {
            return false;
        };
        let was_trusted = standing.is_trusted();
        standing.answered();
        !was_trusted
    }

    /// The node has not answered in its leader's place: another may.
    pub fn did_not_answer_for(&mut self, chosen: &Chosen<L>) {
        if let Some(leader) = chosen.led.leader
            && self.in_place_of.get(&leader) == Some(&chosen.endpoint)
        {
            self.in_place_of.remove(&leader);
        }
    }

    /// What is known of the node at an endpoint.
    pub fn standing(&mut self, endpoint: &str) -> Option<&mut Standing> {
        let peer = self
            .peers
            .iter_mut()
            .find(|peer| *peer.endpoint == *endpoint);
        peer.map(|peer| &mut peer.standing)
    }

    /// Where no node takes calls, all of them are probed soon: calls wait for that.
    pub fn hasten_if_alone(&mut self, now: Duration, chance: &mut impl Rng) {
        let is_alone = !self.peers.iter().any(|peer| peer.standing.takes_calls());
        for peer in self.peers.iter_mut().filter(|_| is_alone) {
            peer.standing.hasten(now, chance);
        }
    }

    /// The endpoints that are to be probed, and when.
    pub fn probes(&self) -> impl Iterator<Item = (&Arc<str>, &L, Duration)> {
        let peers = self.peers.iter();
        peers.filter_map(|peer| Some((&peer.endpoint, &peer.link, peer.standing.probe_at()?)))
    }

    /// Whether the topology is so old that it should be looked at again.
    pub fn is_stale(&self, now: Duration) -> bool {
        let is_old = |at| now.saturating_sub(at) > TOPOLOGY_AGE_MAX;
        self.learnt_at.is_none_or(is_old)
    }

    /// Begins a look at the topology, if none is under way or has just been: where it goes.
    pub fn begin_look(&mut self, now: Duration) -> Option<Chosen<L>> {
        let is_recent = |at| now.saturating_sub(at) < TOPOLOGY_AGE_MIN;
        if self.is_looking || self.looked_at.is_some_and(is_recent) {
            return None;
        }
        let chosen = self.choose(Target::Any, now, |_| 0)?;
        self.is_looking = true;
        Some(chosen)
    }

    /// The look is over, whatever came of it.
    pub fn end_look(&mut self, now: Duration) {
        self.is_looking = false;
        self.looked_at = Some(now);
    }

    /// A node has said who leads what. `open` makes what reaches a node that is new; one that
    /// cannot be reached by its endpoint is reached through the others.
    pub fn learn(
        &mut self,
        endpoint: &str,
        view: GetTopologyResponse,
        now: Duration,
        chance: &mut impl Rng,
        open: impl FnMut(&str) -> Option<L>,
    ) -> Learnt {
        let topology = match self.life.hear(&view, now) {
            Said::OfThisLife if self.has_learnt() => self.topology.succeeded_by(view),
            Said::OfThisLife => Topology::new(view),
            // Terms begin anew, and whoever answered in a leader's place did so in another life.
            Said::OfAnother => {
                self.in_place_of.clear();
                Topology::new(view)
            }
            Said::ByAStranger => {
                if let Some(standing) = self.standing(endpoint) {
                    standing.is_of_no_node(now, chance);
                }
                return Learnt::Stranger;
            }
        };
        let leads_as_before = self.topology.leads_as(&topology);
        let is_node = |id: u64| topology.nodes().iter().any(|node| node.node_id == id);
        self.in_place_of.retain(|leader, _| is_node(*leader));
        self.topology = Arc::new(topology);
        self.learnt_at = Some(now);
        let latency = self
            .standing(endpoint)
            .map_or(Duration::ZERO, |it| it.latency());
        self.place_nodes(now, latency, open);
        match leads_as_before {
            true => Learnt::Nothing,
            false => Learnt::News,
        }
    }

    /// Connections and what is known of them are kept by endpoint.
    fn place_nodes(
        &mut self,
        now: Duration,
        latency: Duration,
        mut open: impl FnMut(&str) -> Option<L>,
    ) {
        let mut known: BTreeMap<Arc<str>, Peer<L>> = std::mem::take(&mut self.peers)
            .into_iter()
            .map(|peer| (Arc::clone(&peer.endpoint), peer))
            .collect();
        let topology = Arc::clone(&self.topology);
        for node in topology.nodes() {
            let peer = known.remove(node.endpoint.as_str()).or_else(|| {
                let standing = match topology.saw(node) {
                    true => Standing::introduced(latency),
                    false => Standing::unknown(),
                };
                Some(Peer {
                    node: None,
                    endpoint: node.endpoint.as_str().into(),
                    link: open(&node.endpoint)?,
                    standing,
                    is_seen: false,
                })
            });
            let Some(mut peer) = peer else { continue };
            peer.node = Some(node.node_id);
            peer.is_seen = topology.saw(node);
            if peer.is_seen {
                peer.standing.is_said_to_be_back(now);
            }
            self.peers.push(peer);
        }
        for (endpoint, _) in &self.seeds {
            if let Some(mut peer) = known.remove(endpoint) {
                peer.node = None;
                peer.is_seen = true;
                self.peers.push(peer);
            }
        }
        self.place_seeds();
    }

    /// Every seed has its place.
    fn place_seeds(&mut self) {
        for (endpoint, link) in &self.seeds {
            if !self.peers.iter().any(|peer| peer.endpoint == *endpoint) {
                self.peers.push(Peer {
                    node: None,
                    endpoint: Arc::clone(endpoint),
                    link: link.clone(),
                    standing: Standing::unknown(),
                    is_seen: true,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use stock_proto::stock::v1::{Node, ResponseHeader, Shard};

    use super::*;

    /// Links are the numbers of nodes; the address of none is 9.
    type Nodes = Router<u64>;

    fn chance() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three nodes, as one of them sees them, of which the second leads shard 0.
    fn view(of: u64, unreachable: &[u64]) -> GetTopologyResponse {
        let node = |node_id: u64| Node {
            node_id,
            endpoint: node_id.to_string(),
            reachable: !unreachable.contains(&node_id),
        };
        GetTopologyResponse {
            header: Some(ResponseHeader {
                incarnation: vec![1; 16].into(),
                ..ResponseHeader::default()
            }),
            cluster_id: "shop".into(),
            node_id: of,
            nodes: [1, 2, 3].map(node).into(),
            shard_count: 1,
            shards: vec![Shard {
                leader_node_id: Some(2),
                term: 5,
                ..Shard::default()
            }],
            ..GetTopologyResponse::default()
        }
    }

    fn learn(router: &mut Nodes, view: GetTopologyResponse) -> Learnt {
        let from = view.node_id.to_string();
        router.learn(&from, view, at(0), &mut chance(), |it| it.parse().ok())
    }

    /// Opened with the addresses of node 1 and of none.
    fn router() -> Nodes {
        let seeds = vec![("1".into(), 1), ("9".into(), 9)];
        let mut router = Router::new(None, seeds, 0);
        assert!(
            router.choose(Target::Any, at(0), |_| 0).is_none(),
            "nobody has answered"
        );
        learn(&mut router, view(1, &[]));
        for endpoint in ["1", "9"] {
            router.standing(endpoint).unwrap().answered();
        }
        router
    }

    fn lose(router: &mut Nodes, node: u64) {
        let standing = router.standing(&node.to_string()).unwrap();
        standing.lost(at(0), &mut chance());
    }

    fn chosen(router: &mut Nodes, target: Target, failed: &[&str]) -> u64 {
        let failures = |endpoint: &str| u32::from(failed.contains(&endpoint));
        router.choose(target, at(0), failures).unwrap().link
    }

    const SHARD: Target = Target::Shard(0);

    #[test]
    fn the_leader_answers_unless_it_has_failed_this_call() {
        let mut router = router();
        assert!((0..4).all(|_| chosen(&mut router, SHARD, &[]) == 2));
        assert_ne!(chosen(&mut router, SHARD, &["2"]), 2);
        assert_eq!(chosen(&mut router, SHARD, &["1", "3", "9"]), 2);
    }

    #[test]
    fn what_anybody_answers_goes_round_and_not_to_the_address_of_none() {
        let mut router = router();
        let asked: Vec<u64> = (0..8)
            .map(|_| chosen(&mut router, Target::Any, &[]))
            .collect();
        for node in [1, 2, 3] {
            assert!(asked.contains(&node), "{asked:?}");
        }
        assert!(!asked.contains(&9), "{asked:?}");
        for node in [1, 2, 3] {
            lose(&mut router, node);
        }
        assert_eq!(chosen(&mut router, Target::Any, &[]), 9);
    }

    #[test]
    fn a_leader_that_another_node_does_not_see_is_asked_all_the_same() {
        let mut router = router();
        learn(&mut router, view(3, &[2]));
        assert!((0..4).all(|_| chosen(&mut router, SHARD, &[]) == 2));
    }

    #[test]
    fn where_the_leader_is_lost_whoever_answered_in_its_place_is_asked_again() {
        let mut router = router();
        lose(&mut router, 2);
        let in_place = loop {
            let chosen = router.choose(SHARD, at(0), |_| 0).unwrap();
            if chosen.link == 3 {
                break chosen;
            }
        };
        assert!(in_place.is_in_place());
        router.answered(&in_place);
        assert!((0..6).all(|_| chosen(&mut router, SHARD, &[]) == 3));
        router.did_not_answer_for(&in_place);
        assert!((0..6).any(|_| chosen(&mut router, SHARD, &[]) == 1));
        // The leader itself, once it is back.
        router.standing("2").unwrap().answered();
        assert_eq!(chosen(&mut router, SHARD, &[]), 2);
    }

    #[test]
    fn a_doubted_node_is_asked_after_the_others_unless_it_leads() {
        let mut router = router();
        assert!(router.standing("2").unwrap().doubt(at(10)));
        assert_eq!(chosen(&mut router, SHARD, &[]), 2);
        assert!((0..6).all(|_| chosen(&mut router, Target::Any, &[]) != 2));
        lose(&mut router, 1);
        lose(&mut router, 3);
        lose(&mut router, 9);
        assert_eq!(chosen(&mut router, Target::Any, &[]), 2);
    }

    #[test]
    fn an_attempt_is_overtaken_by_a_newer_term_and_by_the_loss_of_its_node() {
        let mut router = router();
        let attempt = router.choose(SHARD, at(0), |_| 0).unwrap();
        assert_eq!(router.overtaken(SHARD, &attempt), None);
        let mut later = view(1, &[]);
        later.shards[0].term = 6;
        learn(&mut router, later.clone());
        assert_eq!(router.overtaken(SHARD, &attempt), None, "it leads again");
        later.shards[0].term = 7;
        later.shards[0].leader_node_id = Some(3);
        assert_eq!(learn(&mut router, later), Learnt::News);
        let overtaken = router.overtaken(SHARD, &attempt);
        assert_eq!(overtaken, Some(Overtaken::LedElsewhere));
        assert!(router.is_led_anew(SHARD, attempt.led));

        let attempt = router.choose(SHARD, at(0), |_| 0).unwrap();
        assert_eq!(router.overtaken(SHARD, &attempt), None);
        lose(&mut router, 3);
        let overtaken = router.overtaken(SHARD, &attempt);
        assert_eq!(overtaken, Some(Overtaken::Lost));
        assert!(!router.is_led_anew(SHARD, attempt.led));
    }

    #[test]
    fn where_no_node_takes_calls_all_are_probed_soon() {
        let mut router = router();
        let now = at(0);
        for _ in 0..12 {
            for endpoint in ["1", "2", "3", "9"] {
                let standing = router.standing(endpoint).unwrap();
                standing.lost(now, &mut chance());
                standing.probe_failed(now, &mut chance());
            }
        }
        let latest = |router: &Nodes| router.probes().map(|(_, _, due)| due).max().unwrap();
        assert!(latest(&router) > at(1_000));
        router.standing("2").unwrap().answered();
        router.hasten_if_alone(now, &mut chance());
        assert!(latest(&router) > at(1_000), "there is one to ask");
        router.standing("2").unwrap().lost(now, &mut chance());
        router.hasten_if_alone(now, &mut chance());
        assert!(latest(&router) <= at(500));
    }

    #[test]
    fn nothing_is_learnt_of_another_cluster() {
        let mut router = router();
        let other = GetTopologyResponse {
            cluster_id: "other".into(),
            ..view(1, &[])
        };
        assert_eq!(learn(&mut router, other), Learnt::Stranger);
        assert!((0..8).all(|_| chosen(&mut router, Target::Any, &[]) != 1));
        assert_eq!(router.topology().cluster_id(), "shop");
    }

    #[test]
    fn a_node_that_nobody_sees_is_probed_before_it_is_asked() {
        let seeds = vec![("1".into(), 1)];
        let mut router: Nodes = Router::new(None, seeds, 0);
        learn(&mut router, view(1, &[3]));
        router.standing("1").unwrap().answered();
        let probes: Vec<u64> = router.probes().map(|(_, link, _)| *link).collect();
        assert_eq!(probes, [3]);
        assert!((0..6).all(|_| chosen(&mut router, Target::Any, &[]) != 3));
    }
}
