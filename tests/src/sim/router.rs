//! What a client knows that finds its way itself, as the Rust client does and by its code: which
//! node a call goes to, how long an attempt may take, and what follows from a failure.

use std::time::Duration;

use stock_client::way::{Attempts, Candidate, Consequence, SUSPECT_FOR, Target, choose};
use stock_client::{
    ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, StatusError, Topology, v1,
};
use stock_cluster::GroupId;
use stock_core::Action;
use stock_node::answer::Freshness;

use super::checks::history::AnyCommand;
use super::dice::Dice;
use super::faults::FaultKind;
use super::plan::Plan;
use super::workload::{Ask, Subject, Wish};

/// Every third client finds its way itself, where any do.
const EVERY: usize = 3;

/// One attempt at a call.
pub(super) struct Attempt {
    pub(super) node: u64,
    /// How long it may take.
    pub(super) allowed_us: u64,
    /// It gets to the node.
    pub(super) arrives: bool,
}

/// What a client knows of the way. Unlike the real one it knows nodes by their ids and not by
/// their addresses: where a node moves, or several share an address, is not played.
pub(crate) struct Router {
    pub(super) topology: Topology,
    pub(super) learnt_us: u64,
    pub(super) looked_us: u64,
    pub(super) is_looking: bool,
    /// The founders: what it was configured with.
    pub(super) seeds: Vec<u64>,
    /// Nodes that are tried last, and until when.
    suspects: Vec<(u64, u64)>,
    /// A node that it does not reach, until then.
    pub(super) cut_off_from: Option<(u64, u64)>,
    turn: usize,
    call: Attempts,
    call_until_us: u64,
    asked: u64,
    avoided: Option<u64>,
    pub(super) dice: Dice,
}

impl Router {
    /// Those that find their way themselves, as the seed has it.
    pub(crate) fn of(plan: &Plan, seed: u64, client: usize) -> Option<Box<Self>> {
        let is_one = client % EVERY == EVERY - 1;
        if !is_one || !plan.faults.contains(&FaultKind::ClientCutOff) {
            return None;
        }
        let seeds: Vec<u64> = (1..=plan.founders).collect();
        let mut dice = Dice::new(seed, &format!("router {client}"));
        Some(Box::new(Self {
            // As good as none, until it has looked.
            topology: Topology::new(v1::GetTopologyResponse {
                shard_count: plan.shards,
                ..v1::GetTopologyResponse::default()
            }),
            learnt_us: 0,
            looked_us: 0,
            is_looking: false,
            seeds,
            suspects: Vec::new(),
            cut_off_from: None,
            turn: dice.below(1 << 16),
            call: Attempts::new(ATTEMPT_TIMEOUT),
            call_until_us: 0,
            asked: 0,
            avoided: None,
            dice,
        }))
    }

    /// Whether it has learnt who leads since it began: before that it makes no call.
    pub(crate) fn is_open(&self) -> bool {
        self.learnt_us > 0
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, wish: &Wish, now_us: u64) {
        self.call = Attempts::new(match is_bulk(wish) {
            true => BULK_ATTEMPT_TIMEOUT,
            false => ATTEMPT_TIMEOUT,
        });
        self.call_until_us = now_us + CALL_TIMEOUT.as_micros() as u64;
        self.avoided = None;
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self, wish: &Wish, now_us: u64) -> Option<Attempt> {
        let node = self.choose(target(wish), self.avoided, now_us)?;
        let allowed = self.call.begin(self.left(now_us));
        self.asked = node;
        Some(Attempt {
            node,
            allowed_us: allowed.as_micros() as u64,
            arrives: self.reaches(node, now_us),
        })
    }

    /// The node of the attempt under way.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// The node that was asked has answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.trust(self.asked);
    }

    /// The attempt under way has failed.
    pub(super) fn failed(&mut self, failure: &StatusError, now_us: u64) -> Consequence {
        let left = self.left(now_us);
        let after = self.call.failed(failure, left, self.dice.generator());
        if after.suspect {
            self.suspect(self.asked, now_us);
        }
        self.avoided = after.avoid.then_some(self.asked);
        after
    }

    pub(super) fn choose(
        &mut self,
        target: Target,
        avoid: Option<u64>,
        now_us: u64,
    ) -> Option<u64> {
        let candidates = self.candidates();
        let is_suspect = |node| {
            let mut suspects = self.suspects.iter();
            suspects.any(|(suspect, until_us)| *suspect == node && *until_us > now_us)
        };
        let candidate = |index: usize| {
            let (node, is_listed) = candidates[index];
            Candidate {
                node: is_listed.then_some(node),
                is_suspect: is_suspect(node),
                is_avoided: avoid == Some(node),
            }
        };
        let best = choose(
            &self.topology,
            target,
            candidates.len(),
            candidate,
            self.turn,
        );
        self.turn += 1;
        best.map(|index| candidates[index].0)
    }

    /// The nodes that it may ask, and whether the topology lists them: those that it does, in its
    /// order, then the others that it was configured with.
    pub(super) fn candidates(&self) -> Vec<(u64, bool)> {
        let listed = self.topology.nodes().iter().map(|node| node.node_id);
        let mut candidates: Vec<(u64, bool)> = listed.map(|node| (node, true)).collect();
        for seed in &self.seeds {
            if !candidates.iter().any(|(node, _)| node == seed) {
                candidates.push((*seed, false));
            }
        }
        candidates
    }

    fn trust(&mut self, node: u64) {
        self.suspects.retain(|(suspect, _)| *suspect != node);
    }

    pub(super) fn suspect(&mut self, node: u64, now_us: u64) {
        self.suspects.retain(|(suspect, _)| *suspect != node);
        self.suspects
            .push((node, now_us + SUSPECT_FOR.as_micros() as u64));
    }

    pub(super) fn learn(&mut self, view: v1::GetTopologyResponse, of: u64, now_us: u64) {
        self.trust(of);
        self.topology = self.topology.succeeded_by(view);
        self.learnt_us = now_us;
        self.done_looking(now_us);
    }

    pub(super) fn done_looking(&mut self, now_us: u64) {
        self.is_looking = false;
        self.looked_us = now_us;
    }

    pub(super) fn reaches(&self, node: u64, now_us: u64) -> bool {
        let cut_off = self.cut_off_from;
        cut_off.is_none_or(|(from, until_us)| from != node || until_us <= now_us)
    }

    fn left(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.call_until_us.saturating_sub(now_us))
    }
}

/// Who answers without having to send the call on, as `Client` has it.
fn target(wish: &Wish) -> Target {
    let is_of_leader = match &wish.ask {
        Ask::Commands(_) | Ask::Read(_, Subject::Locations) => true,
        Ask::Read(freshness, _) => matches!(freshness, Freshness::Linearizable { .. }),
    };
    match wish.group {
        _ if !is_of_leader => Target::Any,
        GroupId::META => Target::Meta,
        group => group.shard().map_or(Target::Any, Target::Shard),
    }
}

/// Whether a call may queue behind others on a busy disk, as `Client` has it.
fn is_bulk(wish: &Wish) -> bool {
    let Ask::Commands(commands) = &wish.ask else {
        return false;
    };
    let is_movement = |command: &AnyCommand| match command {
        AnyCommand::Stock(command) => matches!(command.action, Action::Movements(_)),
        AnyCommand::Catalog(_) | AnyCommand::Registry(_) => false,
    };
    commands.len() > 1 || commands.iter().any(is_movement)
}
