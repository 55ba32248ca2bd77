//! What the node keeps of history: every change of every position, in the ledger on disk.
//!
//! A thread of its own writes what the loop hands over. Stock never depends on it: where the ledger
//! is damaged or cannot be written, it begins anew and says from which index on it is complete.

mod open_ledger;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
pub use open_ledger::OpenLedger;
use prost::Message;
use stock_cluster::GroupId;
use stock_core::Stamp;
use stock_node::ledger_rows::{LedgerRows, Page};
use stock_storage::{Coverage, Cursor, Ledger, LedgerBatch, LedgerError};
use stock_wire::log::v1 as log;
pub use thread::{HistoryHandle, HistoryThread};

/// Bytes that are appended at once.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A stretch of a group's history from before this node's ledger begins, as another node has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Of this group.
    pub group: GroupId,
    /// The first index.
    pub from: u64,
    /// The last: the one before the ledger's first.
    pub to: u64,
    /// The indexes that have changed something, in ascending order, each with all that it left,
    /// encoded.
    pub changes: Vec<(u64, Vec<Bytes>)>,
}

/// The ledger of this node.
pub struct History {
    dir: PathBuf,
    open_ledger: OpenLedger,
    batch: LedgerBatch,
    /// How far each group is with what waits in the batch.
    batched: BTreeMap<GroupId, u64>,
    /// Groups that got something since the last sync.
    unsynced: BTreeSet<GroupId>,
    /// How long it is kept; none: for ever.
    keep: Option<Duration>,
    /// Cluster time of the last change of each group since the ledger was opened.
    newest: BTreeMap<GroupId, Stamp>,
}

impl History {
    /// Opens the ledger in a data directory. What is older than `keep` is deleted in time: older
    /// than the last change of its shard by so much, so that what nobody adds to stays as it is,
    /// and no clock is asked.
    pub fn open(dir: &Path, keep: Option<Duration>) -> Result<Self, LedgerError> {
        Ok(Self {
            dir: dir.to_owned(),
            open_ledger: OpenLedger::new(open(dir)?),
            batch: LedgerBatch::new(),
            batched: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            keep,
            newest: BTreeMap::new(),
        })
    }

    /// Up to where the history of each group is durable.
    pub fn durable_indexes(&self, groups: u32) -> Vec<Option<u64>> {
        let ledger = self.open_ledger.ledger();
        let durable = |group| Some(ledger.as_ref()?.durable(u64::from(group))?.to);
        (0..groups).map(durable).collect()
    }

    /// For whoever reads history.
    pub fn open_ledger(&self) -> OpenLedger {
        self.open_ledger.clone()
    }

    /// Takes a page. It is durable after the next [`Self::sync`].
    pub fn take(&mut self, page: Page) -> Result<(), LedgerError> {
        match page {
            Page::Rows(rows) => self.add(&rows)?,
            Page::Begin { group, after } => {
                self.append()?;
                self.ledger()?.begin(u64::from(group.0), after)?;
                self.unsynced.insert(group);
            }
            Page::Forget(group) => {
                self.append()?;
                while self.ledger()?.forget(u64::from(group.0))? {}
            }
        }
        if self.batch.bytes() > BATCH_BYTES_MAX {
            self.append()?;
        }
        Ok(())
    }

    /// Takes what another node has of the time before the ledger begins. `false` if it is not
    /// wanted: the ledger begins elsewhere by now, or this would soon be too old to be kept.
    pub fn fill(&mut self, stretch: &Stretch) -> Result<bool, LedgerError> {
        self.append()?;
        let ledger = self.ledger()?;
        let number = u64::from(stretch.group.0);
        let fits = ledger.coverage(number).map(|it| it.from) == Some(stretch.to + 1);
        if !fits || self.is_soon_forgotten(stretch) {
            return Ok(false);
        }
        let changes: Vec<(u64, Vec<&[u8]>)> = stretch
            .changes
            .iter()
            .map(|(index, changes)| (*index, changes.iter().map(AsRef::as_ref).collect()))
            .collect();
        let changes: Vec<(u64, &[&[u8]])> = changes
            .iter()
            .map(|(index, changes)| (*index, changes.as_slice()))
            .collect();
        match ledger.replace(number, stretch.from, stretch.to, &changes) {
            Ok(()) => {
                self.unsynced.insert(stretch.group);
                Ok(true)
            }
            Err(error) if !error.is_fatal() => {
                tracing::warn!(group = number, %error, "what another node has of history makes no \
                    sense");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the last change of a stretch will be too old within a tenth of the time for which
    /// changes are kept: other nodes may not have come to delete it yet, and it would be fetched
    /// again and again.
    fn is_soon_forgotten(&self, stretch: &Stretch) -> bool {
        let (Some(keep), Some(newest)) = (self.keep, self.newest.get(&stretch.group)) else {
            return false;
        };
        let oldest = newest.minus_ms((keep - keep / 10).as_millis() as u64);
        let last = stretch
            .changes
            .last()
            .and_then(|(_, changes)| changes.last());
        let stamp = last.and_then(|change| log::LedgerEntry::decode(change.clone()).ok());
        stamp.is_some_and(|change| Stamp(change.stamp_ms) < oldest)
    }

    /// Makes durable what was taken. Returns how far the groups are that got something.
    pub fn sync(&mut self) -> Result<Vec<(GroupId, u64)>, LedgerError> {
        if self.unsynced.is_empty() {
            return Ok(Vec::new());
        }
        self.append()?;
        let ledger = self.ledger()?;
        ledger.sync()?;
        let durable = |group: GroupId| Some((group, ledger.durable(u64::from(group.0))?.to));
        let synced = std::mem::take(&mut self.unsynced);
        Ok(synced.into_iter().filter_map(durable).collect())
    }

    /// Deletes some of what is too old. `true` if there is more.
    pub fn forget(&mut self) -> Result<bool, LedgerError> {
        let Some(keep) = self.keep else {
            return Ok(false);
        };
        let ledger = self.ledger()?;
        let mut is_more = false;
        for (group, newest) in &self.newest {
            let oldest = newest.minus_ms(keep.as_millis() as u64);
            let number = u64::from(group.0);
            let Some(coverage) = ledger.durable(number) else {
                continue;
            };
            let from = first_since(&ledger, number, coverage, oldest)?;
            // Also where it is no later than before: something may be left from then.
            is_more |= ledger.retain(number, from)?;
        }
        Ok(is_more)
    }

    fn add(&mut self, rows: &LedgerRows) -> Result<(), LedgerError> {
        if let Some(newest) = rows.rows.newest() {
            self.newest.insert(rows.group, newest);
        }
        let group = u64::from(rows.group.0);
        self.unsynced.insert(rows.group);
        // What waits in the batch is not in the coverage yet.
        let known = self.batched.get(&rows.group).copied();
        let ledger = self.ledger()?;
        let known = known.or_else(|| Some(ledger.coverage(group)?.to));
        let known = match known {
            // Replayed after a restart: it is there already.
            Some(known) if known >= rows.to => return Ok(()),
            Some(known) if known >= rows.after => known,
            _ => {
                if let Some(known) = known {
                    tracing::warn!(
                        group,
                        from = known,
                        to = rows.after,
                        "the ledger lacks a stretch of history and begins anew behind it"
                    );
                }
                self.append()?;
                ledger.begin(group, rows.after)?;
                rows.after
            }
        };
        let mut reached = known;
        let mut rest = rows.rows.iter().peekable();
        while let Some((index, _)) = rest.peek().copied() {
            let of_index = std::iter::from_fn(|| rest.next_if(|(other, _)| *other == index));
            if index <= known {
                of_index.for_each(drop);
                continue;
            }
            if index > reached + 1 {
                self.batch.reached(group, index - 1);
            }
            self.batch
                .append(group, index, of_index.map(|(_, row)| row));
            reached = index;
        }
        if reached < rows.to {
            self.batch.reached(group, rows.to);
        }
        self.batched.insert(rows.group, rows.to);
        Ok(())
    }

    fn append(&mut self) -> Result<(), LedgerError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batched.clear();
        self.ledger()?.append(&mut self.batch)
    }

    /// Opens the ledger again after it has failed. What waited is lost, and the ledger will say so.
    pub fn open_again(&mut self) -> Result<(), LedgerError> {
        self.batch.clear();
        self.batched.clear();
        self.unsynced.clear();
        // It can be opened once only.
        self.open_ledger.clear();
        self.open_ledger.put(open(&self.dir)?);
        Ok(())
    }

    fn ledger(&self) -> Result<Ledger, LedgerError> {
        let dir = || self.dir.clone();
        self.open_ledger
            .ledger()
            .ok_or_else(|| LedgerError::Failed { dir: dir() })
    }
}

/// Opens a ledger, and says what is wrong with it.
fn open(dir: &Path) -> Result<Ledger, LedgerError> {
    let opened = Ledger::open(dir)?;
    if let Some(set_aside) = opened.set_aside {
        tracing::error!(
            dir = %set_aside.dir.display(), reason = set_aside.reason,
            "the ledger was damaged and begins anew; stock is not affected"
        );
    }
    for hole in opened.holes {
        tracing::error!(%hole, "the ledger has a hole; stock is not affected");
        if let LedgerError::Hole { group, to, .. } = hole {
            opened.ledger.begin(group, to)?;
        }
    }
    Ok(opened.ledger)
}

/// The first index with a change that is not older, or the end. Stamps never go back, so that
/// halving finds it.
fn first_since(
    ledger: &Ledger,
    group: u64,
    coverage: Coverage,
    oldest: Stamp,
) -> Result<u64, LedgerError> {
    let (mut from, mut to) = (coverage.from, coverage.to + 1);
    while from < to {
        let middle = from + (to - from) / 2;
        let page = ledger.read(group, Cursor::after_index(middle - 1), 1, 1);
        let page = match page {
            Ok(page) => page,
            // Whoever reads it finds that, too; here it is older or newer than the rest.
            Err(LedgerError::Hole { to: lost, .. }) if lost + 1 < to => {
                from = lost + 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let stamp = page.entries.first().and_then(|entry| {
            let decoded = log::LedgerEntry::decode(entry.bytes.clone()).ok()?;
            Some(Stamp(decoded.stamp_ms))
        });
        match stamp {
            Some(stamp) if stamp < oldest => from = page.entries[0].index + 1,
            // Or nothing has changed from here on.
            Some(_) | None => to = middle,
        }
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use stock_core::{EntryKind, LedgerEntry, Location, Principal, Sku, Source};
    use stock_node::ledger_rows::Rows;

    use super::*;

    const GROUP: GroupId = GroupId(1);
    const KEEP: Duration = Duration::from_secs(100);

    /// The change that index `index` made, at as many seconds.
    fn change(index: u64) -> LedgerEntry {
        let stamp = Stamp(index * 1_000);
        LedgerEntry {
            kind: EntryKind::Policy,
            sku: Sku::new("MUG").unwrap(),
            location: Location::new("WH").unwrap(),
            on_hand_delta: 0,
            reserved_delta: 0,
            source: Source::Policy,
            principal: Principal::new("test").unwrap(),
            stamp,
            occurred_at: stamp,
            reason: None,
            discrepancy: None,
        }
    }

    fn rows(indexes: std::ops::RangeInclusive<u64>, every: u64) -> Page {
        let (after, to) = (indexes.start() - 1, *indexes.end());
        let mut changed = Rows::default();
        for index in indexes.filter(|index| index % every == 0) {
            changed.push(index, &change(index));
        }
        Page::Rows(LedgerRows {
            group: GROUP,
            after,
            to,
            rows: changed,
        })
    }

    fn forget_all(history: &mut History) -> Coverage {
        history.sync().unwrap();
        while history.forget().unwrap() {}
        history.ledger().unwrap().coverage(1).unwrap()
    }

    #[test]
    fn what_is_older_than_what_is_kept_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), Some(KEEP)).unwrap();
        history.take(rows(1..=90, 1)).unwrap();
        assert_eq!(forget_all(&mut history).from, 1);
        history.take(rows(91..=500, 1)).unwrap();
        let kept = Coverage { from: 400, to: 500 };
        assert_eq!(forget_all(&mut history), kept);
        let ledger = history.ledger().unwrap();
        let page = ledger.read(1, Cursor::after_index(399), 1_000, usize::MAX);
        assert_eq!(page.unwrap().entries.len(), 101);
        drop(ledger);
        // Time goes on, and nothing changes.
        history.take(rows(501..=900, 1_000)).unwrap();
        assert_eq!(forget_all(&mut history).from, 400);
        // A change now and then.
        history.take(rows(901..=2_000, 70)).unwrap();
        assert_eq!(forget_all(&mut history).from, 1_821);
        drop(history);
        // After a restart nothing goes before something comes.
        let mut history = History::open(dir.path(), Some(KEEP)).unwrap();
        assert_eq!(forget_all(&mut history).from, 1_821);
        history.take(rows(2_001..=2_100, 1)).unwrap();
        assert_eq!(
            forget_all(&mut history),
            Coverage {
                from: 1_961,
                to: 2_100
            }
        );
    }

    #[test]
    fn without_a_limit_everything_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), None).unwrap();
        history.take(rows(1..=5_000, 1)).unwrap();
        assert_eq!(forget_all(&mut history), Coverage { from: 1, to: 5_000 });
    }

    fn stretch(from: u64, to: u64) -> Stretch {
        let changes = (from..=to).map(|index| {
            let mut rows = Rows::default();
            rows.push(index, &change(index));
            let rows = rows.iter().map(|(_, row)| Bytes::copy_from_slice(row));
            (index, rows.collect())
        });
        Stretch {
            group: GROUP,
            from,
            to,
            changes: changes.collect(),
        }
    }

    #[test]
    fn what_is_missing_at_the_beginning_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), None).unwrap();
        history.take(rows(51..=60, 1)).unwrap();
        assert!(
            !history.fill(&stretch(1, 40)).unwrap(),
            "a gap would be left"
        );
        assert!(history.fill(&stretch(31, 50)).unwrap());
        assert!(history.fill(&stretch(1, 30)).unwrap());
        assert!(
            !history.fill(&stretch(1, 30)).unwrap(),
            "it is there already"
        );
        assert_eq!(forget_all(&mut history), Coverage { from: 1, to: 60 });
        let ledger = history.ledger().unwrap();
        let page = ledger.read(1, Cursor::after_index(0), 1_000, usize::MAX);
        let indexes: Vec<u64> = page.unwrap().entries.iter().map(|it| it.index).collect();
        assert_eq!(indexes, (1..=60).collect::<Vec<_>>());
    }

    #[test]
    fn what_would_soon_be_deleted_is_not_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), Some(KEEP)).unwrap();
        history.take(rows(451..=500, 1)).unwrap();
        assert!(history.fill(&stretch(421, 450)).unwrap());
        assert!(history.fill(&stretch(405, 420)).unwrap());
        assert!(!history.fill(&stretch(400, 404)).unwrap());
    }

    #[test]
    fn a_ledger_that_has_failed_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), None).unwrap();
        history.take(rows(1..=10, 1)).unwrap();
        history.sync().unwrap();
        history.take(rows(11..=20, 1)).unwrap();
        history.open_again().unwrap();
        // What was not durable comes again, or is missing from there on.
        history.take(rows(21..=30, 1)).unwrap();
        let after = Coverage { from: 21, to: 30 };
        assert_eq!(forget_all(&mut history), after);
    }
}
