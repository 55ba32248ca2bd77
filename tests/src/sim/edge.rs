//! The way of a call through a node: to its own loop, over a connection to the leader's, and back, as
//! `stockd/src/api/edge.rs` and `stockd/src/peers` have it.

use bytes::Bytes;
use prost::Message as _;
use stock_core::PutLocation;
use stock_proto::cluster::v1 as cluster;
use stockd::identity;
use stockd::log_codec::Commands;
use stockd::peers::{self, notices};
use stockd::worker::event::{Answer, Event, Failure, Freshness, GroupId, Outcomes, Question};
use xxhash_rust::xxh3::xxh3_64;

use super::checks::answers::Found;
use super::checks::history::AnyCommand;
use super::checks::{Checked, broken};
use super::machine::Running;
use super::network::{Arrival, ConnectionId, Way};
use super::workload::{Ask, Subject, Wish};
use super::world::{Happening, World};

/// The number of a client's attempt.
pub(crate) type CallId = u64;

/// A call waits this long for a leader, as in production.
const LEADER_WITHIN_US: u64 = 1_500_000;
const LEADER_CHECK_EVERY_US: u64 = 20_000;

/// Who gets an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReplyTo {
    Call(CallId),
    Peer { node: u64, forward_id: u64 },
}

/// A client's attempt.
pub(crate) struct Call {
    pub(crate) node: u64,
    /// The boot that took it.
    pub(crate) boot: Option<u64>,
    pub(crate) wish: Wish,
    pub(crate) commands: Option<Commands>,
    pub(crate) began_us: u64,
    /// Another node could not answer it and has sent it on, which happens once.
    pub(crate) is_sent_on: bool,
    /// The highest index that anybody had been told of when it began.
    pub(crate) answered_before: u64,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    Outcomes { index: u64, outcomes: Outcomes },
    Found { index: u64, found: Found },
    Failed(Failure),
}

impl Told {
    /// For the hash of the run.
    pub(crate) fn digest(&self) -> u64 {
        xxh3_64(format!("{self:?}").as_bytes())
    }
}

impl World {
    /// A call gets to its node, or is tried there once more.
    pub(crate) fn take_call(&mut self, id: CallId) -> Checked {
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        let Some(machine) = self.machines.get_mut(&call.node) else {
            return Ok(());
        };
        if machine.paused_until_us > self.now_us {
            let after_us = machine.paused_until_us - self.now_us;
            self.after(after_us, Happening::Take(id));
            return Ok(());
        }
        let Some(running) = &mut machine.running else {
            self.tell(id, Told::Failed(Failure::NotLeader { leader: None }));
            return Ok(());
        };
        if *call.boot.get_or_insert(running.boot) != running.boot {
            return Ok(());
        }
        let (node, group) = (call.node, call.wish.group);
        let is_here = running.cluster.is_here(group);
        let leader = running.cluster.group(group).leader;
        match (&call.wish.ask, &call.commands) {
            (Ask::Read(_, Subject::Positions(_)), _) if !is_here => {
                match leader.filter(|_| !call.is_sent_on) {
                    Some(leader) => self.send_on(id, leader),
                    None => self.tell(id, Told::Failed(Failure::NotLeader { leader: None })),
                }
            }
            (Ask::Read(freshness, subject), _) => {
                let question = match subject {
                    Subject::Positions(_) | Subject::Locations => Question::Reached,
                    Subject::Reservation(id) => Question::Reservation(*id),
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
                let commands = commands.clone();
                let is_for_an_operator = matches!(asked.first(), Some(AnyCommand::Registry(_)));
                match leader {
                    // What operators ask is answered where group 0 is led, as `api/cluster.rs` has it.
                    Some(leader) if is_for_an_operator && leader != node && !call.is_sent_on => {
                        self.send_on(id, leader);
                    }
                    _ if is_for_an_operator => {
                        running.inbox.push(Event::Propose {
                            group,
                            commands,
                            reply: ReplyTo::Call(id),
                        });
                        self.wake(node);
                    }
                    Some(leader) if leader == node => {
                        running.inbox.push(Event::Propose {
                            group,
                            commands,
                            reply: ReplyTo::Call(id),
                        });
                        self.wake(node);
                    }
                    Some(leader) => self.forward(id, node, leader, group, commands),
                    None => self.no_leader(id),
                }
            }
            (Ask::Commands(_), None) => {}
        }
        Ok(())
    }

    /// The loop of a node has answered one of its calls.
    pub(crate) fn call_answered(&mut self, id: CallId, answer: Answer) -> Checked {
        let Some(call) = self.calls.get(&id) else {
            return Ok(());
        };
        let told = match (answer, &call.wish.ask) {
            (
                Answer::Outcomes {
                    applied_index,
                    outcomes,
                    ..
                },
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
                self.no_leader(id);
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

    /// A node notices that a connection is broken. One that was replaced takes nothing down with it.
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
        let after_us = self.pace.between(30, 300);
        self.after(after_us, Happening::Hear(id, told));
    }

    /// Nothing was done: tries again for a while, as the edge does.
    fn no_leader(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if self.now_us < call.began_us + LEADER_WITHIN_US {
            self.after(LEADER_CHECK_EVERY_US, Happening::Take(id));
        } else {
            self.tell(id, Told::Failed(Failure::NotLeader { leader: None }));
        }
    }

    /// Another node answers in this one's place, over the public API.
    fn send_on(&mut self, id: CallId, to: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let way = Way {
            from: call.node,
            to,
        };
        let is_up = self.machines.get(&to).is_some_and(|m| m.running.is_some());
        if !is_up || !self.network.is_free(way) {
            self.tell(id, Told::Failed(Failure::NotLeader { leader: None }));
            return;
        }
        call.node = to;
        call.boot = None;
        call.is_sent_on = true;
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
            self.no_leader(id);
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

/// The locations that a node's read view has, page by page, as the edge reads them: the index first.
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

/// What a node's read view says, as the edge reads it: the index first. The replica may be gone since the
/// loop said that it had reached an index.
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
