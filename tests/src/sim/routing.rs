//! The calls of clients that find their way themselves: what `stock-client` does with connections
//! and timers is done here on the virtual network.

use stock_client::way::{TOPOLOGY_AGE_MAX, TOPOLOGY_AGE_MIN, TOPOLOGY_TIMEOUT, Target, Then};
use stock_client::{ATTEMPT_TIMEOUT, StatusError};
use stockd::api::{ApiError, topology};
use tonic::Status;

use super::calls::{CallId, Told};
use super::checks::{Checked, broken};
use super::client::Client;
use super::faults::FaultKind;
use super::plan::SECOND_US;
use super::router::Attempt;
use super::world::{Chapter, Happening, World};

/// Every answer of a node names it.
const CLUSTER: &str = "simulated";
/// A client whose call has no answer in the end asks again after this, when nothing goes wrong any
/// more.
const ANEW_AFTER_US: u64 = SECOND_US;

impl World {
    /// Where a client's next attempt goes, if it finds its way itself.
    pub(crate) fn next_attempt(&mut self, client: usize) -> Option<Attempt> {
        let now_us = self.now_us;
        let client_state = &mut self.clients[client];
        let current = client_state.current.as_ref()?;
        let router = client_state.router.as_mut()?;
        let attempt = router.attempt(&current.wish, now_us)?;
        let age_us = now_us.saturating_sub(router.learnt_us);
        if age_us > TOPOLOGY_AGE_MAX.as_micros() as u64 {
            self.look_again(client);
        }
        Some(attempt)
    }

    /// Whether an answer of the node that a client has asked gets to it.
    pub(crate) fn hears(&self, client: usize) -> bool {
        let router = self.clients[client].router.as_ref();
        router.is_none_or(|router| router.reaches(router.asked(), self.now_us))
    }

    /// A process has ended, and its connections with it: the calls that it had have no answer.
    pub(crate) fn break_calls(&mut self, node: u64) {
        let waits = |client: &Client| {
            let asked = client.router.as_ref()?.asked();
            client.current.as_ref()?.call.filter(|_| asked == node)
        };
        let calls: Vec<CallId> = self.clients.iter().filter_map(waits).collect();
        for call in calls {
            self.tell(call, Told::NotConnected);
        }
    }

    /// The node that a client has asked told it something.
    pub(crate) fn routed_call_answered(&mut self, client: usize) {
        if let Some(router) = &mut self.clients[client].router {
            router.answered();
        }
    }

    /// An attempt of a client that finds its way itself has failed.
    pub(crate) fn routed_call_failed(&mut self, client: usize, told: &Told) -> Checked {
        let failure = match told {
            Told::Failed(failure) => StatusError::from(Status::from(ApiError::from(*failure))),
            Told::NotConnected => StatusError::not_connected(),
            Told::Nothing => StatusError::silent(ATTEMPT_TIMEOUT),
            Told::Outcomes { .. } | Told::Found { .. } => return Ok(()),
        };
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return Ok(());
        };
        let after = router.failed(&failure, now_us);
        if after.suspect {
            self.tally.add("nodes suspected");
        }
        if after.look_again {
            self.look_again(client);
        }
        match after.then {
            Then::Again(pause) => {
                let after_us = pause.as_micros() as u64;
                self.after(after_us, Happening::Retry(client));
            }
            Then::GiveUp => {
                return broken(
                    "routing",
                    format!("client {client} gives up, though trying again may help: {failure}"),
                );
            }
            Then::TimedOut => match self.chapter {
                Chapter::Trouble => {
                    self.tally.add("given up");
                    self.clients[client].current = None;
                    self.rest(client);
                }
                // With the same ids, as its error says.
                Chapter::Recovery => {
                    let state = &mut self.clients[client];
                    if let (Some(router), Some(current)) = (&mut state.router, &state.current) {
                        router.begin(&current.wish, now_us + ANEW_AFTER_US);
                    }
                    self.after(ANEW_AFTER_US, Happening::Retry(client));
                }
                Chapter::Audit | Chapter::Over => {
                    return broken(
                        "routing",
                        format!(
                            "nothing goes wrong any more, and client {client} has no answer to \
                             {:?}: {failure}; it sees {:?}",
                            self.clients[client].describe(),
                            self.clients[client].router.as_ref().map(|it| &it.topology),
                        ),
                    );
                }
            },
        }
        Ok(())
    }

    /// A client learns anew who leads, beside its calls.
    pub(crate) fn look_again(&mut self, client: usize) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        let has_just = router.looked_us != 0
            && now_us.saturating_sub(router.looked_us) < TOPOLOGY_AGE_MIN.as_micros() as u64;
        if has_just || router.is_looking {
            return;
        }
        router.is_looking = true;
        let tries = router.candidates().len();
        self.ask_for_topology(client, None, tries);
    }

    fn ask_for_topology(&mut self, client: usize, avoid: Option<u64>, tries: usize) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        let chosen = router.choose(Target::Any, avoid, now_us);
        let Some(node) = chosen.filter(|_| tries > 0) else {
            router.done_looking(now_us);
            return;
        };
        let after_us = router.dice.between(60, 600);
        let tries = tries - 1;
        self.after(
            after_us,
            Happening::TopologyAsked {
                client,
                node,
                tries,
            },
        );
    }

    /// A node is asked who leads what.
    pub(crate) fn topology_asked(&mut self, client: usize, node: u64, tries: usize) {
        let now_us = self.now_us;
        let Some(router) = &mut self.clients[client].router else {
            return;
        };
        let machine = self.machines.get(&node);
        let running = machine.and_then(|machine| machine.running.as_ref());
        let stands_still = machine.is_some_and(|machine| machine.paused_until_us > now_us);
        let fails_after_us = match running {
            _ if stands_still || !router.reaches(node, now_us) => {
                TOPOLOGY_TIMEOUT.as_micros() as u64
            }
            None => 0,
            Some(running) => {
                let configured = router.seeds.iter().map(|node| (*node, ""));
                let configured: Vec<(u64, &str)> = configured.collect();
                let view = topology(CLUSTER, node, &running.cluster, &configured);
                router.learn(view, node, now_us);
                self.tally.add("topologies learnt");
                return;
            }
        };
        let untold = Happening::TopologyUntold {
            client,
            node,
            tries,
        };
        self.after(fails_after_us, untold);
    }

    /// A node has not said who leads what: another is asked, if one is left.
    pub(crate) fn topology_untold(&mut self, client: usize, node: u64, tries: usize) {
        let now_us = self.now_us;
        if let Some(router) = &mut self.clients[client].router {
            router.suspect(node, now_us);
        }
        self.ask_for_topology(client, Some(node), tries);
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
