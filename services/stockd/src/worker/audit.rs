//! Replicas compared: a replica that differs is found and taken out of service.
//!
//! ```text
//! leader      an entry: hash your state after this one
//! replicas    freeze, hash away from the loop, tell the leader
//! leader      an entry: these replicas differ from most
//! replicas    one that is named fails, and is built again from its peers
//! ```

use std::collections::BTreeMap;

use super::Worker;
use super::clock::Now;
use super::event::{Effect, GroupId, Notice, StateHash};
use super::slot::FaultKind;
use crate::log_codec::Finding;
use crate::placement::{AuditReport, AuditVerdict, ReplicaId};
use crate::state::{Frozen, State};

/// Replicas have so long to say what they found; a shard of ten million positions is hashed in seconds.
const ANSWERS_WITHIN_MS: u64 = 60_000;

/// The audits of one replica.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// To be hashed: as it is after this index.
    marked: Option<(u64, Box<Frozen>)>,
    /// The state here was another than that of most, after this index.
    differs: Option<u64>,
    /// When the next is due, where this leads.
    due_boot_ms: Option<u64>,
    /// What replicas have said of the last entry that asked, since when.
    collecting: Option<Collecting>,
}

#[derive(Debug)]
struct Collecting {
    index: u64,
    since_boot_ms: u64,
    hashes: BTreeMap<ReplicaId, (u128, Vec<u64>)>,
}

impl Audit {
    /// An entry asks for the state as it is now.
    pub(super) fn mark(&mut self, index: u64, state: &State) {
        self.marked = Some((index, Box::new(state.freeze())));
    }

    pub(super) fn take_marked(&mut self) -> Option<(u64, Box<Frozen>)> {
        self.marked.take()
    }

    /// An entry says what an audit found; `own` is this replica.
    pub(super) fn found(&mut self, own: ReplicaId, finding: &Finding) {
        if finding.differing.contains(&own) {
            self.differs = Some(finding.index);
        }
    }

    /// Who said what, once all have or their time is over: what most found, and the verdicts.
    fn conclude(
        &mut self,
        voters: &[u64],
        now: Now,
    ) -> Option<(u64, Option<u128>, BTreeMap<ReplicaId, AuditVerdict>)> {
        let collecting = self.collecting.as_ref()?;
        let all = voters
            .iter()
            .all(|voter| collecting.hashes.contains_key(&ReplicaId(*voter)));
        if !all && now.boot_ms < collecting.since_boot_ms + ANSWERS_WITHIN_MS {
            return None;
        }
        let collected = self.collecting.take()?;
        let mut votes: BTreeMap<u128, usize> = BTreeMap::new();
        for voter in voters {
            if let Some((hash, _)) = collected.hashes.get(&ReplicaId(*voter)) {
                *votes.entry(*hash).or_default() += 1;
            }
        }
        let most = votes.iter().max_by_key(|(_, count)| **count);
        let most = most.filter(|(_, count)| **count * 2 > voters.len());
        let hash = most.map(|(hash, _)| *hash);
        let reference = collected
            .hashes
            .values()
            .find(|(of, _)| hash.is_none_or(|hash| hash == *of))
            .map_or(&[] as &[u64], |(_, buckets)| buckets);
        let mut members: Vec<ReplicaId> = voters.iter().copied().map(ReplicaId).collect();
        members.extend(collected.hashes.keys());
        let verdicts = members.into_iter().map(|replica| {
            let verdict = match collected.hashes.get(&replica) {
                None => AuditVerdict::Silent,
                Some((own, _)) if Some(*own) == hash => AuditVerdict::Agrees,
                Some((_, buckets)) => AuditVerdict::Differs {
                    buckets: differing(reference, buckets),
                },
            };
            (replica, verdict)
        });
        Some((collected.index, hash, verdicts.collect()))
    }
}

fn differing(reference: &[u64], buckets: &[u64]) -> Vec<u32> {
    let pairs = (0..).zip(reference.iter().zip(buckets));
    pairs
        .filter(|(_, (a, b))| a != b)
        .map(|(bucket, _)| bucket)
        .collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        boot_ms: 1_000,
        wall_ms: 0,
    };

    /// Three voters; each says `replica hash`, or nothing.
    fn conclude(said: &[(u64, u128)], now: Now) -> Option<String> {
        let hashes = said
            .iter()
            .map(|(replica, hash)| (ReplicaId(*replica), (*hash, vec![7, *hash as u64])));
        let mut audit = Audit {
            collecting: Some(Collecting {
                index: 50,
                since_boot_ms: NOW.boot_ms,
                hashes: hashes.collect(),
            }),
            ..Audit::default()
        };
        let (index, hash, verdicts) = audit.conclude(&[1, 2, 3], now)?;
        assert_eq!(index, 50);
        let verdicts = verdicts.iter().map(|(replica, verdict)| match verdict {
            AuditVerdict::Agrees => format!("{replica} agrees"),
            AuditVerdict::Differs { buckets } => format!("{replica} differs in {buckets:?}"),
            AuditVerdict::Silent => format!("{replica} is silent"),
        });
        let verdicts: Vec<String> = verdicts.collect();
        Some(format!("{hash:?}: {}", verdicts.join(", ")))
    }

    #[test]
    fn the_majority_is_right() {
        let check = |said: &[(u64, u128)], expected: &str| {
            assert_eq!(conclude(said, NOW).as_deref(), Some(expected));
        };
        check(
            &[(1, 9), (2, 9), (3, 9)],
            "Some(9): 1 agrees, 2 agrees, 3 agrees",
        );
        check(
            &[(1, 8), (2, 9), (3, 9)],
            "Some(9): 1 differs in [1], 2 agrees, 3 agrees",
        );
        check(
            &[(1, 8), (2, 9), (3, 7)],
            "None: 1 differs in [], 2 differs in [1], 3 differs in [1]",
        );
    }

    #[test]
    fn who_is_silent_is_waited_for_and_then_named() {
        let said = [(1, 9), (3, 9)];
        assert_eq!(conclude(&said, NOW), None);
        let late = Now {
            boot_ms: NOW.boot_ms + ANSWERS_WITHIN_MS,
            ..NOW
        };
        let expected = "Some(9): 1 agrees, 2 is silent, 3 agrees";
        assert_eq!(conclude(&said, late).as_deref(), Some(expected));
        let expected = "None: 1 differs in [], 2 is silent, 3 differs in [1]";
        assert_eq!(conclude(&[(1, 9), (3, 8)], late).as_deref(), Some(expected));
    }

    #[test]
    fn a_replica_learns_from_the_entry_that_it_differs() {
        let finding = Finding {
            index: 9,
            differing: vec![ReplicaId(2)],
        };
        let mut audit = Audit::default();
        audit.found(ReplicaId(1), &finding);
        assert_eq!(audit.differs, None);
        audit.found(ReplicaId(2), &finding);
        assert_eq!(audit.differs, Some(9));
    }
}
