//! The turns of a node's loop.
//!
//! A turn is the one of `stockd/src/host.rs`, step by step. Each step is a moment of its own, so
//! that anything can happen between two of them.

use stock_node::event::{Effect, Event};
use stockd::directory::disk::Written;
use stockd::host::HostError;
use stockd::peers::frames::Frames;

use super::calls::ReplyTo;
use super::catch;
use super::checks::{Broken, Checked};
use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::{Stage, Stop};
use super::network::Way;
use super::overtaken::Overtaken;
use super::world::{Chapter, Happening, World};

/// A full disk is asked again so much later, as in production.
const FULL_DISK_AGAIN_US: u64 = 200_000;

/// A turn of a node that replays slowly takes so long at least, and at most.
const SLOW_TURN_US: (u64, u64) = (20_000, 100_000);

impl World {
    /// Something waits in a node's inbox.
    pub(crate) fn wake(&mut self, node: u64) {
        let after_us = self.pace.between(5, 60);
        self.turn_after(node, after_us);
    }

    /// A node's next turn begins then, unless an earlier one is due.
    fn turn_after(&mut self, node: u64, after_us: u64) {
        let at_us = self.now_us + after_us;
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        // One under way looks into the inbox when it ends.
        if running.stage != Stage::Step || running.due.1 <= at_us {
            return;
        }
        running.due = (running.due.0 + 1, at_us);
        let (token, boot) = (running.due.0, running.boot);
        self.after(after_us, Happening::Turn { node, boot, token });
    }

    /// A turn begins.
    pub(crate) fn turn(&mut self, node: u64, boot: u64, token: u64) -> Checked {
        let is_due = self.machines.get(&node).is_some_and(|machine| {
            let running = machine.running.as_ref();
            running.is_some_and(|running| running.boot == boot && running.due.0 == token)
        });
        match is_due {
            true => self.stage(node, boot),
            false => Ok(()),
        }
    }

    /// A turn goes on: one step, its effects, and when the next is due.
    pub(crate) fn stage(&mut self, node: u64, boot: u64) -> Checked {
        let true_us = self.true_us();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let paused = machine.paused(self.now_us);
        let Some(running) = machine.running.as_mut().filter(|run| run.boot == boot) else {
            return Ok(());
        };
        let stage = running.stage;
        if let Some(look_after_us) = paused {
            let token = running.due.0;
            let happening = match stage {
                Stage::Step => Happening::Turn { node, boot, token },
                _ => Happening::Stage { node, boot },
            };
            self.after(look_after_us, happening);
            return Ok(());
        }
        let mut handed_in = Vec::new();
        let mut stands_still = false;
        let worker = &mut running.worker;
        let done: Result<Result<(), HostError>, _> = match stage {
            Stage::Step => {
                running.due.1 = u64::MAX;
                running.now = machine.clock.now(true_us);
                let events = std::mem::take(&mut running.inbox);
                for event in &events {
                    if let Event::Propose {
                        group, commands, ..
                    } = event
                    {
                        handed_in.push((*group, commands.clone()));
                    }
                }
                let (now, effects) = (running.now, &mut running.effects);
                catch(|| worker.step(now, events, effects)).map(Ok)
            }
            Stage::Answer => catch(|| Ok(worker.answer(&mut running.effects)?)),
            Stage::Write => catch(|| running.log.write_turn(worker)).map(|written| {
                stands_still = matches!(written, Ok(Written::DiskFull));
                Ok(written.map(drop)?)
            }),
            Stage::Settle => catch(|| worker.settle(&mut running.effects)).map(Ok),
            Stage::CatchUp => catch(|| Ok(worker.catch_up(running.now, &mut running.effects)?)),
        };
        for (group, commands) in handed_in {
            self.note_handed_in(node, group, &commands);
        }
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.stopped(node, Stop::Stopped(error)),
            Err(panic) => return self.stopped(node, Stop::Panicked(panic)),
        }
        if self
            .machines
            .get(&node)
            .is_some_and(|machine| machine.disk.happened().cut)
        {
            self.tally.add(FaultKind::DeathInWrite.name());
            self.die(node, Ending::PowerCut);
            return Ok(());
        }
        if stands_still {
            self.tally.add(FaultKind::DiskFull.name());
            self.gauge(node);
            self.after(FULL_DISK_AGAIN_US, Happening::Stage { node, boot });
            return Ok(());
        }
        if matches!(stage, Stage::Step | Stage::Settle) {
            self.see_committed(node)?;
        }
        if !self.perform(node, stage)? {
            return Ok(());
        }
        self.go_on(node, stage)
    }

    /// What comes after a step.
    fn go_on(&mut self, node: u64, stage: Stage) -> Checked {
        let sync_us = self.plan.sync_us;
        let true_us = self.true_us();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let slow_us = machine.write_us(self.now_us);
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        let boot = running.boot;
        let (next, after_us) = match stage {
            Stage::Step => (Stage::Answer, self.pace.between(1, 20)),
            Stage::Answer if running.worker.must_write() => {
                (Stage::Write, self.pace.between(1, 20))
            }
            Stage::Answer => (Stage::Settle, 1),
            Stage::Write => (
                Stage::Settle,
                self.pace.skewed(sync_us.0, sync_us.1) + slow_us,
            ),
            Stage::Settle => (Stage::CatchUp, self.pace.between(1, 20)),
            Stage::CatchUp => {
                running.stage = Stage::Step;
                let looks = running.gauge_due_us <= self.now_us;
                let wake_us = machine
                    .clock
                    .true_us_at_boot_ms(running.worker.next_wake_boot_ms());
                let idle_us = wake_us.saturating_sub(true_us).max(1);
                let applies = running.worker.has_work();
                let after_us = match (applies, running.inbox.is_empty()) {
                    (true, _) if machine.slow_turns_until_us > self.now_us => {
                        self.pace.between(SLOW_TURN_US.0, SLOW_TURN_US.1)
                    }
                    (false, true) => idle_us,
                    _ => 1,
                };
                self.turn_after(node, after_us);
                if looks {
                    self.gauge(node);
                }
                self.see_leaders(node)?;
                self.see_ready(node)?;
                self.see_version(node)?;
                self.silence_the_overtaken(node);
                return Ok(());
            }
        };
        running.stage = next;
        self.after(after_us, Happening::Stage { node, boot });
        Ok(())
    }

    /// Performs the effects of a step, or some of them if the node is doomed. `false` if it has
    /// died.
    fn perform(&mut self, node: u64, stage: Stage) -> Result<bool, Broken> {
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(false);
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(false);
        };
        let now = running.now;
        let mut answers = Vec::new();
        let mut frames = Frames::default();
        let peers: Vec<u64> = running.peers.keys().copied().collect();
        let watches = self.overtaken.is_none()
            && self.plan.faults.contains(&FaultKind::OvertakenRemoval)
            && self.chapter == Chapter::Trouble;
        let mut removal = None;
        let mut nodes_changed = false;
        let mut beside = Vec::new();
        let mut overtaken = Vec::new();
        for effect in running.effects.drain(..) {
            match effect {
                Effect::Notify { to, notice } => {
                    for to in to.map_or_else(|| peers.clone(), |to| vec![to]) {
                        frames.notice(to, now, &notice);
                    }
                }
                Effect::NodesChanged => nodes_changed = true,
                Effect::Disconnect { node } => overtaken.push(node),
                effect @ (Effect::Chore(_)
                | Effect::SendSnapshot { .. }
                | Effect::Record(_)
                | Effect::Errand { .. }) => beside.push(effect),
                Effect::Send {
                    to,
                    group,
                    payload,
                    cluster_time,
                } => {
                    if watches {
                        removal = removal.or_else(|| Overtaken::by(to, group, &payload));
                    }
                    frames.message(to, now, group, payload, cluster_time);
                }
                Effect::Answer { reply, answer } => match reply {
                    ReplyTo::Call(call) => answers.push((call, answer)),
                    ReplyTo::Peer { node, forward_id } => {
                        frames.reply(node, now, forward_id, answer);
                    }
                },
            }
        }
        let count = answers.len() + frames.len();
        let wrote = running.worker.must_write() || stage != Stage::Step;
        let doom = machine.doom.filter(|doom| {
            doom.after == stage && wrote && (!doom.in_effects || doom.effects < count)
        });
        let performed = doom.map_or(usize::MAX, |doom| doom.effects);
        if nodes_changed && let Some(machine) = self.machines.get_mut(&node) {
            machine.note_nodes();
        }
        for (at, (call, answer)) in answers.into_iter().enumerate() {
            if at < performed {
                self.call_answered(call, answer)?;
            }
        }
        let answered = count - frames.len();
        for (at, (to, frame)) in frames.drain().enumerate() {
            if answered + at < performed {
                self.send(node, to, &frame);
            }
        }
        for peer in overtaken {
            self.break_connection(
                Way {
                    from: node,
                    to: peer,
                },
                1_000,
            );
        }
        let Some(doom) = doom else {
            for effect in beside {
                self.help(node, effect)?;
            }
            if let Some(removal) = removal {
                self.overtake(node, removal);
            }
            return Ok(true);
        };
        self.tally.add(match doom.in_effects {
            true => FaultKind::DeathInEffects.name(),
            false => FaultKind::DeathInTurn.name(),
        });
        self.die(node, doom.ending);
        Ok(false)
    }
}
