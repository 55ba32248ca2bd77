//! Lives of the cluster that directories are of. Whoever is recovered begins another one; where
//! directories of several are given, each may have acknowledged what the others have not, and
//! nobody but the operator can choose.

use std::collections::{BTreeMap, BTreeSet};

use super::DataDir;
use super::error::RecoverError;
use crate::directory::node_record::RecoveryRecord;

/// The recovery that was interrupted, if one was.
pub(super) fn interrupted(dirs: &[DataDir]) -> Result<Option<RecoveryRecord>, RecoverError> {
    let given: BTreeSet<u64> = dirs.iter().map(|dir| dir.record.node_id).collect();
    let mut begun = dirs
        .iter()
        .filter_map(|dir| Some((dir, dir.record.recovery.as_ref()?)));
    let Some((_, first)) = begun.clone().next() else {
        return Ok(None);
    };
    let differs = |(_, other): &(&DataDir, &RecoveryRecord)| {
        *other != first || other.nodes.iter().copied().collect::<BTreeSet<u64>>() != given
    };
    if let Some((dir, other)) = begun.find(differs) {
        return Err(RecoverError::Interrupted {
            path: dir.path.clone(),
            nodes: other.nodes.clone(),
        });
    }
    // Who has no mark was not reached yet, or has lost it when all was done; or it was recovered
    // alone meanwhile.
    let is_kept = |dir: &&DataDir| !first.left_out.contains(&dir.record.node_id);
    let lives: BTreeSet<u128> = dirs
        .iter()
        .filter(is_kept)
        .map(|dir| dir.record.incarnation())
        .collect();
    let before = lives.iter().filter(|life| **life != first.life());
    let stranger = dirs.iter().find(|dir| dir.record.recovery.is_none());
    match (before.count() > 1, stranger) {
        (true, Some(dir)) => Err(RecoverError::Interrupted {
            path: dir.path.clone(),
            nodes: first.nodes.clone(),
        }),
        _ => Ok(Some(first.clone())),
    }
}

/// Whether a recovery that was interrupted had done everything, and had begun to take its marks
/// away.
pub(super) fn is_done(dirs: &[DataDir], recovery: &RecoveryRecord) -> bool {
    let is_kept = |dir: &&DataDir| !recovery.left_out.contains(&dir.record.node_id);
    let mut kept = dirs.iter().filter(is_kept);
    let is_any_unmarked = dirs.iter().any(|dir| dir.record.recovery.is_none());
    is_any_unmarked && kept.all(|dir| dir.record.incarnation() == recovery.life())
}

/// A life of the cluster, and what of it is given.
#[derive(Debug, Clone)]
pub struct Life {
    /// Its number.
    pub life: u128,
    /// The nodes whose directories are of it.
    pub nodes: Vec<u64>,
    /// Lives before it that others of the directories are still of.
    pub goes_on_from: Vec<u128>,
}

/// The directories that are of another life than the one to go on from. Which that is, nobody but
/// the operator can know: each may have acknowledged what the others have not.
pub(super) fn outdated(
    dirs: &[DataDir],
    keep_life: Option<&str>,
) -> Result<BTreeSet<usize>, RecoverError> {
    let mut lives: BTreeMap<u128, Life> = BTreeMap::new();
    let given: BTreeSet<u128> = dirs.iter().map(|dir| dir.record.incarnation()).collect();
    for dir in dirs {
        let life = dir.record.incarnation();
        let before = dir.record.lives().into_iter().skip(1);
        let known = lives.entry(life).or_insert_with(|| Life {
            life,
            nodes: Vec::new(),
            goes_on_from: before.filter(|it| given.contains(it)).collect(),
        });
        known.nodes.push(dir.record.node_id);
    }
    let all: Vec<Life> = lives.into_values().collect();
    let kept = match keep_life {
        None if all.len() > 1 => return Err(RecoverError::Lives { lives: all }),
        None => return Ok(BTreeSet::new()),
        Some(said) => {
            let begins = |life: &&Life| format!("{:032x}", life.life).starts_with(said);
            match all.iter().filter(begins).collect::<Vec<_>>()[..] {
                [kept] => kept.life,
                _ => {
                    let (said, lives) = (said.to_owned(), all);
                    return Err(RecoverError::UnknownLife { said, lives });
                }
            }
        }
    };
    let dirs = dirs.iter().enumerate();
    let others = dirs.filter(|(_, dir)| dir.record.incarnation() != kept);
    Ok(others.map(|(at, _)| at).collect())
}

/// Says it.
pub(super) fn of_lives(lives: &[Life]) -> String {
    let mut text = "the directories are of different lives of the cluster, each of which may have \
        acknowledged what the \
                    others have not; nothing of them can be joined. Go on from one with \
                    --keep-life LIFE, or leave the \
                    directories of the others out:"
        .to_owned();
    for Life {
        life,
        nodes,
        goes_on_from,
    } in lives
    {
        let digits = |life: &u128| format!("{life:032x}")[..12].to_owned();
        let nodes: Vec<String> = nodes.iter().map(u64::to_string).collect();
        text.push_str(&format!(
            "\n  life {} on node {}",
            digits(life),
            nodes.join(" and node ")
        ));
        if !goes_on_from.is_empty() {
            let before: Vec<String> = goes_on_from.iter().map(digits).collect();
            text.push_str(&format!(", recovered from life {}", before.join(" and ")));
        }
    }
    text
}
