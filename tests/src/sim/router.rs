//! What a client knows that finds its way itself, as the Rust client does and by its code: which
//! node a call goes to, how long an attempt may take, what follows from a failure, and which nodes
//! are probed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stock_client::way::{
    Attempts, Budget, Chosen, Consequence, Learnt, Lesson, Router as Way, Target,
};
use stock_client::{ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, StatusError, v1};
use stock_cluster::GroupId;
use stock_core::Action;
use stock_node::answer::Freshness;

use super::checks::history::AnyCommand;
use super::dice::Dice;
use super::faults::FaultKind;
use super::plan::Plan;
use super::workload::{Ask, Subject, Wish};

/// Every answer of a node names it.
pub(super) const CLUSTER: &str = "simulated";
/// A node of another cluster, at an address that clients were told.
pub(super) const STRANGER: u64 = 1_000_000;
/// Every third client finds its way itself, where any do.
const EVERY: usize = 3;

/// One attempt at a call.
pub(super) struct Attempt {
    pub(super) node: u64,
    /// How long it may be silent before it is doubted.
    pub(super) patience_us: u64,
    /// How long it may take.
    pub(super) allowed_us: u64,
    /// It gets to the node.
    pub(super) arrives: bool,
}

/// What a client knows of the way. Unlike the real one it knows nodes by their ids and not by
/// their addresses: where a node moves, or several share an address, is not played.
pub(crate) struct Router {
    pub(super) way: Way<u64>,
    /// The founders: what it was configured with.
    pub(super) seeds: Vec<u64>,
    /// A node that it does not reach, until then.
    pub(super) cut_off_from: Option<(u64, u64)>,
    /// The probes that are to come: of which node, and when.
    pub(super) probes: BTreeMap<u64, u64>,
    target: Target,
    call: Attempts,
    call_until_us: u64,
    asked: Option<Chosen<u64>>,
    /// Where the last attempt was that nothing was heard of.
    silent: Option<Chosen<u64>>,
    budget: Budget,
    pub(super) dice: Dice,
}

impl Router {
    /// Those that find their way themselves, as the seed has it.
    pub(crate) fn of(plan: &Plan, seed: u64, client: usize) -> Option<Box<Self>> {
        let is_one = client % EVERY == EVERY - 1;
        if !is_one || !plan.faults.contains(&FaultKind::ClientCutOff) {
            return None;
        }
        let mut dice = Dice::new(seed, &format!("router {client}"));
        let mut seeds: Vec<u64> = (1..=plan.founders).collect();
        // One of its addresses was another cluster's all along, or is by now.
        if dice.chance(500) {
            seeds.insert(dice.below(seeds.len() + 1), STRANGER);
        }
        let known = seeds.iter().map(|seed| (endpoint(*seed), *seed)).collect();
        let turn = dice.below(1 << 16);
        Some(Box::new(Self {
            way: Way::new(Some(CLUSTER.to_owned()), known, turn),
            seeds,
            cut_off_from: None,
            probes: BTreeMap::new(),
            target: Target::Any,
            call: Attempts::new(CALL_TIMEOUT, ATTEMPT_TIMEOUT, u32::MAX),
            call_until_us: 0,
            asked: None,
            silent: None,
            budget: Budget::default(),
            dice,
        }))
    }

    /// Whether it has learnt who leads since it began: before that it makes no call.
    pub(crate) fn is_open(&self) -> bool {
        self.way.has_learnt()
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, wish: &Wish, now_us: u64) {
        let attempt = match is_bulk(wish) {
            true => BULK_ATTEMPT_TIMEOUT,
            false => ATTEMPT_TIMEOUT,
        };
        self.target = target(wish);
        self.call = Attempts::new(CALL_TIMEOUT, attempt, u32::MAX);
        self.call_until_us = now_us + CALL_TIMEOUT.as_micros() as u64;
        (self.asked, self.silent) = (None, None);
    }

    /// An attempt begins; none where no node takes calls.
    pub(super) fn attempt(&mut self, now_us: u64) -> Option<Attempt> {
        let failures = |endpoint: &str| self.call.failures(endpoint);
        let chosen = self.way.choose(self.target, at(now_us), failures)?;
        let allowed = self.call.begin(self.left(now_us));
        let attempt = Attempt {
            node: chosen.link,
            patience_us: chosen.patience.min(allowed).as_micros() as u64,
            allowed_us: allowed.as_micros() as u64,
            arrives: self.reaches(chosen.link, now_us),
        };
        self.asked = Some(chosen);
        Some(attempt)
    }

    /// The node of the attempt under way.
    pub(super) fn asked(&self) -> Option<u64> {
        self.asked.as_ref().map(|chosen| chosen.link)
    }

    /// The node that was asked has answered, whatever it said.
    pub(super) fn answered(&mut self, now_us: u64) {
        self.budget.answered();
        let Some(chosen) = self.asked.take() else {
            return;
        };
        self.way.answered(&chosen);
        let silent = self.silent.take();
        if let Some(silent) = silent.filter(|it| it.endpoint != chosen.endpoint)
            && let Some(standing) = self.way.standing(&silent.endpoint)
        {
            standing.was_silent(at(now_us));
        }
    }

    /// The attempt under way has waited for long.
    pub(super) fn doubt(&mut self, now_us: u64) {
        if let Some(chosen) = &self.asked
            && let Some(standing) = self.way.standing(&chosen.endpoint)
        {
            standing.doubt(at(now_us));
        }
    }

    /// Whether the attempt under way is better given up.
    pub(super) fn is_overtaken(&self) -> bool {
        let asked = self.asked.as_ref();
        asked.is_some_and(|chosen| self.way.overtaken(self.target, chosen).is_some())
    }

    /// The attempt under way has failed. None where its call has no time left for another.
    pub(super) fn failed(
        &mut self,
        failure: &StatusError,
        now_us: u64,
    ) -> Option<(Consequence, Duration)> {
        let left = self.left(now_us);
        let chosen = self.asked.take()?;
        let chance = self.dice.generator();
        let after = self.call.failed(&chosen.endpoint, failure, left, chance);
        self.way.did_not_answer_for(&chosen);
        if let Some(standing) = self.way.standing(&chosen.endpoint) {
            match after.lesson {
                Lesson::Answers => standing.answered(),
                Lesson::Silent => {
                    standing.doubt(at(now_us));
                }
                Lesson::Lost => {
                    standing.lost(at(now_us), chance);
                }
                Lesson::NoNode => {
                    standing.is_of_no_node(at(now_us), chance);
                }
            }
        }
        self.way.hasten_if_alone(at(now_us), chance);
        if after.lesson == Lesson::Silent {
            self.silent = Some(chosen);
        }
        let turn = match after.takes_token {
            true => self.budget.take(at(now_us), left)?,
            false => Duration::ZERO,
        };
        Some((after, turn))
    }

    /// Learns from what a node has said.
    pub(super) fn learn(
        &mut self,
        node: u64,
        mut view: v1::GetTopologyResponse,
        now_us: u64,
    ) -> Learnt {
        for node in &mut view.nodes {
            node.endpoint = endpoint(node.node_id).to_string();
        }
        let open = |endpoint: &str| endpoint.parse().ok();
        let chance = self.dice.generator();
        self.way
            .learn(&endpoint(node), view, at(now_us), chance, open)
    }

    pub(super) fn reaches(&self, node: u64, now_us: u64) -> bool {
        let cut_off = self.cut_off_from;
        cut_off.is_none_or(|(from, until_us)| from != node || until_us <= now_us)
    }

    /// Whether the call's time is over.
    pub(super) fn is_over(&self, now_us: u64) -> bool {
        self.left(now_us).is_zero()
    }

    fn left(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.call_until_us.saturating_sub(now_us))
    }
}

/// A time of the run as the client's code has it.
pub(super) fn at(now_us: u64) -> Duration {
    Duration::from_micros(now_us)
}

/// Where a node is.
pub(super) fn endpoint(node: u64) -> Arc<str> {
    node.to_string().into()
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
