//! Checkpoints and snapshots, as the loop sees them: it decides, others do the work.

use bytes::Bytes;
use stock_cluster::{GroupId, ReplicaId};
use stock_replica::Point;

use super::Worker;
use super::group::Group;
use super::sending::answer;
use super::slot::{Fault, FaultKind, SlotRecord, Standing};
use crate::answer::{Answer, Failure};
use crate::checkpoint::Arrived;
use crate::chore::{Chore, Unwanted};
use crate::clock::Now;
use crate::event::Effect;
use crate::ledger_rows::Page;
use crate::writes::{Record, Write};

impl<R> Worker<R> {
    /// Has the state written down that is most in need of it. One at a time on a node: a second
    /// would only halve the speed of the first.
    pub(super) fn begin_checkpoint(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        if self.is_writing_checkpoint {
            return;
        }
        let need = |group: &Group<R>| {
            // Somebody waits for a snapshot: that goes before all else.
            let is_wanted = group.replica.wants_snapshot()
                && group.checkpoints.newest().is_none_or(|newest| {
                    newest.index < group.applied_index
                        || newest.configuration != *group.replica.configuration()
                });
            let is_urgent = is_wanted || group.checkpoints.is_in_doubt(now.boot_ms);
            match is_urgent && group.checkpoints.may_begin(now.boot_ms) {
                true => Some(u64::MAX),
                false => group.checkpoints.overdue_bytes(now.boot_ms),
            }
        };
        let neediest = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.group.as_mut())
            .filter_map(|group| Some((need(group)?, group)))
            .max_by_key(|(need, _)| *need);
        if let Some((_, group)) = neediest {
            group.checkpoints.begin(now.boot_ms);
            self.is_writing_checkpoint = true;
            effects.push(Effect::Chore(Chore::WriteCheckpoint(Box::new(
                group.image(),
            ))));
        }
    }

    /// A checkpoint is durable, or could not be written.
    pub(super) fn checkpoint_written(
        &mut self,
        id: GroupId,
        replica: ReplicaId,
        point: Point,
        bytes: Option<u64>,
        now: Now,
    ) {
        self.is_writing_checkpoint = false;
        let Some(group) = self.slots[id.index()].group.as_mut() else {
            return;
        };
        if group.replica.replica_id() != replica.0 {
            return;
        }
        match bytes {
            Some(bytes) => {
                if group.checkpoints.written(point.clone(), bytes) {
                    group.replica.offer_snapshot(point);
                    self.trim(id);
                }
            }
            None => group.checkpoints.failed(now.boot_ms),
        }
        self.touched.insert(id.index());
    }

    /// Cuts the log and drops the files that nobody can need any more: the files once the log is
    /// cut durably.
    pub(super) fn trim(&mut self, id: GroupId) {
        let Some(group) = self.slots[id.index()].group.as_mut() else {
            return;
        };
        let ledger_index = match id.shard() {
            Some(_) => group.ledger.durable_index(),
            None => u64::MAX,
        };
        let Some(origin) = group.checkpoints.trim(ledger_index, group.replica.origin()) else {
            return;
        };
        self.writes.put(Record::Origin(id), origin.to_bytes());
        self.writes.push(Write::TruncateBefore {
            group: id,
            index: origin.index + 1,
        });
        self.after_write.push(Effect::Chore(Chore::DropCheckpoints {
            group: id,
            before: origin.index,
        }));
        group.replica.begin_at(origin);
        self.after_write.push(self.free_log());
    }

    /// The log has been cut, or will be before this is looked at.
    pub(super) fn free_log(&self) -> Effect<R> {
        let groups = self.slots.iter().filter_map(|slot| slot.group.as_ref());
        let room = groups.map(|group| group.checkpoints.room_bytes());
        Effect::Chore(Chore::FreeLog {
            room_bytes: room.sum(),
        })
    }

    /// A snapshot is here: now raft may be told.
    pub(super) fn snapshot_arrived(
        &mut self,
        id: GroupId,
        envelope: &Bytes,
        arrived: Box<Arrived>,
        effects: &mut Vec<Effect<R>>,
    ) {
        let group = self
            .slots
            .get_mut(id.index())
            .and_then(|slot| slot.group.as_mut());
        let Some(group) = group else {
            let index = arrived.restored.point.index;
            effects.push(Effect::Chore(Chore::DropSnapshot { group: id, index }));
            return;
        };
        group.arrive(arrived);
        // Its sender was judged when it was connected; one that came too late is ignored.
        self.step_replica(id, envelope, |_| true, effects);
    }

    /// The log of a group has been replaced by a snapshot, durably.
    pub(super) fn installed(&mut self, number: usize, point: &Point, effects: &mut Vec<Effect<R>>) {
        let id = GroupId(number as u32);
        let Some(group) = self.slots[number].group.as_mut() else {
            return;
        };
        let waiting = group.ledger.waiting();
        if let Some(before) = group.install(point, &self.view) {
            effects.push(Effect::Chore(Chore::GiveBack(before)));
            self.ledger_entries_waiting -= waiting;
            tracing::info!(
                group = number,
                index = point.index,
                "a snapshot was installed"
            );
            group.replica.offer_snapshot(point.clone());
            effects.push(Effect::Chore(Chore::AdoptSnapshot {
                group: id,
                index: point.index,
            }));
            if id.shard().is_some() {
                effects.push(Effect::Record(Page::Begin {
                    group: id,
                    after: point.index,
                }));
            }
            effects.push(self.free_log());
        } else {
            let why = "raft installed a snapshot that had not arrived";
            self.fail(id, FaultKind::Passing, why.to_owned(), effects);
        }
    }

    /// A replica cannot go on. It answers nobody any more; the other groups are not touched.
    pub(super) fn fail(
        &mut self,
        id: GroupId,
        kind: FaultKind,
        why: String,
        effects: &mut Vec<Effect<R>>,
    ) {
        tracing::error!(group = id.0, %why, outlook = kind.outlook(), "a replica failed");
        metrics::counter!("stockd_replica_failures_total").increment(1);
        self.stop(id, Failure::OutcomeUnknown, effects);
        let slot = &mut self.slots[id.index()];
        let standing = match kind {
            FaultKind::Passing => None,
            FaultKind::Lasting => Some(Standing::Failed(why.clone())),
            FaultKind::Disputed => Some(Standing::Disputed(why.clone())),
        };
        if let Some(standing) = standing {
            let record = SlotRecord {
                newest: slot.newest,
                standing,
            };
            self.writes.put(Record::Replica(id), record.to_bytes());
        }
        slot.fault = Some(Fault { kind, why });
    }

    /// Takes a replica out of its slot and tells everybody who waits for something of it.
    pub(super) fn stop(&mut self, id: GroupId, failure: Failure, effects: &mut Vec<Effect<R>>) {
        if let Some(mut group) = self.slots[id.index()].group.take() {
            effects.extend(group.drop_arrived());
            self.ledger_entries_waiting -= group.ledger.waiting();
            for reply in group.take_waiting() {
                answer(effects, reply, Answer::Failed(failure));
            }
            effects.push(Effect::Chore(Chore::GiveBack(Unwanted::new(group.state))));
        }
        self.cluster.publish_absent(id.index());
    }
}
