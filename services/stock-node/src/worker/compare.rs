//! Replicas compared: a replica that differs is found and taken out of service.
//!
//! ```text
//! leader      an entry: hash your state after this one
//! replicas    freeze, hash away from the loop, tell the leader
//! leader      an entry: these replicas differ from most
//! replicas    one that is named fails, and is built again from its peers
//! ```

use std::collections::BTreeMap;

use stock_cluster::{AuditReport, AuditVerdict, GroupId, ReplicaId};

use super::Worker;
use super::audit::Collecting;
use super::slot::FaultKind;
use crate::clock::Now;
use crate::entry::Finding;
use crate::event::Effect;
use crate::notice::{Notice, StateHash};

impl<R> Worker<R> {
    /// Begins audits where they are due, and concludes those under way.
    pub(super) fn audit(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        let every_ms = self.parts.audit_every_ms;
        let walls = self.walls.median(now);
        let mut reports = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            if !group.replica.is_settled_leader() {
                group.audit.due_boot_ms = None;
                group.audit.collecting = None;
                continue;
            }
            // Not all groups at the same time.
            let first = now.boot_ms + every_ms * (number as u64 + 1) / u64::from(self.parts.groups);
            let due = *group.audit.due_boot_ms.get_or_insert(first);
            if now.boot_ms >= due {
                group.audit.due_boot_ms = Some(now.boot_ms + every_ms);
                group.audit.collecting =
                    group.propose_audit(now, walls).map(|proposed| Collecting {
                        index: proposed.index,
                        since_boot_ms: now.boot_ms,
                        hashes: BTreeMap::new(),
                    });
                self.touched.insert(number);
            }
            let voters = group.replica.configuration().voters.clone();
            let Some((index, hash, replicas)) = group.audit.conclude(&voters, now) else {
                continue;
            };
            let differing: Vec<ReplicaId> = replicas
                .iter()
                .filter(|(_, verdict)| matches!(verdict, AuditVerdict::Differs { .. }))
                .map(|(replica, _)| *replica)
                .collect();
            if !differing.is_empty() {
                metrics::counter!("stockd_audits_failed_total").increment(1);
                tracing::error!(
                    group = number,
                    index,
                    ?replicas,
                    "replicas of a group differ"
                );
                match hash {
                    Some(_) => {
                        let finding = Finding { index, differing };
                        group.propose_finding(&finding, now, walls);
                    }
                    None => tracing::error!(
                        group = number,
                        "no majority agrees: nobody can say which replica is right"
                    ),
                }
                self.touched.insert(number);
            }
            reports.push(AuditReport {
                group: GroupId(number as u32),
                index,
                at_ms: now.wall_ms,
                replicas,
            });
        }
        for report in reports {
            match self.leader_of_meta() {
                Some(leader) if leader != self.parts.node => effects.push(Effect::Notify {
                    to: Some(leader),
                    notice: Notice::Audited(Box::new(report)),
                }),
                Some(_) => self.hear_audit(report, now),
                None => {}
            }
        }
    }

    /// The state of a replica of this node has been hashed.
    pub(super) fn state_hashed(&mut self, hash: StateHash, now: Now, effects: &mut Vec<Effect<R>>) {
        let Some(group) = &self.slots[hash.group.index()].group else {
            return;
        };
        if group.replica.replica_id() != hash.replica.0 {
            return;
        }
        let leader = ReplicaId(group.replica.leader()).node();
        if leader == self.parts.node {
            self.hear_hash(hash, now);
        } else if leader != 0 {
            effects.push(Effect::Notify {
                to: Some(leader),
                notice: Notice::Hash(Box::new(hash)),
            });
        }
    }

    /// A replica of a group that is led here says what it found.
    pub(super) fn hear_hash(&mut self, hash: StateHash, _: Now) {
        let group = self
            .slots
            .get_mut(hash.group.index())
            .and_then(|slot| slot.group.as_mut());
        if let Some(group) = group
            && let Some(collecting) = &mut group.audit.collecting
            && collecting.index == hash.index
        {
            collecting
                .hashes
                .insert(hash.replica, (hash.hash, hash.buckets));
        }
    }

    /// Takes replicas out of service that differ from most.
    pub(super) fn fail_those_that_differ(&mut self, effects: &mut Vec<Effect<R>>) {
        for number in 0..self.slots.len() {
            let Some(group) = &self.slots[number].group else {
                continue;
            };
            if let Some(index) = group.audit.differs {
                let why = format!("its state after {index} differs from that of most replicas");
                self.fail(GroupId(number as u32), FaultKind::Lasting, why, effects);
            }
        }
    }
}
