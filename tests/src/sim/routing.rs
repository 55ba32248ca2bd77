//! The calls of clients that find their way themselves: what `stock-client` does with connections
//! and timers is done here on the virtual network.

use std::time::Duration;

use bytes::Bytes;
use prost_types::Timestamp;
use stock_client::way::{Learnt, TOPOLOGY_TIMEOUT, Then};
use stock_client::{StatusError, v1};
use stockd::api::{ApiError, topology};
use tonic::Status;

use super::calls::{CallId, Told};
use super::checks::{Checked, broken};
use super::client::{Client, Routed};
use super::faults::FaultKind;
use super::plan::SECOND_US;
use super::router::{Attempt, CLUSTER, Router, STRANGER, at, endpoint};
use super::world::{Chapter, Happening, World};

/// A client whose call has no answer in the end asks again after this, when nothing goes wrong any
/// more.
const ANEW_AFTER_US: u64 = SECOND_US;
/// A client of which no node takes calls looks so often whether one does.
const NOBODY_AGAIN_US: u64 = 10_000;
/// A probe that is not answered takes this long, and not the least time that it may: the network
/// is a slow one.
const PROBE_TIMEOUT_US: u64 = 150_000;

impl World {
    /// Where a client's next attempt goes, if it finds its way itself.
    pub(crate) fn next_attempt(&mut self, client: usize) -> Option<Attempt> {
        let now_us = self.now_us;
        let router = self.clients[client].router.as_mut()?;
        let attempt = router.attempt(now_us);
        if router.way.is_stale(at(now_us)) {
            self.look_again(client);
        }
        attempt
    }

    /// No node takes the calls of a client that finds its way itself: it waits for one.
    pub(crate) fn waits_for_a_node(&mut self, client: usize) -> Checked {
        let now_us = self.now_us;
        let router = self.clients[client].router.as_ref();
        if router.is_some_and(|router| router.is_over(now_us)) {
            return self.routed_call_is_over(client, &StatusError::not_connected());
        }
        self.see_to_nodes(client);
        self.after(NOBODY_AGAIN_US, Happening::Retry(client));
        Ok(())
    }

    /// Whether an answer of the node that a client has asked gets to it.
    pub(crate) fn hears(&self, client: usize) -> bool {
        let router = self.clients[client].router.as_ref();
        router.is_none_or(|router| {
            let asked = router.asked();
            asked.is_none_or(|asked| router.reaches(asked, self.now_us))
        })
    }

    /// A process has ended, and its connections with it: the calls that it had have no answer.
    pub(crate) fn break_calls(&mut self, node: u64) {
        let waits = |client: &Client| {
            let asked = client.router.as_ref()?.asked();
            client
                .current
                .as_ref()?
                .call
                .filter(|_| asked == Some(node))
        };
        let calls: Vec<CallId> = self.clients.iter().filter_map(waits).collect();
        for call in calls {
            self.tell(call, Told::NotConnected);
        }
    }

    /// The node that a client has asked told it something.
    pub(crate) fn routed_call_answered(&mut self, client: usize) {
        if let Some(router) = &mut self.clients[client].router {
            router.answered(self.now_us);
        }
    }

    /// An attempt of a client that finds its way itself has failed.
    pub(crate) fn routed_call_failed(&mut self, client: usize, told: &Told) -> Checked {
        let failure = match told {
            Told::Failed(failure) => StatusError::from(Status::from(ApiError::from(*failure))),
            Told::NotConnected => StatusError::not_connected(),
            Told::Nothing => StatusError::silent(Duration::ZERO),
            Told::Outcomes { .. } | Told::Basket(_) | Told::Found { .. } => return Ok(()),
        };
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return Ok(());
        };
        let Some((after, turn)) = router.failed(&failure, now_us) else {
            return self.routed_call_is_over(client, &failure);
        };
        self.see_to_nodes(client);
        if after.look_again {
            self.look_again(client);
        }
        match after.then {
            Then::Again(pause) => {
                let after_us = pause.max(turn).as_micros() as u64;
                self.after(after_us, Happening::Retry(client));
                Ok(())
            }
            Then::GiveUp => broken(
                "routing",
                format!("client {client} gives up, though trying again may help: {failure}"),
            ),
            Then::TimedOut => self.routed_call_is_over(client, &failure),
        }
    }

    /// A call has no time left.
    fn routed_call_is_over(&mut self, client: usize, failure: &StatusError) -> Checked {
        let now_us = self.now_us;
        match self.chapter {
            Chapter::Trouble => {
                self.tally.add("given up");
                self.clients[client].current = None;
                self.rest(client);
                Ok(())
            }
            // With the same ids, as its error says.
            Chapter::Recovery => {
                let state = &mut self.clients[client];
                if let (Some(router), Some(current)) = (&mut state.router, &state.current) {
                    router.begin(&current.wish, now_us + ANEW_AFTER_US);
                }
                self.after(ANEW_AFTER_US, Happening::Retry(client));
                Ok(())
            }
            Chapter::Audit | Chapter::Over => broken(
                "routing",
                format!(
                    "nothing goes wrong any more, and client {client} has no answer to {:?}: \
                     {failure}; it sees {:?}",
                    self.clients[client].describe(),
                    self.clients[client].router.as_ref().map(|it| &it.way),
                ),
            ),
        }
    }

    /// Something happens to a client that finds its way itself.
    pub(crate) fn routed(&mut self, client: usize, what: Routed) -> Checked {
        match what {
            Routed::Late(call) => return self.late(client, call),
            Routed::Probe(node) => self.probe(client, node),
            Routed::Asked { node, is_probe } => return self.asked(client, node, is_probe),
            Routed::Untold {
                node,
                is_probe,
                runs,
            } => return self.untold(client, node, is_probe, runs),
        }
        Ok(())
    }

    /// An attempt has been silent for long: its node is probed, and others are asked.
    fn late(&mut self, client: usize, call: CallId) -> Checked {
        let current = self.clients[client].current.as_ref();
        if current.is_none_or(|current| current.call != Some(call)) {
            return Ok(());
        }
        let now_us = self.now_us;
        if let Some(router) = &mut self.clients[client].router {
            router.doubt(now_us);
            self.tally.add("nodes doubted");
        }
        self.see_to_nodes(client);
        self.look_again(client);
        self.leave_what_is_overtaken(client)
    }

    /// An attempt whose node is lost, or led by another, is given up.
    fn leave_what_is_overtaken(&mut self, client: usize) -> Checked {
        let router = self.clients[client].router.as_ref();
        if !router.is_some_and(|router| router.is_overtaken()) {
            return Ok(());
        }
        let current = self.clients[client].current.as_ref();
        match current.and_then(|current| current.call) {
            Some(call) => {
                self.tally.add("attempts overtaken");
                self.impatience(call)
            }
            None => Ok(()),
        }
    }

    /// Has every node probed that is to be.
    fn see_to_nodes(&mut self, client: usize) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        let due = router.way.probes().map(|(_, node, due)| (*node, due));
        // Not a moment too early.
        let due = due.map(|(node, due)| (node, due.as_micros() as u64 + 1));
        let due: Vec<(u64, u64)> = due.collect();
        let mut coming = Vec::new();
        for (node, due_us) in due {
            let known = router.probes.get(&node);
            if known.is_none_or(|known| *known > due_us) {
                router.probes.insert(node, due_us);
                coming.push((node, due_us.saturating_sub(now_us)));
            }
        }
        for (node, after_us) in coming {
            self.after(after_us, Happening::Routed(client, Routed::Probe(node)));
        }
    }

    fn probe(&mut self, client: usize, node: u64) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        router.probes.remove(&node);
        let standing = router.way.standing(&endpoint(node));
        let begins = standing.is_some_and(|standing| standing.begin_probe(at(now_us)));
        match begins {
            true => self.ask_for_topology(client, node, true),
            // It is due later by now, or never.
            false => self.see_to_nodes(client),
        }
    }

    /// A client learns anew who leads, beside its calls.
    pub(crate) fn look_again(&mut self, client: usize) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        if let Some(chosen) = router.way.begin_look(at(now_us)) {
            self.ask_for_topology(client, chosen.link, false);
        }
        self.see_to_nodes(client);
    }

    fn ask_for_topology(&mut self, client: usize, node: u64, is_probe: bool) {
        if let Some(router) = &mut self.clients[client].router {
            let after_us = router.dice.between(60, 600);
            let asked = Routed::Asked { node, is_probe };
            self.after(after_us, Happening::Routed(client, asked));
        }
    }

    /// A node is asked who leads what.
    fn asked(&mut self, client: usize, node: u64, is_probe: bool) -> Checked {
        let now_us = self.now_us;
        let machine = self.machines.get(&node);
        let running = machine.and_then(|machine| machine.running.as_ref());
        let life = machine.and_then(|machine| machine.lives.first());
        let stands_still = machine.is_some_and(|machine| machine.paused_until_us > now_us);
        let Some(router) = &mut self.clients[client].router else {
            return Ok(());
        };
        let fails_after_us = match running {
            _ if stands_still || !router.reaches(node, now_us) => match is_probe {
                true => PROBE_TIMEOUT_US,
                false => TOPOLOGY_TIMEOUT.as_micros() as u64,
            },
            _ if node == STRANGER => {
                let view = stranger(router);
                let learnt = router.learn(node, view, now_us);
                self.heard(client, node, is_probe, learnt);
                return Ok(());
            }
            None => 0,
            Some(running) => {
                let configured = router.seeds.iter().map(|node| (*node, ""));
                let configured: Vec<(u64, &str)> = configured.collect();
                let (_, time) = running.view.catalog_reached_at();
                let view = v1::GetTopologyResponse {
                    header: life.map(|life| header(*life, time.0)),
                    ..topology(CLUSTER, node, &running.cluster, &configured)
                };
                let learnt = router.learn(node, view, now_us);
                self.tally.add("topologies learnt");
                self.heard(client, node, is_probe, learnt);
                return self.leave_what_is_overtaken(client);
            }
        };
        let untold = Routed::Untold {
            node,
            is_probe,
            runs: running.is_some(),
        };
        self.after(fails_after_us, Happening::Routed(client, untold));
        Ok(())
    }

    /// A node has said who leads what.
    fn heard(&mut self, client: usize, node: u64, is_probe: bool, learnt: Learnt) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        if !is_probe {
            router.way.end_look(at(now_us));
        }
        if let Some(standing) = router.way.standing(&endpoint(node))
            && learnt != Learnt::Stranger
        {
            match is_probe {
                true => standing.probe_answered(),
                false => standing.answered(),
            }
        }
        self.see_to_nodes(client);
    }

    /// A node has not said who leads what.
    fn untold(&mut self, client: usize, node: u64, is_probe: bool, runs: bool) -> Checked {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return Ok(());
        };
        if !is_probe {
            router.way.end_look(at(now_us));
        }
        let mut is_lost = false;
        let chance = router.dice.generator();
        if let Some(standing) = router.way.standing(&endpoint(node)) {
            is_lost = match (is_probe, runs) {
                (true, _) => standing.probe_failed(at(now_us), chance),
                (false, true) => {
                    standing.doubt(at(now_us));
                    false
                }
                (false, false) => standing.lost(at(now_us), chance),
            };
        }
        router.way.hasten_if_alone(at(now_us), chance);
        if is_lost {
            self.tally.add("nodes lost");
            self.look_again(client);
        }
        self.see_to_nodes(client);
        self.leave_what_is_overtaken(client)
    }

    /// A client does not reach a node for a while.
    pub(crate) fn cut_a_client_off(&mut self, node: u64) {
        let routers = self.clients.iter_mut();
        let mut routers: Vec<_> = routers
            .filter_map(|client| client.router.as_mut())
            .collect();
        if routers.is_empty() {
            return;
        }
        let chosen = self.fate.below(routers.len());
        let for_us = self.fate.between(SECOND_US / 5, 8 * SECOND_US);
        routers[chosen].cut_off_from = Some((node, self.now_us + for_us));
        self.tally.add(FaultKind::ClientCutOff.name());
    }

    /// Every client reaches every node again. Half of those that find their way themselves never
    /// reach one again: the others are enough.
    pub(crate) fn let_clients_through(&mut self) {
        let nodes = self.nodes();
        let routers = self.clients.iter_mut();
        for router in routers.filter_map(|client| client.router.as_mut()) {
            let unreached = router.dice.pick(&nodes).copied();
            let unreached = unreached.filter(|_| router.dice.chance(500));
            router.cut_off_from = unreached.map(|node| (node, u64::MAX));
        }
    }
}

/// What a node of another cluster says: that it leads everything, for longer than anybody.
fn stranger(router: &Router) -> v1::GetTopologyResponse {
    let shards = router.way.topology().shard_count().max(1);
    let led = |shard| v1::Shard {
        shard,
        leader_node_id: Some(STRANGER),
        term: u64::MAX,
        ..v1::Shard::default()
    };
    v1::GetTopologyResponse {
        header: Some(header(u128::MAX, u64::MAX >> 8)),
        cluster_id: "another".to_owned(),
        node_id: STRANGER,
        nodes: vec![v1::Node {
            node_id: STRANGER,
            reachable: true,
            ..v1::Node::default()
        }],
        shards: (0..shards).map(led).collect(),
        shard_count: shards,
        meta: Some(led(v1::ShardIndex::META)),
        time: None,
    }
}

fn header(life: u128, time_ms: u64) -> v1::ResponseHeader {
    v1::ResponseHeader {
        indexes: Vec::new(),
        cluster_time: Some(Timestamp {
            seconds: (time_ms / 1_000) as i64,
            nanos: (time_ms % 1_000) as i32 * 1_000_000,
        }),
        incarnation: Bytes::copy_from_slice(&life.to_be_bytes()),
    }
}
