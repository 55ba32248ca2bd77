//! When a group's state is written down, and what of its log and files may go afterwards.
//!
//! ```text
//! log      |----- origin ==================== older ========= newest ======= applied
//! files          (older,                      newest)
//! ```
//!
//! A checkpoint is due when the log since the newest one has outgrown the state. Once it is
//! durable, the log begins at the *older* of the last two files, or earlier, where the ledger is
//! not durable yet: so one damaged file never costs a replica, and a restart can always replay what
//! the ledger lacks.

use std::mem;

use stock_replica::Point;

use super::parts::CheckpointPace;

/// After a checkpoint could not be written, the next attempt waits this long.
const RETRY_AFTER_MS: u64 = 10_000;

/// After so many sends in a row that failed, it is not the network that is in doubt but the file.
const SENDS_FAILED_MAX: u32 = 3;

/// What an entry takes beside its own bytes, about: half of it frames on the disk, half its place
/// in the index that the log keeps in memory. Of single calls that is more than the entries
/// themselves.
const BESIDE_ENTRY_BYTES: u64 = 128;

/// Files of one group that stay, at least: the last may be damaged.
const FILES_KEPT: usize = 2;

/// The checkpoints of one replica.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pace: CheckpointPace,
    /// Whole on disk, newest first.
    kept: Vec<Kept>,
    /// What the entries take that were applied between the last two, or before the only one.
    between_bytes: u64,
    /// What those take that the file under way will cover, if there is one.
    writing_bytes: Option<u64>,
    /// What those take that were applied since.
    log_bytes: u64,
    retry_at_boot_ms: u64,
    /// Sends of the newest in a row that did not arrive.
    sends_failed: u32,
    doubt_from_boot_ms: u64,
}

/// A checkpoint that is whole on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// As of here.
    pub point: Point,
    /// Of the file.
    pub bytes: u64,
}

impl Checkpoints {
    /// With these whole on disk, newest first.
    pub(super) fn new(kept: Vec<Kept>, pace: CheckpointPace) -> Self {
        let mut checkpoints = Self {
            pace,
            kept,
            between_bytes: 0,
            writing_bytes: None,
            log_bytes: 0,
            retry_at_boot_ms: 0,
            sends_failed: 0,
            doubt_from_boot_ms: 0,
        };
        if !checkpoints.kept.is_empty() {
            // It was counted before the restart; about so much makes a file due.
            checkpoints.between_bytes = checkpoints.due_at_bytes();
        }
        checkpoints
    }

    /// The log begins anew at a snapshot, which is the one file there is.
    pub(super) fn restart(&mut self, kept: Kept) {
        *self = Self {
            between_bytes: 0,
            ..Self::new(vec![kept], self.pace)
        };
    }

    pub(super) fn newest(&self) -> Option<&Point> {
        self.kept.first().map(|kept| &kept.point)
    }

    /// An entry of this size was applied.
    pub(super) fn applied(&mut self, bytes: usize) {
        self.log_bytes += bytes as u64 + BESIDE_ENTRY_BYTES;
    }

    /// By how much the log since the newest checkpoint has outgrown what is tolerated, if it has.
    pub(super) fn overdue_bytes(&self, boot_ms: u64) -> Option<u64> {
        if !self.may_begin(boot_ms) {
            return None;
        }
        self.log_bytes.checked_sub(self.due_at_bytes())
    }

    /// The next one is due once the log has grown by so much.
    fn due_at_bytes(&self) -> u64 {
        let file_bytes = self.kept.first().map_or(0, |kept| kept.bytes);
        let of_file = file_bytes * self.pace.of_file_percent / 100;
        of_file.max(self.pace.log_bytes_min)
    }

    /// For so much of the log there should be room: twice what is needed, until that is what two
    /// files make it. Those that the entries lie in hold entries of other groups, too, which are
    /// cut at other times. Where the ledger does not keep up, more is needed.
    pub(super) fn room_bytes(&self) -> u64 {
        let needed = self.between_bytes + self.writing_bytes.unwrap_or(0) + self.log_bytes;
        let of_files = FILES_KEPT as u64 * self.due_at_bytes();
        needed.max(of_files.min(2 * needed))
    }

    /// Whether one may be begun because somebody asks for it.
    pub(super) fn may_begin(&self, boot_ms: u64) -> bool {
        self.writing_bytes.is_none() && boot_ms >= self.retry_at_boot_ms
    }

    pub(super) fn begin(&mut self, boot_ms: u64) {
        if self.is_in_doubt(boot_ms) {
            self.doubt_from_boot_ms = boot_ms + RETRY_AFTER_MS;
        }
        self.sends_failed = 0;
        self.writing_bytes = Some(mem::take(&mut self.log_bytes));
    }

    /// The newest was sent to a follower.
    pub(super) fn sent(&mut self, arrived: bool) {
        self.sends_failed = match arrived {
            true => 0,
            false => self.sends_failed.saturating_add(1),
        };
    }

    /// Whether the newest had better be written anew: what lies on the disk may be damaged, and
    /// whoever is sent it refuses it every time.
    pub(super) fn is_in_doubt(&self, boot_ms: u64) -> bool {
        self.sends_failed >= SENDS_FAILED_MAX && boot_ms >= self.doubt_from_boot_ms
    }

    /// One is durable. False if a snapshot has come meanwhile that is newer: then it is of no use.
    pub(super) fn written(&mut self, point: Point, bytes: u64) -> bool {
        let covered = self.writing_bytes.take().unwrap_or(0);
        let newest = self.newest().map(|newest| newest.index);
        if newest > Some(point.index) {
            return false;
        }
        match newest == Some(point.index) {
            true => self.between_bytes += covered,
            false => self.between_bytes = covered,
        }
        self.kept.retain(|kept| kept.point.index != point.index);
        self.kept.insert(0, Kept { point, bytes });
        true
    }

    /// One could not be written.
    pub(super) fn failed(&mut self, boot_ms: u64) {
        // What it would have covered is still in the log.
        self.log_bytes += self.writing_bytes.take().unwrap_or(0);
        self.retry_at_boot_ms = boot_ms + RETRY_AFTER_MS;
    }

    /// Where the log may begin anew while the ledger is durable up to `ledger_index` and it begins
    /// at `origin`. Older files may go then; newer ones may be there that nobody has heard of yet.
    pub(super) fn trim(&mut self, ledger_index: u64, origin: &Point) -> Option<Point> {
        // Where a restart can begin and lose nothing: a file that is not the last one, and that the
        // ledger has caught up with.
        let safe = |kept: &&Kept| kept.point.index <= ledger_index;
        let base = self
            .kept
            .iter()
            .skip(FILES_KEPT - 1)
            .find(safe)?
            .point
            .clone();
        if base.index <= origin.index {
            return None;
        }
        self.kept.retain(|kept| kept.point.index >= base.index);
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_BYTES_MIN: u64 = 1_000;

    fn none() -> Checkpoints {
        let pace = CheckpointPace {
            log_bytes_min: LOG_BYTES_MIN,
            of_file_percent: 100,
        };
        Checkpoints::new(Vec::new(), pace)
    }

    fn point(index: u64) -> Point {
        Point {
            index,
            term: 1,
            ..Point::default()
        }
    }

    /// An entry that takes so much in all.
    fn applied(checkpoints: &mut Checkpoints, bytes: u64) {
        checkpoints.applied((bytes - BESIDE_ENTRY_BYTES) as usize);
    }

    fn written(checkpoints: &mut Checkpoints, index: u64) {
        checkpoints.begin(0);
        checkpoints.written(point(index), 10);
    }

    #[test]
    fn the_log_begins_at_the_older_of_the_last_two_files() {
        let mut checkpoints = none();
        written(&mut checkpoints, 10);
        assert_eq!(checkpoints.trim(u64::MAX, &point(1)), None, "one file only");
        written(&mut checkpoints, 20);
        assert_eq!(checkpoints.trim(u64::MAX, &point(1)), Some(point(10)));
        assert_eq!(checkpoints.trim(u64::MAX, &point(10)), None, "done already");
        written(&mut checkpoints, 30);
        assert_eq!(checkpoints.trim(u64::MAX, &point(10)), Some(point(20)));
    }

    #[test]
    fn the_log_and_a_file_wait_for_the_ledger() {
        let mut checkpoints = none();
        for index in [10, 20, 30, 40] {
            written(&mut checkpoints, index);
        }
        assert_eq!(checkpoints.trim(9, &point(1)), None);
        assert_eq!(checkpoints.trim(25, &point(1)), Some(point(20)));
    }

    #[test]
    fn one_is_due_when_the_log_has_outgrown_the_state() {
        let mut checkpoints = none();
        applied(&mut checkpoints, LOG_BYTES_MIN / 2);
        assert_eq!(checkpoints.overdue_bytes(0), None);
        applied(&mut checkpoints, LOG_BYTES_MIN / 2);
        assert_eq!(checkpoints.overdue_bytes(0), Some(0));
        checkpoints.begin(0);
        assert_eq!(checkpoints.overdue_bytes(0), None, "one at a time");
        checkpoints.written(point(10), 3 * LOG_BYTES_MIN);
        applied(&mut checkpoints, 2 * LOG_BYTES_MIN);
        assert_eq!(checkpoints.overdue_bytes(0), None, "the state is larger");
        applied(&mut checkpoints, LOG_BYTES_MIN);
        assert_eq!(checkpoints.overdue_bytes(0), Some(0));
    }

    #[test]
    fn one_that_nobody_can_be_sent_is_written_anew_but_not_all_the_time() {
        let mut checkpoints = none();
        written(&mut checkpoints, 10);
        let send = |checkpoints: &mut Checkpoints, times| {
            (0..times).for_each(|_| checkpoints.sent(false));
        };
        send(&mut checkpoints, SENDS_FAILED_MAX - 1);
        checkpoints.sent(true);
        send(&mut checkpoints, SENDS_FAILED_MAX - 1);
        assert!(!checkpoints.is_in_doubt(5));
        send(&mut checkpoints, 1);
        assert!(checkpoints.is_in_doubt(5));
        checkpoints.begin(5);
        checkpoints.written(point(10), 10);
        assert_eq!(checkpoints.newest(), Some(&point(10)));
        send(&mut checkpoints, SENDS_FAILED_MAX);
        assert!(!checkpoints.is_in_doubt(5 + RETRY_AFTER_MS - 1));
        assert!(checkpoints.is_in_doubt(5 + RETRY_AFTER_MS));
    }

    #[test]
    fn one_that_failed_is_tried_again_later() {
        let mut checkpoints = none();
        checkpoints.begin(0);
        checkpoints.written(point(10), 3 * LOG_BYTES_MIN);
        applied(&mut checkpoints, 3 * LOG_BYTES_MIN);
        checkpoints.begin(0);
        checkpoints.failed(1_000);
        assert_eq!(checkpoints.overdue_bytes(1_000 + RETRY_AFTER_MS - 1), None);
        assert_eq!(checkpoints.overdue_bytes(1_000 + RETRY_AFTER_MS), Some(0));
    }

    #[test]
    fn the_log_gets_room_for_what_it_needs_and_no_more_than_files_make_due() {
        let mut checkpoints = none();
        assert_eq!(checkpoints.room_bytes(), 0);
        applied(&mut checkpoints, 500);
        assert_eq!(checkpoints.room_bytes(), 1_000, "little lies apart");
        applied(&mut checkpoints, 1_000);
        assert_eq!(checkpoints.room_bytes(), 2_000);
        checkpoints.begin(0);
        applied(&mut checkpoints, 900);
        assert_eq!(checkpoints.room_bytes(), 2_400, "it waited for its turn");
        checkpoints.written(point(10), 10);
        assert_eq!(
            checkpoints.room_bytes(),
            2_400,
            "with one the log is not cut"
        );
        written(&mut checkpoints, 20);
        assert_eq!(checkpoints.room_bytes(), 1_800);
        applied(&mut checkpoints, 800);
        assert_eq!(checkpoints.room_bytes(), 2_000);
        written(&mut checkpoints, 20);
        assert_eq!(checkpoints.room_bytes(), 2_000, "the same again");
        written(&mut checkpoints, 30);
        assert_eq!(checkpoints.room_bytes(), 0);
        // What a restart finds was counted before it.
        let [newest, older, snapshot] = [30, 20, 50].map(|index| Kept {
            point: point(index),
            bytes: 10,
        });
        let mut found = Checkpoints::new(vec![newest, older], checkpoints.pace);
        assert_eq!(found.room_bytes(), 2_000);
        found.restart(snapshot);
        assert_eq!(found.room_bytes(), 0, "the log begins at a snapshot");
    }

    #[test]
    fn a_file_that_a_snapshot_has_overtaken_is_not_the_newest() {
        let mut checkpoints = none();
        written(&mut checkpoints, 10);
        checkpoints.begin(0);
        checkpoints.restart(Kept {
            point: point(50),
            bytes: 10,
        });
        assert!(!checkpoints.written(point(20), 10));
        assert_eq!(checkpoints.newest(), Some(&point(50)));
        assert!(checkpoints.may_begin(0));
    }
}
