//! What the node keeps of history: every change of every position, in the ledger on disk.
//!
//! A thread of its own writes what the loop hands over. Stock never depends on it: where the ledger is
//! damaged or cannot be written, it begins anew and says from which index on it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prost::Message;
use stock_core::{LedgerEntry, Source, Stamp};
use stock_proto::log::v1 as log;
use stock_storage::{Coverage, Cursor, Ledger, LedgerBatch, LedgerError};

use crate::inbox::Inbox;
use crate::reply::ReplyTo;
use crate::worker::event::{Event, GroupId, LedgerRows};

/// Stretches of history that may wait for the thread. Past this the loop waits for it. It never comes to
/// that while the loop refuses commands in time.
const STRETCHES_WAITING_MAX: usize = 16 * 1024;

/// The ledger is made durable this often: nobody waits for it but the log, which is cut a little later.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// Bytes that are appended at once.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// After it failed, the ledger is opened again this much later.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What is too old is looked for this often, or ten times while it grows old, whichever is more often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Steps of deleting what is too old, of a few thousand values each, between two looks at what is to be kept.
const FORGET_STEPS_MAX: usize = 4;

/// Something for the ledger.
#[derive(Debug)]
pub enum Page {
    /// To be kept.
    Rows(LedgerRows),
    /// The history of a group is known from here on only.
    Begin {
        /// Which.
        group: GroupId,
        /// After this index.
        after: u64,
    },
    /// A group is here no more.
    Forget(GroupId),
}

/// The ledger of this node.
pub struct History {
    dir: PathBuf,
    ledger: Ledger,
    batch: LedgerBatch,
    /// How far each group is with what waits in the batch.
    batched: BTreeMap<GroupId, u64>,
    /// Groups that got something since the last sync.
    unsynced: BTreeSet<GroupId>,
    /// How long it is kept; none: for ever.
    keep: Option<Duration>,
    /// Cluster time of the last change of each group since the ledger was opened.
    newest: BTreeMap<GroupId, Stamp>,
    scratch: Vec<u8>,
}

impl History {
    /// Opens the ledger in a data directory. What is older than `keep` is deleted in time: older than the last
    /// change of its shard by so much, so that what nobody adds to stays as it is, and no clock is asked.
    pub fn open(dir: &Path, keep: Option<Duration>) -> Result<Self, LedgerError> {
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
        Ok(Self {
            dir: dir.to_owned(),
            ledger: opened.ledger,
            batch: LedgerBatch::new(),
            batched: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            keep,
            newest: BTreeMap::new(),
            scratch: Vec::new(),
        })
    }

    /// Up to where the history of each group is durable.
    pub fn durable_indexes(&self, groups: u32) -> Vec<Option<u64>> {
        let durable = |group| Some(self.ledger.durable(u64::from(group))?.to);
        (0..groups).map(durable).collect()
    }

    /// For whoever reads history.
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Takes a page. It is durable after the next [`Self::sync`].
    pub fn take(&mut self, page: Page) -> Result<(), LedgerError> {
        match page {
            Page::Rows(rows) => self.add(&rows)?,
            Page::Begin { group, after } => {
                self.append()?;
                self.ledger.begin(u64::from(group.0), after)?;
                self.unsynced.insert(group);
            }
            Page::Forget(group) => {
                self.append()?;
                while self.ledger.forget(u64::from(group.0))? {}
            }
        }
        if self.batch.bytes() > BATCH_BYTES_MAX {
            self.append()?;
        }
        Ok(())
    }

    /// Makes durable what was taken. Returns how far the groups are that got something.
    pub fn sync(&mut self) -> Result<Vec<(GroupId, u64)>, LedgerError> {
        if self.unsynced.is_empty() {
            return Ok(Vec::new());
        }
        self.append()?;
        self.ledger.sync()?;
        let durable = |group: GroupId| Some((group, self.ledger.durable(u64::from(group.0))?.to));
        let synced = std::mem::take(&mut self.unsynced);
        Ok(synced.into_iter().filter_map(durable).collect())
    }

    /// Deletes some of what is too old. `true` if there is more.
    pub fn forget(&mut self) -> Result<bool, LedgerError> {
        let Some(keep) = self.keep else {
            return Ok(false);
        };
        let mut is_more = false;
        for (group, newest) in &self.newest {
            let oldest = newest.minus_ms(keep.as_millis() as u64);
            let number = u64::from(group.0);
            let Some(coverage) = self.ledger.durable(number) else {
                continue;
            };
            let from = self.first_since(number, coverage, oldest)?;
            // Also where it is no later than before: something may be left from then.
            is_more |= self.ledger.retain(number, from)?;
        }
        Ok(is_more)
    }

    /// The first index with a change that is not older, or the end. Stamps never go back, so that halving finds it.
    fn first_since(
        &self,
        group: u64,
        coverage: Coverage,
        oldest: Stamp,
    ) -> Result<u64, LedgerError> {
        let (mut from, mut to) = (coverage.from, coverage.to + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            let page = self
                .ledger
                .read(group, Cursor::after_index(middle - 1), 1, 1);
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

    fn add(&mut self, rows: &LedgerRows) -> Result<(), LedgerError> {
        if let Some((_, last)) = rows.rows.last() {
            self.newest.insert(rows.group, last.stamp);
        }
        let group = u64::from(rows.group.0);
        self.unsynced.insert(rows.group);
        // What waits in the batch is not in the coverage yet.
        let known = self.batched.get(&rows.group).copied();
        let known = known.or_else(|| Some(self.ledger.coverage(group)?.to));
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
                self.ledger.begin(group, rows.after)?;
                rows.after
            }
        };
        let mut reached = known;
        for of_index in rows.rows.chunk_by(|a, b| a.0 == b.0) {
            let index = of_index[0].0;
            if index <= known {
                continue;
            }
            if index > reached + 1 {
                self.batch.reached(group, index - 1);
            }
            let scratch = &mut self.scratch;
            let encoded: Vec<Vec<u8>> = of_index
                .iter()
                .map(|(_, entry)| {
                    scratch.clear();
                    encode(entry).encode_raw(scratch);
                    scratch.clone()
                })
                .collect();
            self.batch.append(group, index, encoded);
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
        self.ledger.append(&mut self.batch)
    }

    fn open_again(&mut self) -> Result<(), LedgerError> {
        *self = Self::open(&self.dir, self.keep)?;
        Ok(())
    }
}

/// For the disk.
fn encode(entry: &LedgerEntry) -> log::LedgerEntry {
    let mut encoded = log::LedgerEntry {
        kind: entry.kind as u32,
        sku: entry.sku.as_str().to_owned(),
        location: entry.location.as_str().to_owned(),
        on_hand_delta: entry.on_hand_delta,
        reserved_delta: entry.reserved_delta,
        principal: entry.principal.as_str().to_owned(),
        stamp_ms: entry.stamp.0,
        occurred_at_ms: match entry.occurred_at == entry.stamp {
            true => 0,
            false => entry.occurred_at.0,
        },
        reason: entry
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| reason.as_str().to_owned()),
        discrepancy: entry
            .discrepancy
            .as_ref()
            .map(|discrepancy| log::LedgerDiscrepancy {
                available: discrepancy.available,
                short_by: discrepancy.short_by,
                endangered: discrepancy
                    .endangered
                    .iter()
                    .map(|id| id.as_bytes().to_vec().into())
                    .collect(),
            }),
        ..Default::default()
    };
    match &entry.source {
        Source::Reservation(id) => encoded.reservation_id = id.as_bytes().to_vec().into(),
        Source::Document { document, line } => {
            document.as_str().clone_into(&mut encoded.document);
            line.as_str().clone_into(&mut encoded.line);
        }
        Source::Policy => {}
    }
    encoded
}

/// A thread that keeps history.
pub struct HistoryThread(SyncSender<Page>);

impl HistoryThread {
    /// Begins. The thread ends when this is dropped and all is durable.
    pub fn start(history: History, inbox: Arc<Inbox<ReplyTo>>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(STRETCHES_WAITING_MAX);
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || keep(history, &receiver, &inbox))?;
        Ok(Self(sender))
    }

    /// Hands a page over. Waits while far too much waits already.
    pub fn record(&self, page: Page) {
        // The thread ends only after this does.
        let _ = self.0.send(page);
    }
}

/// Deletes what is too old, but not so much at a time that what is to be kept has to wait. What is left is
/// deleted next time.
fn forget(history: &mut History) -> Result<(), LedgerError> {
    for _ in 0..FORGET_STEPS_MAX {
        if !history.forget()? {
            break;
        }
    }
    Ok(())
}

fn keep(mut history: History, receiver: &Receiver<Page>, inbox: &Inbox<ReplyTo>) {
    let mut next_sync = Instant::now();
    let forget_every = history
        .keep
        .map(|keep| (keep / 10).clamp(SYNC_EVERY, FORGET_EVERY));
    let mut next_forget = Instant::now();
    let mut is_open = true;
    while is_open {
        let page = match receiver.recv_timeout(SYNC_EVERY) {
            Ok(page) => Some(page),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                is_open = false;
                None
            }
        };
        let mut reached = Vec::new();
        let mut note = |page: &Page| {
            if let Page::Rows(rows) = page {
                reached.push((rows.group, rows.to));
            }
        };
        let mut kept = Ok(());
        let mut next = page;
        while let Some(page) = next.take() {
            note(&page);
            kept = kept.and_then(|()| history.take(page));
            next = receiver.try_recv().ok();
        }
        let synced = kept.and_then(|()| match Instant::now() >= next_sync || !is_open {
            true => {
                next_sync = Instant::now() + SYNC_EVERY;
                history.sync()
            }
            false => Ok(Vec::new()),
        });
        let synced = match forget_every {
            Some(every) if Instant::now() >= next_forget => {
                next_forget = Instant::now() + every;
                synced.and_then(|synced| forget(&mut history).map(|()| synced))
            }
            _ => synced,
        };
        match synced {
            Ok(synced) => {
                for (group, index) in synced {
                    inbox.push(Event::LedgerDurable { group, index });
                }
            }
            Err(error) => {
                // Stock goes on without history: what waited is lost, and the ledger says so.
                metrics::counter!("stockd_ledger_failures_total").increment(1);
                tracing::error!(%error, "the ledger failed; a stretch of history will be missing on this node");
                std::thread::sleep(REOPEN_AFTER);
                if let Err(error) = history.open_again() {
                    tracing::error!(%error, "the ledger cannot be opened again yet");
                }
                for (group, index) in reached {
                    inbox.push(Event::LedgerDurable { group, index });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_core::{EntryKind, Location, Principal, Sku};

    use super::*;

    const GROUP: GroupId = GroupId(1);
    const KEEP: Duration = Duration::from_secs(100);

    /// The change that index `index` made, at as many seconds.
    fn change(index: u64) -> (u64, LedgerEntry) {
        let stamp = Stamp(index * 1_000);
        let entry = LedgerEntry {
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
        };
        (index, entry)
    }

    fn rows(indexes: std::ops::RangeInclusive<u64>, every: u64) -> Page {
        let (after, to) = (indexes.start() - 1, *indexes.end());
        let changed = indexes.filter(|index| index % every == 0);
        Page::Rows(LedgerRows {
            group: GROUP,
            after,
            to,
            rows: changed.map(change).collect(),
        })
    }

    fn forget_all(history: &mut History) -> Coverage {
        history.sync().unwrap();
        while history.forget().unwrap() {}
        history.ledger.coverage(1).unwrap()
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
        let page = history
            .ledger
            .read(1, Cursor::after_index(399), 1_000, usize::MAX);
        assert_eq!(page.unwrap().entries.len(), 101);
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
}
