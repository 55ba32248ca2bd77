//! Who belongs to the cluster: nodes that ask to be let in, nodes whose data can be trusted, and
//! whether every group is whole.

use stock_cluster::{Change, Directory, GroupId, Registry, RegistryOutcome, ReplicaId};
use stock_node::answer::Outcome;

use super::addresses::listed;
use super::calls::Told;
use super::checks::baskets::Baskets;
use super::checks::{Checked, broken};
use super::network::Way;
use super::world::{Happening, World};

/// Between two attempts to be let in, as in production.
const ASK_EVERY_US: u64 = 500_000;

impl World {
    /// A node with an empty disk asks one of the others, as `stockd/src/api/join.rs` does.
    pub(crate) fn ask_to_join(&mut self, node: u64, directory: u128) {
        let waits = self.machines.get(&node).is_some_and(|machine| {
            machine.directory == directory
                && !machine.is_out
                && machine.running.is_none()
                && machine.let_in.is_none()
                && !machine.is_founder
        });
        if !waits {
            return;
        }
        self.after(ASK_EVERY_US, Happening::AskToJoin { node, directory });
        let mut others = self.nodes();
        others.retain(|other| *other != node);
        let Some(seed) = self.pace.pick(&others).copied() else {
            return;
        };
        let way = Way {
            from: node,
            to: seed,
        };
        if !self.network.is_free(way) {
            return;
        }
        let machine = self.machines.get(&seed);
        let running = machine.and_then(|machine| machine.running.as_ref());
        let address = self.machines.get(&node).map(|it| it.address.clone());
        let address = address.unwrap_or_default();
        // As the node that is asked sees it.
        let known = running.map(|running| running.cluster.registry());
        let known = known.and_then(|registry| registry.node(node)?.directory);
        let change = Change::Join {
            node,
            directory: Directory(directory),
            replaces: known,
            grpc: format!("http://{address}"),
            peers: address,
        };
        let call = self.ask_group_0(seed, change, None);
        self.joins.insert(call, (node, directory));
    }

    /// A node hears what became of its wish to join.
    pub(crate) fn let_in(&mut self, node: u64, directory: u128, told: &Told) {
        let Told::Outcomes { outcomes, .. } = told else {
            return;
        };
        let Some(Outcome::Registry(RegistryOutcome::Joined {
            node: joined,
            generation_floor,
            since,
        })) = outcomes.first()
        else {
            return;
        };
        // The answer names the members.
        let roster = self.registry().map(listed).unwrap_or_default();
        let life = self.life;
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        if *joined == node && machine.directory == directory && machine.running.is_none() {
            machine.let_in = Some((*generation_floor, *since));
            machine.lives = vec![life];
            machine.roster = roster;
            self.tally.add("nodes let in");
            self.after(1_000, Happening::Boot(node));
        }
    }

    /// Who is in the cluster, and what belongs where, as far as anybody knows.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        let registry = self.histories.first()?.registry()?;
        registry.is_founded().then_some(registry)
    }

    /// Whether a node may lose what it has acknowledged: never so many that a majority could be
    /// lost.
    pub(crate) fn may_lose(&mut self, node: u64) -> bool {
        self.look_at_the_untrusted();
        let most = (self.plan.replication as usize - 1) / 2;
        let has_room = self.untrusted.contains(&node) || self.untrusted.len() < most;
        has_room && self.is_replicated()
    }

    /// Whether every group has its voters again, after a recovery has left one to each.
    pub(crate) fn is_replicated(&self) -> bool {
        let Some(registry) = self.registry().filter(|_| self.recovered.is_some()) else {
            return self.recovered.is_none();
        };
        registry.placements().all(|(group, placement)| {
            let voters = placement.voters.len();
            voters >= self.plan.replication as usize && registry.move_of(group).is_none()
        })
    }

    /// Whether a node has all that it has acknowledged.
    pub(crate) fn is_trusted(&mut self, node: u64) -> bool {
        self.look_at_the_untrusted();
        !self.untrusted.contains(&node)
    }

    fn look_at_the_untrusted(&mut self) {
        let untrusted = std::mem::take(&mut self.untrusted);
        let untrusted = untrusted.into_iter();
        self.untrusted = untrusted
            .filter(|node| !self.has_recovered(*node))
            .collect();
    }

    /// Whether everything that a node has a say in is sound again.
    fn has_recovered(&self, node: u64) -> bool {
        let (Some(machine), Some(registry)) = (self.machines.get(&node), self.registry()) else {
            return false;
        };
        let Some(running) = &machine.running else {
            return false;
        };
        if machine.is_copy
            || machine.disk.is_damaged()
            || running.worker.failures().next().is_some()
        {
            return false;
        }
        let is_known = |record: &stock_cluster::NodeRecord| {
            record.directory == Some(Directory(machine.directory))
        };
        let Some(record) = registry.node(node).filter(|record| is_known(record)) else {
            return false;
        };
        registry.placements().all(|(group, placement)| {
            let here = placement.voters.iter().find(|it| it.node() == node);
            here.is_none_or(|replica| {
                replica.generation() >= record.generation_floor
                    && registry.move_of(group).is_none()
                    && running.cluster.is_here(group)
            })
        })
    }

    /// Only damage makes a replica fail.
    pub(crate) fn look_for_failures(&mut self) -> Checked {
        self.look_at_the_untrusted();
        for (node, machine) in &self.machines {
            let running = machine.running.as_ref();
            let mut failures = running
                .into_iter()
                .flat_map(|running| running.worker.failures());
            if let Some((group, why)) = failures.next()
                && !self.untrusted.contains(node)
            {
                return broken(
                    "no failed replica",
                    format!("{group:?} on node {node}: {why}"),
                );
            }
        }
        Ok(())
    }

    /// What is missing until every group has all its replicas and each has applied all that is
    /// committed.
    pub(crate) fn not_whole(&self) -> Option<String> {
        let Some(registry) = self.registry() else {
            return Some("the cluster is not founded".to_owned());
        };
        for (node, machine) in self.machines.iter().filter(|(_, it)| !it.is_out) {
            let Some(running) = &machine.running else {
                return Some(format!("node {node} does not run"));
            };
            if let Some((group, why)) = running.worker.failures().next() {
                return Some(format!("{group:?} on node {node} has failed: {why}"));
            }
        }
        for (node, machine) in self.machines.iter().filter(|(_, it)| !it.is_out) {
            let listed = registry.node(*node).map(|record| record.peers.as_str());
            if listed != Some(machine.address.as_str()) {
                return Some(format!("node {node} is not where the registry has it"));
            }
        }
        if let Some(misheard) = self.is_misheard() {
            return Some(misheard);
        }
        for (group, placement) in registry.placements() {
            if let Some(under_way) = registry.move_of(group) {
                return Some(format!("{group:?} has {under_way:?}"));
            }
            if placement.voters.len() != self.plan.replication as usize {
                return Some(format!("{group:?} has {placement:?}"));
            }
            let behind = placement.voters.iter();
            if let Some(behind) = behind.copied().find(|it| !self.is_current(*it, group)) {
                return Some(format!("{group:?} lacks {behind:?}"));
            }
        }
        let mut observers = registry.observers();
        let behind = observers.find(|it| !self.is_current(*it, GroupId::META));
        if let Some(behind) = behind {
            return Some(format!("group 0 lacks its observer {behind:?}"));
        }
        if let Some(unsettled) = Baskets::unsettled(&self.histories) {
            return Some(unsettled);
        }
        // All have all, so nobody asks for a snapshot any more. While one is wanted, its state is
        // written again and again.
        let running = self.machines.iter().filter(|(_, it)| !it.is_out);
        let mut wanted = running.flat_map(|(node, machine)| {
            let workers = machine.running.iter().map(|running| &running.worker);
            workers.flat_map(move |worker| worker.snapshots_wanted().map(move |it| (*node, it)))
        });
        let wanted = wanted.next();
        wanted.map(|(node, group)| format!("node {node} wants a snapshot of {group:?}"))
    }

    /// What the leader of group 0 has under way, and waits for.
    pub(crate) fn waits(&self) -> Vec<String> {
        let running = self.machines.values().filter_map(|it| it.running.as_ref());
        let decisions = running.filter_map(|running| Some(running.cluster.overview()?.decision));
        decisions
            .flat_map(|decision| {
                let moves = decision.moves.into_iter().map(|it| format!("{it:?}"));
                let waiting = decision.waiting.into_iter().map(|it| it.to_string());
                moves.chain(waiting).collect::<Vec<_>>()
            })
            .collect()
    }

    fn is_current(&self, replica: ReplicaId, group: GroupId) -> bool {
        let node = replica.node();
        let floor = self.registry().and_then(|registry| registry.node(node));
        let floor = floor.map_or(u32::MAX, |record| record.generation_floor);
        let applied = self.machines.get(&node).map(|it| it.applied_index(group));
        let last = self.histories[group.index()].last_index();
        replica.generation() >= floor && applied.flatten().is_some_and(|applied| applied >= last)
    }
}
