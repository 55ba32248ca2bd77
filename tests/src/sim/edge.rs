//! Calls on their way, as `stock_node::way` has it: to a node's own loop, over a connection to the
//! leader's, and back. What the edge and the connections between nodes do with sockets is done here
//! on the virtual network.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use stock_cluster::{GroupId, identity};
use stock_core::PutLocation;
use stock_node::answer::{Answer, Applied, Failure, Freshness, Question};
use stock_node::entry::Commands;
use stock_node::event::Event;
use stock_node::way::{self, Answerer, Next, ToLeader};
use stock_wire::cluster::v1 as cluster;
use stockd::peers::{self, notices};
use xxhash_rust::xxh3::xxh3_64;

use super::baskets::undecided;
use super::calls::{Asker, CallId, ReplyTo, Told};
use super::checks::answers::Found;
use super::checks::history::AnyCommand;
use super::checks::{Checked, broken};
use super::machine::Running;
use super::network::{Arrival, ConnectionId, Way};
use super::workload::{Ask, Subject, Wish};
use super::world::{Happening, World};

impl World {
    /// A call gets to its node, or is tried there once more.
    pub(crate) fn take_call(&mut self, id: CallId) -> Checked {
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        let Some(machine) = self.machines.get_mut(&call.node) else {
            return Ok(());
        };
        if let Some(look_after_us) = machine.paused(self.now_us) {
            self.after(look_after_us, Happening::Take(id));
            return Ok(());
        }
        let Some(running) = &mut machine.running else {
            // Whoever has sent it on would tell its client that there is no leader.
            let told = match call.sent_on {
                None => Told::NotConnected,
                Some(_) => Told::Failed(Failure::NotLeader { leader: None }),
            };
            self.tell(id, told);
            return Ok(());
        };
        if *call.boot.get_or_insert(running.boot) != running.boot {
            return Ok(());
        }
        let (node, group) = (call.node, call.wish.group);
        if call.asker == Asker::Client && call.way.is_none() && self.begin_basket(id) {
            return Ok(());
        }
        let (Some(call), Some(machine)) = (self.calls.get_mut(&id), self.machines.get_mut(&node))
        else {
            return Ok(());
        };
        let Some(running) = &mut machine.running else {
            return Ok(());
        };
        let cluster = &running.cluster;
        let was_sent_on = call.sent_on.is_some();
        match (&call.wish.ask, &call.commands) {
            (Ask::Read(freshness, subject), _) => {
                let answerer = match subject {
                    // Every node has them.
                    Subject::Locations => Answerer::Here,
                    Subject::Positions(_) | Subject::Reservation(_) | Subject::List(_) => {
                        way::of_read(cluster, group, was_sent_on)
                    }
                };
                if let Answerer::Others(nodes) = answerer {
                    self.ask_others(id, nodes);
                    return Ok(());
                }
                let question = match subject {
                    Subject::Positions(_) | Subject::Locations => Question::Reached,
                    Subject::Reservation(id) => Question::Reservation(*id),
                    Subject::List(asked) => Question::List(Arc::clone(asked)),
                };
                if let (Freshness::Near, Subject::Positions(_)) = (freshness, subject) {
                    // Not even the loop is asked.
                    let found = positions(running, &call.wish, 0);
                    self.tell(id, found);
                    return Ok(());
                }
                running.inbox.push(Event::Read {
                    group,
                    freshness: *freshness,
                    question,
                    reply: ReplyTo::Call(id),
                });
                self.wake(node);
            }
            (Ask::Commands(asked), Some(commands)) => {
                let is_for_an_operator = matches!(asked.first(), Some(AnyCommand::Registry(_)));
                if is_for_an_operator
                    && let Answerer::Others(leader) = way::of_operator(cluster, node, was_sent_on)
                {
                    self.ask_others(id, leader);
                    return Ok(());
                }
                let next = match is_for_an_operator {
                    true => Next::Propose,
                    false => {
                        let waiting = &running.waiting_for_leader;
                        let way = || ToLeader::new(node, group, Arc::clone(waiting));
                        let way = call.way.get_or_insert_with(way);
                        way.next(cluster, || self.now_us / 1_000)
                    }
                };
                let commands = commands.clone();
                self.go(id, next, commands);
            }
            (Ask::Commands(_), None) => {}
        }
        Ok(())
    }

    /// Goes on with commands, as is said to be next.
    fn go(&mut self, id: CallId, next: Next, commands: Commands) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let (node, group) = (call.node, call.wish.group);
        match next {
            Next::Propose => {
                let machine = self.machines.get_mut(&node);
                if let Some(running) = machine.and_then(|machine| machine.running.as_mut()) {
                    running.inbox.push(Event::Propose {
                        group,
                        commands,
                        reply: ReplyTo::Call(id),
                    });
                    self.wake(node);
                }
            }
            Next::Forward { to } => self.forward(id, node, to, group, commands),
            Next::Wait { ms } => self.after(ms * 1_000, Happening::Take(id)),
            Next::Answer(Answer::Failed(failure)) => self.tell(id, Told::Failed(failure)),
            Next::Answer(answer) => {
                // It is one to commands, whoever gave it.
                let _ = self.call_answered(id, answer);
            }
        }
    }

    /// Whoever was asked to carry out the commands of a call does not lead: nothing was done.
    fn not_led(&mut self, id: CallId) {
        let now_ms = self.now_us / 1_000;
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let answer = Answer::Failed(Failure::NotLeader { leader: None });
        let next = match &mut call.way {
            Some(way) => way.answered(answer, || now_ms),
            None => Next::Answer(answer),
        };
        let commands = call.commands.clone().unwrap_or_default();
        self.go(id, next, commands);
    }

    /// The loop of a node has answered one of its calls.
    pub(crate) fn call_answered(&mut self, id: CallId, answer: Answer) -> Checked {
        let Some(call) = self.calls.get(&id) else {
            return Ok(());
        };
        let told = match (answer, &call.wish.ask) {
            (Answer::Outcomes(applied), _)
                if call.asker == Asker::Client && undecided(&applied.outcomes).is_some() =>
            {
                if let Some(prepared) = undecided(&applied.outcomes) {
                    self.settle(id, prepared);
                }
                return Ok(());
            }
            (
                Answer::Outcomes(Applied {
                    applied_index,
                    outcomes,
                    ..
                }),
                Ask::Commands(_),
            ) => Told::Outcomes {
                index: applied_index,
                outcomes,
            },
            (Answer::Reached { applied_index }, Ask::Read(_, Subject::Positions(_))) => {
                let running = self
                    .machines
                    .get(&call.node)
                    .and_then(|machine| machine.running.as_ref());
                match running {
                    Some(running) => positions(running, &call.wish, applied_index),
                    None => return Ok(()),
                }
            }
            (
                Answer::Reservation {
                    reservation,
                    applied_index,
                    ..
                },
                Ask::Read(_, Subject::Reservation(id)),
            ) => Told::Found {
                index: applied_index,
                found: Found::Reservation(*id, reservation),
            },
            (
                Answer::Listed {
                    listed,
                    applied_index,
                    ..
                },
                Ask::Read(_, Subject::List(asked)),
            ) => Told::Found {
                index: applied_index,
                found: Found::Listed(Arc::clone(asked), listed),
            },
            (Answer::Reached { applied_index }, Ask::Read(_, Subject::Locations)) => {
                let running = self
                    .machines
                    .get(&call.node)
                    .and_then(|machine| machine.running.as_ref());
                match running {
                    Some(running) => locations(running, applied_index),
                    None => return Ok(()),
                }
            }
            (Answer::Failed(Failure::NotLeader { .. }), Ask::Commands(asked))
                if !matches!(asked.first(), Some(AnyCommand::Registry(_))) =>
            {
                self.not_led(id);
                return Ok(());
            }
            // It is gone, or has no replica any more: another one may know.
            (Answer::Failed(Failure::NotLeader { .. }), Ask::Read(_, subject))
                if !matches!(subject, Subject::Locations) =>
            {
                self.ask_next(id);
                return Ok(());
            }
            (Answer::Failed(failure), _) => Told::Failed(failure),
            (answer, ask) => return broken("answers", format!("{ask:?} is answered {answer:?}")),
        };
        self.tell(id, told);
        Ok(())
    }

    /// A frame gets to a node.
    pub(crate) fn frame_arrived(&mut self, arrival: Arrival) {
        let Way { from, to } = arrival.way;
        self.trace.note(
            self.now_us,
            "frame",
            &[from, to, xxh3_64(&arrival.frame)],
            || format!("{from} -> {to}, {} bytes", arrival.frame.len()),
        );
        let Some(running) = self.machines.get_mut(&to).and_then(|m| m.running.as_mut()) else {
            return;
        };
        if running.peers.get(&from) != Some(&arrival.connection) {
            return;
        }
        let Ok(frame) = cluster::Frame::decode(arrival.frame) else {
            return;
        };
        running.inbox.push(Event::PeerClock {
            node: from,
            wall_ms: frame.wall_clock_ms,
        });
        for message in frame.messages {
            running.inbox.push(Event::Message {
                group: GroupId(message.group),
                cluster_time: peers::cluster_time(&message),
                payload: message.payload,
                from,
            });
        }
        for notice in frame.notices.into_iter().flat_map(notices::read) {
            running.inbox.push(Event::Notice { from, notice });
        }
        for forward in frame.forwards {
            running.inbox.push(Event::Propose {
                group: GroupId(forward.group),
                commands: Commands {
                    count: forward.command_count,
                    bytes: forward.commands,
                    is_relief: forward.is_relief,
                    several_principals: forward.several_principals,
                },
                reply: ReplyTo::Peer {
                    node: from,
                    forward_id: forward.forward_id,
                },
            });
        }
        let mut answered = Vec::new();
        for reply in frame.replies {
            if let Some((_, call)) = running.forwards.remove(&reply.forward_id) {
                answered.push((call, peers::answer(reply)));
            }
        }
        self.wake(to);
        for (call, answer) in answered {
            // What comes from a peer is always an answer to commands.
            let _ = self.call_answered(call, answer);
        }
    }

    /// Sends a frame, if the node knows of a connection. `false` if it does not.
    pub(crate) fn send(&mut self, from: u64, to: u64, frame: &cluster::Frame) -> bool {
        let running = self.machines.get(&from).and_then(|m| m.running.as_ref());
        let Some(connection) = running.and_then(|running| running.peers.get(&to)) else {
            return false;
        };
        let way = Way { from, to };
        let bytes = Bytes::from(frame.encode_to_vec());
        let arrivals = self
            .network
            .send(self.now_us, way, *connection, bytes, &mut self.tally);
        self.deliver(arrivals);
        true
    }

    /// A node notices that a connection stands.
    pub(crate) fn connected(&mut self, node: u64, peer: u64, connection: ConnectionId) {
        let other = self.machines.get(&peer).and_then(|m| m.running.as_ref());
        let theirs = other.and_then(|running| {
            let hello = running.introductions.hello(cluster::Purpose::Frames);
            identity::wire::known(&hello)
        });
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        running.peers.insert(peer, connection);
        if let Some(theirs) = theirs {
            running.introductions.connected(peer, theirs);
        }
        running.cluster.set_reachable(peer, true);
        running.inbox.push(Event::PeerUp { node: peer });
        self.fail_forwards(node, peer);
        self.wake(node);
    }

    /// A node notices that a connection is broken. One that was replaced takes nothing down with
    /// it.
    pub(crate) fn disconnected(&mut self, node: u64, peer: u64, connection: ConnectionId) {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        if running.peers.get(&peer) != Some(&connection) {
            return;
        }
        running.peers.remove(&peer);
        running.cluster.set_reachable(peer, false);
        running.introductions.parted(peer);
        running.inbox.push(Event::PeerDown { node: peer });
        self.fail_forwards(node, peer);
        self.wake(node);
    }

    /// A client will hear of this.
    pub(crate) fn tell(&mut self, id: CallId, told: Told) {
        let asker = self.calls.get(&id).map(|call| call.asker);
        let after_us = match asker {
            Some(Asker::Client) | None => self.pace.between(30, 300),
            Some(_) => 1,
        };
        self.after(after_us, Happening::Hear(id, told));
    }

    /// Other nodes answer in this one's place, one after the other.
    fn ask_others(&mut self, id: CallId, nodes: Vec<u64>) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.sent_on = Some(nodes.into());
        }
        self.ask_next(id);
    }

    /// The next node is asked that may answer a call, over the public API.
    fn ask_next(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if call.sent_on.is_none()
            && let Some(running) = self
                .machines
                .get(&call.node)
                .and_then(|machine| machine.running.as_ref())
        {
            // The replica has gone since it was asked.
            call.sent_on = Some(running.cluster.others_with(call.wish.group).into());
        }
        let Some(to) = call.sent_on.as_mut().and_then(VecDeque::pop_front) else {
            self.tell(id, Told::Failed(Failure::NotLeader { leader: None }));
            return;
        };
        let way = Way {
            from: call.node,
            to,
        };
        call.node = to;
        call.boot = None;
        let is_up = self.machines.get(&to).is_some_and(|m| m.running.is_some());
        if !is_up || !self.network.is_free(way) {
            self.ask_next(id);
            return;
        }
        self.tally.add("calls sent on");
        let after_us = self.pace.skewed(self.plan.delay_us.0, self.plan.delay_us.1);
        self.after(after_us, Happening::Take(id));
    }

    fn forward(&mut self, id: CallId, node: u64, leader: u64, group: GroupId, commands: Commands) {
        let now = self.clock_of(node);
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        let forward_id = running.next_forward;
        running.next_forward += 1;
        running.forwards.insert(forward_id, (leader, id));
        let frame = cluster::Frame {
            wall_clock_ms: now.wall_ms,
            forwards: vec![cluster::Forward {
                forward_id,
                group: group.0,
                command_count: commands.count,
                commands: commands.bytes,
                is_relief: commands.is_relief,
                several_principals: commands.several_principals,
            }],
            ..Default::default()
        };
        self.tally.add("calls forwarded");
        if !self.send(node, leader, &frame) {
            if let Some(running) = self
                .machines
                .get_mut(&node)
                .and_then(|m| m.running.as_mut())
            {
                running.forwards.remove(&forward_id);
            }
            self.not_led(id);
        }
    }

    fn fail_forwards(&mut self, node: u64, peer: u64) {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        let lost: Vec<CallId> = running
            .forwards
            .values()
            .filter(|(to, _)| *to == peer)
            .map(|(_, call)| *call)
            .collect();
        running.forwards.retain(|_, (to, _)| *to != peer);
        for call in lost {
            self.tell(call, Told::Failed(Failure::OutcomeUnknown));
        }
    }
}

/// The locations that a node's read view has, page by page, as the edge reads them: the index
/// first.
fn locations(running: &Running, reached: u64) -> Told {
    /// Few, so that there are pages.
    const PAGE: usize = 2;
    let index = running.view.catalog_index();
    if index < reached {
        return Told::Failed(Failure::NotLeader { leader: None });
    }
    let mut locations: Vec<PutLocation> = Vec::new();
    loop {
        let after = locations.last().map(|last| &last.location);
        let page = running.view.locations(after, PAGE);
        if page.is_empty() {
            let found = Found::Locations(locations);
            return Told::Found { index, found };
        }
        locations.extend(page.iter().map(|put| PutLocation::clone(put)));
    }
}

/// What a node's read view says, as the edge reads it: the index first. The replica may be gone
/// since the loop said that it had reached an index.
fn positions(running: &Running, wish: &Wish, reached: u64) -> Told {
    let (Ask::Read(_, Subject::Positions(sku)), Some(shard)) = (&wish.ask, wish.group.shard())
    else {
        return Told::Failed(Failure::TooFarBehind);
    };
    let index = running.view.applied_index(shard);
    if index < reached {
        return Told::Failed(Failure::NotLeader { leader: None });
    }
    let positions = running
        .view
        .with_positions(sku, <[stock_core::Position]>::to_vec);
    Told::Found {
        index,
        found: Found::Positions(sku.clone(), positions),
    }
}
