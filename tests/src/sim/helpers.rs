//! Whoever works beside a node's loop: files are written and freed by the production code, one
//! chore at a time; snapshots travel; the ledger is played, since its engine brings its own disk.

use bytes::Bytes;
use stock_cluster::{GroupId, ReplicaId};
use stock_node::checkpoint::Arrived;
use stock_node::chore::Chore;
use stock_node::event::{Effect, Event};
use stockd::directory::checkpoint_files;
use stockd::host::chores::{AGAIN_AFTER, Performed};

use super::beside::SnapshotUnderWay;
use super::calls::ReplyTo;
use super::catch;
use super::checks::{Checked, broken};
use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::{Running, Stop};
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Happening, World};

impl World {
    /// Performs an effect that is not for the network or a caller.
    pub(crate) fn help(&mut self, node: u64, effect: Effect<ReplyTo>) -> Checked {
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        let boot = running.boot;
        match effect {
            Effect::Chore(chore) => {
                running.helpers.waiting.push_back(chore);
                if running.helpers.waiting.len() == 1 {
                    let after_us = self.pace.skewed(100, 200_000);
                    self.after(after_us, Happening::Chore { node, boot });
                }
            }
            Effect::Record(page) => {
                machine.ledger.take(&page)?;
                if !std::mem::replace(&mut running.helpers.ledger_sync_is_due, true) {
                    let after_us = self.pace.between(100, self.plan.ledger_us_max);
                    self.after(after_us, Happening::LedgerSync { node, boot });
                }
            }
            Effect::SendSnapshot {
                to,
                group,
                index,
                envelope,
            } => self.send_snapshot(node, to, group, index, envelope),
            errand @ Effect::Errand { .. } => self.run_errand(node, boot, errand),
            Effect::Send { .. }
            | Effect::Answer { .. }
            | Effect::Notify { .. }
            | Effect::Disconnect { .. }
            | Effect::NodesChanged => {}
        }
        Ok(())
    }

    /// A node's next chore is done.
    pub(crate) fn chore(&mut self, node: u64, boot: u64) -> Checked {
        let machine = self.machines.get(&node);
        if let Some(look_after_us) = machine.and_then(|machine| machine.paused(self.now_us)) {
            self.after(look_after_us, Happening::Chore { node, boot });
            return Ok(());
        }
        let Some(running) = self.running(node, boot) else {
            return Ok(());
        };
        let Some(chore) = running.helpers.waiting.pop_front() else {
            return Ok(());
        };
        let what = match &chore {
            Chore::WriteCheckpoint(_) => "checkpoints begun",
            Chore::HashState { .. } => "states hashed",
            Chore::DropCheckpoints { .. } => "old checkpoints dropped",
            Chore::FreeLog { .. } => "logs freed",
            Chore::AdoptSnapshot { .. } => "snapshots installed",
            Chore::DropSnapshot { .. } => "snapshots dropped",
            Chore::GiveBack(_) => "memory given back",
        };
        let more = !running.helpers.waiting.is_empty();
        let helpers = &running.helpers;
        let done = catch(|| helpers.chores.perform::<ReplyTo>(chore));
        self.tally.add(what);
        let happened = self
            .machines
            .get(&node)
            .map(|machine| machine.disk.happened())
            .unwrap_or_default();
        if happened.cut {
            self.tally.add(FaultKind::DeathInWrite.name());
            self.die(node, Ending::PowerCut);
            return Ok(());
        }
        match done {
            Ok(Err(error)) => return self.stopped(node, Stop::Stopped(error.into())),
            Ok(Ok(Performed::Tell(events))) => {
                if let Some(running) = self.running(node, boot) {
                    running.inbox.extend(events);
                    self.wake(node);
                }
            }
            Ok(Ok(Performed::Done)) => {}
            Ok(Ok(Performed::Again(chore))) => {
                self.after(
                    AGAIN_AFTER.as_micros() as u64,
                    Happening::ChoreAgain { node, boot, chore },
                );
            }
            Err(panic) => return broken("no panic", format!("a chore of node {node}: {panic}")),
        }
        if more {
            let after_us = self.pace.skewed(100, 200_000);
            self.after(after_us, Happening::Chore { node, boot });
        }
        Ok(())
    }

    /// A chore that could not be done is to be tried again.
    pub(crate) fn chore_again(&mut self, node: u64, boot: u64, chore: Chore) {
        if let Some(running) = self.running(node, boot) {
            running.helpers.waiting.push_back(chore);
            if running.helpers.waiting.len() == 1 {
                self.after(100, Happening::Chore { node, boot });
            }
        }
    }

    /// A node's ledger is durable as far as it is written.
    pub(crate) fn ledger_synced(&mut self, node: u64, boot: u64) {
        if self.running(node, boot).is_none() {
            return;
        }
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        machine.ledger.durable.clone_from(&machine.ledger.written);
        let durable: Vec<(GroupId, u64)> = machine
            .ledger
            .durable
            .iter()
            .map(|(group, index)| (*group, *index))
            .collect();
        if let Some(running) = &mut machine.running {
            running.helpers.ledger_sync_is_due = false;
            let events = durable.into_iter();
            running
                .inbox
                .extend(events.map(|(group, index)| Event::LedgerDurable { group, index }));
        }
        self.wake(node);
    }

    fn send_snapshot(
        &mut self,
        from: u64,
        to: ReplicaId,
        group: GroupId,
        index: u64,
        envelope: Bytes,
    ) {
        let Some(running) = self.machines.get(&from).and_then(|m| m.running.as_ref()) else {
            return;
        };
        let boot = running.boot;
        let store = &running.helpers.chores.store;
        let info = store
            .list(u64::from(group.0))
            .into_iter()
            .find(|info| info.meta.index == index);
        let file = info.and_then(|info| {
            let raw = store.open_raw(&info).ok()?;
            let mut content = vec![0; raw.bytes() as usize];
            let read = raw.read_at(&mut content, 0).ok()?;
            (read == content.len()).then_some((info, content))
        });
        self.tally.add("snapshots sent");
        let is_there = file.is_some();
        let numbers = [from, to.node(), u64::from(group.0), index];
        self.trace.note(self.now_us, "snapshot", &numbers, || {
            format!("of {group:?} at {index}, from node {from} to replica {to}, there: {is_there}")
        });
        let Some((info, content)) = file else {
            return self.snapshot_ends(from, boot, group, to, false);
        };
        let after_us = self.pace.skewed(1_000, 2 * SECOND_US);
        let snapshot = SnapshotUnderWay {
            from,
            boot,
            to,
            group,
            info,
            content,
            envelope,
        };
        self.after(after_us, Happening::SnapshotUnderWay(Box::new(snapshot)));
    }

    /// A snapshot gets to its node, whole or in part.
    pub(crate) fn snapshot_arrives(&mut self, snapshot: &SnapshotUnderWay) {
        let way = Way {
            from: snapshot.from,
            to: snapshot.to.node(),
        };
        let node = way.to;
        // Over an earlier connection a part may have come.
        let share = match self.fate.chance(200) {
            true => self.fate.below(snapshot.content.len()),
            false => snapshot.content.len(),
        };
        let is_there = self.network.is_connected(way)
            && self
                .machines
                .get(&node)
                .is_some_and(|machine| machine.paused_until_us <= self.now_us);
        let taken = match self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        {
            Some(running) if is_there => take_in(running, snapshot, share),
            _ => None,
        };
        let cut = self
            .machines
            .get(&node)
            .is_some_and(|machine| machine.running.is_some() && machine.disk.happened().cut);
        if cut {
            self.tally.add(FaultKind::DeathInWrite.name());
            self.die(node, Ending::PowerCut);
        }
        let arrived = taken.is_some() && !cut;
        let numbers = [way.from, node, u64::from(arrived)];
        self.trace.note(self.now_us, "snapshot", &numbers, || {
            format!("from node {} to node {node}, arrived: {arrived}", way.from)
        });
        if let Some(event) = taken.filter(|_| !cut)
            && let Some(machine) = self.machines.get_mut(&node)
            && let Some(running) = &mut machine.running
        {
            running.inbox.push(event);
            machine.ledger.may_begin_anew.insert(snapshot.group);
            self.tally.add("snapshots arrived");
            self.wake(node);
        }
        self.snapshot_ends(
            snapshot.from,
            snapshot.boot,
            snapshot.group,
            snapshot.to,
            arrived,
        );
    }

    fn snapshot_ends(
        &mut self,
        from: u64,
        boot: u64,
        group: GroupId,
        to: ReplicaId,
        arrived: bool,
    ) {
        if let Some(running) = self.running(from, boot) {
            running
                .inbox
                .push(Event::SnapshotSent { group, to, arrived });
            self.wake(from);
        }
    }

    fn running(&mut self, node: u64, boot: u64) -> Option<&mut Running> {
        let running = self.machines.get_mut(&node)?.running.as_mut()?;
        (running.boot == boot).then_some(running)
    }
}

/// As `stockd/src/peers/snapshots.rs` takes a snapshot in.
fn take_in(running: &Running, snapshot: &SnapshotUnderWay, share: usize) -> Option<Event<ReplyTo>> {
    let store = &running.helpers.chores.store;
    if !store.incoming(u64::from(snapshot.group.0)).is_empty() {
        return None;
    }
    let mut incoming = store
        .receive(
            snapshot.info.meta.clone(),
            snapshot.content.len() as u64,
            snapshot.info.hash,
        )
        .ok()?;
    let have = incoming.have() as usize;
    let end = share.max(have).min(snapshot.content.len());
    incoming
        .chunk(have as u64, &snapshot.content[have..end])
        .ok()?;
    if end < snapshot.content.len() {
        return None;
    }
    let restored = checkpoint_files::take_in(store, incoming).ok()?;
    Some(Event::SnapshotArrived {
        group: snapshot.group,
        envelope: snapshot.envelope.clone(),
        arrived: Box::new(Arrived::of(restored)),
    })
}
