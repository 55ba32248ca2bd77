//! What a client knows that finds its way itself, as the Rust client does and by its code: which
//! node a call goes to, how long an attempt may take, and what follows from a failure.

use std::time::Duration;

use stock_client::way::{Attempts, Candidate, Consequence, SUSPECT_FOR, Target, choose};
use stock_client::{ATTEMPT_TIMEOUT, CALL_TIMEOUT, StatusError, Topology, v1};
use stock_cluster::GroupId;
use stock_node::answer::Freshness;

use super::dice::Dice;
use super::faults::FaultKind;
use super::plan::Plan;
use super::workload::{Ask, Subject, Wish};

/// Of so many clients one finds its way itself, where any do.
const ONE_OF: usize = 3;
/// What a client knows of the way.
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
        let is_one = client % ONE_OF == ONE_OF - 1;
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

    /// A call begins.
    pub(crate) fn begin(&mut self, now_us: u64) {
        self.call = Attempts::new(ATTEMPT_TIMEOUT);
        self.call_until_us = now_us + CALL_TIMEOUT.as_micros() as u64;
        self.avoided = None;
    }

    /// An attempt begins: at which node, and how many microseconds it may take.
    pub(super) fn attempt(&mut self, wish: &Wish, now_us: u64) -> Option<(u64, u64)> {
        let node = self.choose(target(wish), self.avoided, now_us)?;
        let allowed = self.call.begin(self.left(now_us));
        self.asked = node;
        Some((node, allowed.as_micros() as u64))
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
        let known = self.topology.nodes().iter().map(|node| node.node_id);
        let known: Vec<u64> = known.collect();
        let others = self.seeds.iter().copied();
        let others: Vec<u64> = others.filter(|seed| !known.contains(seed)).collect();
        let id = |index: usize| {
            *known
                .get(index)
                .unwrap_or_else(|| &others[index - known.len()])
        };
        let is_suspect = |node| {
            let mut suspects = self.suspects.iter();
            suspects.any(|(suspect, until_us)| *suspect == node && *until_us > now_us)
        };
        let candidate = |index: usize| Candidate {
            node: known.get(index).copied(),
            is_suspect: is_suspect(id(index)),
            is_avoided: avoid == Some(id(index)),
        };
        let count = known.len() + others.len();
        let best = choose(&self.topology, target, count, candidate, self.turn).map(id);
        self.turn += 1;
        best
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
    match (&wish.ask, wish.group) {
        (Ask::Read(Freshness::Near, Subject::Positions(_) | Subject::Reservation(_)), _) => {
            Target::Any
        }
        (_, GroupId::META) => Target::Meta,
        (_, group) => group.shard().map_or(Target::Any, Target::Shard),
    }
}
