//! What must hold of a node's disk.

use indicatif::HumanBytes;
use serde::Serialize;

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
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Sample {
    pub(super) at_seconds: u64,
    pub(super) log_bytes: u64,
    pub(super) checkpoint_bytes: u64,
    /// Checkpoints of the group that has most.
    pub(super) checkpoints_each: u64,
    /// Every group's newest checkpoint.
    pub(super) states_bytes: u64,
    pub(super) groups: u64,
    pub(super) ledger_bytes: u64,
    /// Of the log, since the node was started.
    pub(super) log_written_bytes: u64,
    pub(super) log_files_deleted: u64,
}

/// Something that must hold.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) holds: bool,
}

/// How the nodes were started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A checkpoint is due after so many bytes of log, at least.
    pub(super) checkpoint_after_bytes: u64,
    pub(super) log_file_bytes: u64,
    /// 0: for ever.
    pub(super) ledger_keep_seconds: u64,
}

/// Judges a run. Of a ledger that is kept for ever nothing is said.
pub(super) fn judge(samples: &[Sample], pace: Pace) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    let log_max = |sample: &Sample| {
        let due = sample
            .states_bytes
            .max(sample.groups * pace.checkpoint_after_bytes);
        2 * due + LOG_FILES_MAX * pace.log_file_bytes
    };
    let worst = samples
        .iter()
        .max_by_key(|sample| (sample.log_bytes * 1_000) / log_max(sample));
    if let Some(worst) = worst {
        let (is, may_be) = (worst.log_bytes, log_max(worst));
        findings.push(Finding {
            what: format!("the log has {} of {} at most", bytes(is), bytes(may_be)),
            holds: is <= may_be,
        });
    }
    let each = samples.iter().map(|sample| sample.checkpoints_each).max();
    let each = each.unwrap_or(0);
    findings.push(Finding {
        what: format!("of each group there are {CHECKPOINTS_EACH_MAX} checkpoints at most: {each}"),
        holds: each <= CHECKPOINTS_EACH_MAX && each > 0,
    });
    let last = samples.last().copied().unwrap_or_default();
    let deleted = last.log_files_deleted;
    findings.push(Finding {
        what: format!(
            "enough was written to tell: {deleted} files of the log were deleted, and \
             {LOG_FILES_DELETED_MIN} is enough"
        ),
        holds: deleted >= LOG_FILES_DELETED_MIN,
    });
    if pace.ledger_keep_seconds > 0 {
        findings.push(ledger(samples, pace.ledger_keep_seconds));
    }
    findings
}

/// The largest ledger while it is three to four times as old as what it keeps, and the largest
/// afterwards.
fn ledger(samples: &[Sample], keep_seconds: u64) -> Finding {
    let age = |sample: &&Sample| sample.at_seconds / keep_seconds;
    let largest = |of: &mut dyn Iterator<Item = &Sample>| of.map(|s| s.ledger_bytes).max();
    let first = largest(&mut samples.iter().filter(|sample| age(sample) == 3));
    let later = largest(&mut samples.iter().filter(|sample| age(sample) > 3));
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
    fn run(change: impl Fn(&mut Sample)) -> Vec<bool> {
        let samples: Vec<Sample> = (1..=100)
            .map(|at_seconds| {
                let mut sample = Sample {
                    at_seconds,
                    log_bytes: 30 * MIB,
                    checkpoint_bytes: 30 * MIB,
                    checkpoints_each: 3,
                    states_bytes: 10 * MIB,
                    groups: 9,
                    ledger_bytes: at_seconds.min(12) * MIB,
                    log_written_bytes: at_seconds * MIB,
                    log_files_deleted: at_seconds / 10,
                };
                change(&mut sample);
                sample
            })
            .collect();
        let findings = judge(&samples, PACE);
        findings.iter().map(|finding| finding.holds).collect()
    }

    #[test]
    fn what_grows_without_end_is_noticed() {
        assert_eq!(run(|_| {}), [true; 4]);
        let log = run(|sample| sample.log_bytes = sample.at_seconds * MIB);
        assert_eq!(log, [false, true, true, true]);
        let checkpoints = run(|sample| sample.checkpoints_each = sample.at_seconds);
        assert_eq!(checkpoints, [true, false, true, true]);
        let ledger = run(|sample| sample.ledger_bytes = sample.at_seconds * MIB);
        assert_eq!(ledger, [true, true, true, false]);
    }

    #[test]
    fn a_run_that_is_too_short_to_tell_says_so() {
        let short = run(|sample| sample.log_files_deleted /= 10);
        assert_eq!(short, [true, true, false, true]);
        let young = run(|sample| sample.at_seconds = sample.at_seconds.min(30));
        assert!(!young[3]);
    }
}
