//! Clients: one operation at a time each, sent again under the same id until its outcome is known
//! or patience ends.

use stock_node::answer::{Failure, Outcome};

use super::calls::{Asker, Call, CallId, Told};
use super::checks::{Checked, answers, broken};
use super::client::{Client, Current, Routed};
use super::plan::SECOND_US;
use super::router::STRANGER;
use super::workload::{Ask, encode};
use super::world::{Chapter, Happening, World};

/// While things go wrong a client tries this often; afterwards, until it knows.
const ATTEMPTS_MAX: u32 = 8;
/// A client that has yet to learn who leads tries so much later.
const NOT_OPEN_AGAIN_US: u64 = 20_000;

impl World {
    /// A client that has nothing to do begins something.
    pub(crate) fn think(&mut self, client: usize) -> Checked {
        if self.clients[client].is_busy() {
            return Ok(());
        }
        let router = self.clients[client].router.as_ref();
        if router.is_some_and(|router| !router.is_open()) {
            self.look_again(client);
            self.after(NOT_OPEN_AGAIN_US, Happening::Think(client));
            return Ok(());
        }
        let wish = match self.chapter {
            Chapter::Trouble if self.clients[client].next.is_some() => {
                self.clients[client].home = None;
                self.clients[client].next.take()
            }
            Chapter::Trouble => {
                let (wish, again) = self.workload.next(self.true_us());
                if again {
                    self.tally.add("sent again after an answer");
                }
                Some(wish)
            }
            Chapter::Recovery | Chapter::Over => None,
            Chapter::Audit => self.audit.pop(),
        };
        let Some(wish) = wish else {
            return Ok(());
        };
        self.clients[client].current = Some(Current {
            wish,
            attempts: 0,
            call: None,
        });
        let state = &mut self.clients[client];
        if let (Some(router), Some(current)) = (&mut state.router, &state.current) {
            router.begin(&current.wish, self.now_us);
        }
        self.attempt(client)
    }

    /// A client tries again.
    pub(crate) fn retry(&mut self, client: usize) -> Checked {
        let Some(current) = &self.clients[client].current else {
            return Ok(());
        };
        // One that finds its way itself may have been told twice to try again.
        if current.call.is_some() {
            return Ok(());
        }
        let ends_itself = self.clients[client].router.is_some();
        let is_patient = ends_itself || self.chapter != Chapter::Trouble;
        if current.attempts >= ATTEMPTS_MAX && !is_patient {
            self.tally.add("given up");
            self.clients[client].current = None;
            self.rest(client);
            return Ok(());
        }
        let wish = self.workload.again(&current.wish.clone(), self.true_us());
        if let Some(current) = &mut self.clients[client].current {
            current.wish = wish;
        }
        self.tally.add("retries");
        self.attempt(client)
    }

    /// A client has waited long enough for an answer.
    pub(crate) fn impatience(&mut self, call: CallId) -> Checked {
        let Some(client) = self.client_of(call) else {
            return Ok(());
        };
        // The call goes on without it, and its answer, if one comes, is checked all the same.
        if let Some(current) = &mut self.clients[client].current {
            current.call = None;
        }
        self.clients[client].home = None;
        self.hung_up(call);
        self.tally.add("timeouts");
        match &self.clients[client].router {
            Some(router) if self.chapter == Chapter::Audit && !router.is_overtaken() => broken(
                "routing",
                format!(
                    "nothing goes wrong any more, and client {client} waits for node {:?} for as \
                     long as it may",
                    router.asked()
                ),
            ),
            Some(_) => self.routed_call_failed(client, &Told::Nothing),
            None => self.retry(client),
        }
    }

    /// An answer, or a failure, gets to a client.
    pub(crate) fn hear(&mut self, id: CallId, told: Told) -> Checked {
        let client = self.client_of(id);
        let Some(call) = self.calls.remove(&id) else {
            return Ok(());
        };
        self.trace
            .note(self.now_us, "heard", &[id, told.digest()], || {
                format!("call {id}: {told:?}")
            });
        let history = &self.histories[call.wish.group.index()];
        match (&call.wish.ask, &told) {
            (Ask::Commands(sent), Told::Outcomes { index, outcomes }) => {
                answers::commands(history, sent, *index, outcomes, call.answered_before)?;
                self.tally.add("commands answered");
            }
            (Ask::Read(freshness, _), Told::Found { index, found }) => {
                answers::read(history, *freshness, *index, found, call.answered_before)?;
                self.tally.add("reads answered");
            }
            _ => {}
        }
        if call.asker != Asker::Client {
            self.shard_answered(&call, told);
            return Ok(());
        }
        if let Told::Basket(outcome) = &told {
            self.basket_heard(&call, outcome)?;
        }
        if let Told::Outcomes { index, .. } | Told::Found { index, .. } = told {
            let answered = &mut self.answered[call.wish.group.index()];
            *answered = (*answered).max(index);
        }
        if let Some((node, directory)) = self.joins.remove(&id) {
            self.let_in(node, directory, &told);
        }
        // What does not get to it is silence, which ends its attempt.
        let Some(client) = client.filter(|client| self.hears(*client)) else {
            return Ok(());
        };
        let failed = matches!(told, Told::Failed(_) | Told::NotConnected | Told::Nothing);
        self.clients[client].home = Some(call.node).filter(|_| !failed);
        if !failed {
            self.routed_call_answered(client);
        }
        match told {
            Told::Outcomes { index, outcomes } => {
                self.workload.answered(&call.wish, index, &outcomes);
                self.clients[client].current = None;
                self.clients[client].next = self.workload.read_back(&call.wish, &outcomes);
                self.rest(client);
            }
            Told::Basket(outcome) => {
                let outcomes = [Outcome::Stock(outcome)];
                self.workload.answered(&call.wish, 0, &outcomes);
                self.clients[client].current = None;
                self.clients[client].next = self.workload.read_back(&call.wish, &outcomes);
                self.rest(client);
            }
            Told::Found { index, .. } => {
                self.workload.answered(&call.wish, index, &[]);
                self.clients[client].current = None;
                self.rest(client);
            }
            Told::Failed(_) | Told::NotConnected | Told::Nothing => {
                self.tally.add(match told {
                    Told::Failed(Failure::NotLeader { .. }) => "failed: no leader",
                    Told::Failed(Failure::Overloaded) => "failed: overloaded",
                    Told::Failed(Failure::DiskFull) => "failed: disk full",
                    Told::Failed(Failure::MemoryFull) => "failed: memory full",
                    Told::Failed(Failure::OutcomeUnknown) => "failed: outcome unknown",
                    Told::Failed(Failure::TooFarBehind) => "failed: too far behind",
                    _ => "failed: not connected",
                });
                if let Some(current) = &mut self.clients[client].current {
                    current.call = None;
                }
                if self.clients[client].router.is_some() {
                    return self.routed_call_failed(client, &told);
                }
                let after_us = self.pace.between(5_000, 200_000);
                self.after(after_us, Happening::Retry(client));
            }
        }
        Ok(())
    }

    pub(crate) fn rest(&mut self, client: usize) {
        let after_us = match self.chapter {
            Chapter::Trouble if self.clients[client].next.is_some() => self.pace.between(1, 200),
            Chapter::Trouble => self.pace.between(100, self.plan.think_us_max),
            Chapter::Recovery | Chapter::Audit | Chapter::Over => 1_000,
        };
        self.after(after_us, Happening::Think(client));
    }

    fn attempt(&mut self, client: usize) -> Checked {
        let routed = self.next_attempt(client);
        if routed.is_none() && self.clients[client].router.is_some() {
            return self.waits_for_a_node(client);
        }
        let asked = routed.as_ref().map(|attempt| attempt.node);
        if asked == Some(STRANGER) {
            let what = format!("client {client} asks a node of another cluster");
            return broken("routing", what);
        }
        let Some(node) = asked.or_else(|| self.node_for(client)) else {
            return Ok(());
        };
        let id = self.next_call;
        self.next_call += 1;
        let Some(current) = &mut self.clients[client].current else {
            return Ok(());
        };
        current.attempts += 1;
        current.call = Some(id);
        let wish = current.wish.clone();
        let commands = match &wish.ask {
            Ask::Commands(commands) => Some(encode(commands)),
            Ask::Read(..) => None,
        };
        self.trace
            .note(self.now_us, "call", &[id, client as u64, node], || {
                format!("{id} of client {client} at node {node}: {wish:?}")
            });
        self.calls.insert(
            id,
            Call {
                node,
                boot: None,
                answered_before: self.answered[wish.group.index()],
                wish,
                commands,
                way: None,
                sent_on: None,
                asker: Asker::Client,
                over_shards: None,
            },
        );
        let (patience_us, arrives) = match routed {
            Some(attempt) => {
                let late = Happening::Routed(client, Routed::Late(id));
                self.after(attempt.patience_us, late);
                (attempt.allowed_us, attempt.arrives)
            }
            None => (self.pace.between(SECOND_US / 5, 4 * SECOND_US), true),
        };
        if arrives {
            let after_us = self.pace.between(30, 300);
            self.after(after_us, Happening::Take(id));
        }
        self.after(patience_us, Happening::Impatience(id));
        Ok(())
    }

    /// Half of the clients stay with the node that answered them last.
    fn node_for(&mut self, client: usize) -> Option<u64> {
        let home = self.clients[client].home;
        if let Some(home) = home.filter(|_| client.is_multiple_of(2)) {
            return Some(home);
        }
        let nodes = self.nodes();
        self.pace.pick(&nodes).copied()
    }

    fn client_of(&self, call: CallId) -> Option<usize> {
        let waits = |client: &Client| {
            let current = client.current.as_ref();
            current.is_some_and(|current| current.call == Some(call))
        };
        self.clients.iter().position(waits)
    }
}
