//! What must hold of a node's disk.

use indicatif::HumanBytes;
use serde::Serialize;

use super::disk::Disk;
use super::finding::Finding;

/// So many files of the log may be there besides what is needed: the one that is written, one that
/// holds the first entry that is needed and others before it, one that was begun since the log was
/// last cut (which here is several times for each file), and one of what was copied out of others.
const LOG_FILES_MAX: u64 = 4;

/// The log is judged once so many of its files have been deleted. How much is written until then
/// depends on the states, which grow with what they remember.
const LOG_FILES_DELETED_MIN: u64 = 3;

/// Where the ledger has stopped growing it still breathes: what is deleted is given back in pieces.
const LEDGER_GROWTH_PERCENT_MAX: u64 = 30;

/// The last two and the one that is being written.
const CHECKPOINTS_EACH_MAX: u64 = 3;

/// The fullest node at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    pub(super) at_seconds: u64,
    pub(super) disk: Disk,
}

/// How the nodes were started.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Pace {
    /// A checkpoint is due after so many bytes of log, at least.
    pub(crate) checkpoint_after_bytes: u64,
    pub(crate) log_file_bytes: u64,
    pub(crate) ledger_keep_seconds: u64,
}

/// Judges a run.
pub(super) fn judge(moments: &[Moment], pace: Pace) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    let log_max = |moment: &Moment| {
        let states_bytes = moment.disk.states_bytes;
        let due = states_bytes.max(moment.disk.groups * pace.checkpoint_after_bytes);
        2 * due + LOG_FILES_MAX * pace.log_file_bytes
    };
    let worst = moments
        .iter()
        .max_by_key(|moment| (moment.disk.log_bytes * 1_000) / log_max(moment));
    if let Some(worst) = worst {
        let (is, may_be) = (worst.disk.log_bytes, log_max(worst));
        findings.push(Finding {
            what: format!("the log has {} of {} at most", bytes(is), bytes(may_be)),
            holds: is <= may_be,
        });
    }
    let each = moments
        .iter()
        .map(|moment| moment.disk.checkpoints_each)
        .max();
    let each = each.unwrap_or(0);
    findings.push(Finding {
        what: format!("of each group there are {CHECKPOINTS_EACH_MAX} checkpoints at most: {each}"),
        holds: each <= CHECKPOINTS_EACH_MAX && each > 0,
    });
    let last = moments.last().copied().unwrap_or_default();
    let deleted = last.disk.log_files_deleted;
    findings.push(Finding {
        what: format!(
            "enough was written to tell: {deleted} files of the log were deleted, and \
             {LOG_FILES_DELETED_MIN} is enough"
        ),
        holds: deleted >= LOG_FILES_DELETED_MIN,
    });
    findings.push(ledger(moments, pace.ledger_keep_seconds));
    findings
}

/// The largest ledger while it is three to four times as old as what it keeps, and the largest
/// afterwards.
fn ledger(moments: &[Moment], keep_seconds: u64) -> Finding {
    let age = |moment: &&Moment| moment.at_seconds / keep_seconds;
    let largest = |of: &mut dyn Iterator<Item = &Moment>| of.map(|s| s.disk.ledger_bytes).max();
    let first = largest(&mut moments.iter().filter(|moment| age(moment) == 3));
    let later = largest(&mut moments.iter().filter(|moment| age(moment) > 3));
    let (Some(first), Some(later)) = (first, later) else {
        return Finding {
            what: format!("the run lasts four times the {keep_seconds} s that the ledger keeps"),
            holds: false,
        };
    };
    Finding {
        what: format!(
            "the ledger grows by {LEDGER_GROWTH_PERCENT_MAX} % at most once it is old: from {} to \
             {}",
            HumanBytes(first),
            HumanBytes(later)
        ),
        holds: later * 100 <= first * (100 + LEDGER_GROWTH_PERCENT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    const PACE: Pace = Pace {
        checkpoint_after_bytes: MIB,
        log_file_bytes: 4 * MIB,
        ledger_keep_seconds: 10,
    };

    /// A run of 100 s with a ledger that keeps 10.
    fn run(change: impl Fn(&mut Moment)) -> Vec<bool> {
        let moments: Vec<Moment> = (1..=100)
            .map(|at_seconds| {
                let disk = Disk {
                    log_bytes: 30 * MIB,
                    checkpoint_bytes: 30 * MIB,
                    checkpoints_each: 3,
                    states_bytes: 10 * MIB,
                    groups: 9,
                    ledger_bytes: at_seconds.min(12) * MIB,
                    log_files_deleted: at_seconds / 10,
                };
                let mut moment = Moment { at_seconds, disk };
                change(&mut moment);
                moment
            })
            .collect();
        let findings = judge(&moments, PACE);
        findings.iter().map(|finding| finding.holds).collect()
    }

    #[test]
    fn what_grows_without_end_is_noticed() {
        assert_eq!(run(|_| {}), [true; 4]);
        let log = run(|moment| moment.disk.log_bytes = moment.at_seconds * MIB);
        assert_eq!(log, [false, true, true, true]);
        let checkpoints = run(|moment| moment.disk.checkpoints_each = moment.at_seconds);
        assert_eq!(checkpoints, [true, false, true, true]);
        let ledger = run(|moment| moment.disk.ledger_bytes = moment.at_seconds * MIB);
        assert_eq!(ledger, [true, true, true, false]);
    }

    #[test]
    fn a_run_that_is_too_short_to_tell_says_so() {
        let short = run(|moment| moment.disk.log_files_deleted /= 10);
        assert_eq!(short, [true, true, false, true]);
        let young = run(|moment| moment.at_seconds = moment.at_seconds.min(30));
        assert!(!young[3]);
    }
}
