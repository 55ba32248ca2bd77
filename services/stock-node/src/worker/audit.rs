//! The audits of one replica: what it is asked to hash, and, where it leads, what the others have
//! found.

use std::collections::BTreeMap;

use stock_cluster::{AuditVerdict, ReplicaId};

use crate::clock::Now;
use crate::entry::Finding;
use crate::state::{Frozen, State};

/// Replicas have so long to say what they found; a shard of ten million positions is hashed in
/// seconds.
const ANSWERS_WITHIN_MS: u64 = 60_000;

/// The audits of one replica.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// To be hashed: as it is after this index.
    marked: Option<(u64, Box<Frozen>)>,
    /// The state here was another than that of most, after this index.
    pub(super) differs: Option<u64>,
    /// When the next is due, where this leads.
    pub(super) due_boot_ms: Option<u64>,
    /// What replicas have said of the last entry that asked, since when.
    pub(super) collecting: Option<Collecting>,
}

/// What replicas have found after an entry that asked.
#[derive(Debug)]
pub(super) struct Collecting {
    pub(super) index: u64,
    pub(super) since_boot_ms: u64,
    pub(super) hashes: BTreeMap<ReplicaId, (u128, Vec<u64>)>,
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
    pub(super) fn conclude(
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
