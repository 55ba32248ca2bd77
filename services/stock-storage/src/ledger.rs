//! The ledger: what every applied log index left behind, in order, for feeds and audits.
//!
//! It is history only. Stock never depends on it, and whatever is lost here can be had again from
//! the log or from another replica. That is why it may stand on `sled`, whose files a power cut can
//! damage: `engine.rs` tells what was found in its source and what is done about it.
//!
//! # What is kept
//!
//! Each group has one record and any number of values. The record says of which indices the group's
//! ledger is complete ([`Coverage`]), so that an index without entries can be told from a lost one;
//! it changes in the same batch as the values. A value holds one or more entries, of one or more
//! indices, in at most 2 KiB; its key is the place of its first entry: group, index, ordinal. An
//! entry that is larger is cut into parts. Few large values instead of many small ones are what
//! makes it fast: sled works per key.
//!
//! # How loss is noticed
//!
//! - A value carries a checksum and names the value before it; the record names the last. A reader
//!   that misses one is told [`LedgerError::Hole`], with the indices that [`Ledger::replace`] must
//!   bring.
//! - Opening looks at both ends of each group. To read everything takes two seconds for a
//!   million entries, so that is left to the readers.
//! - What cannot be mended is set aside whole: the directory is renamed to `ledger.damaged-<n>`,
//!   one of them is kept, and an empty ledger takes its place.
//!
//! # How it is written
//!
//! One thread writes (others would wait), any number read. [`Ledger::append`] is not durable before
//! [`Ledger::sync`]; [`Ledger::durable`] says how far the log may be truncated.
//!
//! ```text
//! begin(group, after_index)            once, or after a snapshot was installed
//! append(batch) append(batch) ... sync()     the log may go up to durable(group)
//! retain(group, from_index)            until it says that nothing more is left to delete
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use crate::LedgerError;
use crate::volume::OsVolume;

mod batch;
mod engine;
pub(crate) mod error;
mod key;
mod mend;
mod opening;
mod page;
mod record;
mod value;

pub use batch::LedgerBatch;
use engine::Engine;
use key::{Position, coverage_key, entries_key};
use page::{Scan, scan};
use record::{Phase, Record};
use value::{PackedValue, Packer};

/// The most bytes of one entry.
pub(crate) const ENTRY_BYTES_MAX: u64 = 1 << 20;
/// The most bytes of all entries in one batch, or given to one replacement.
pub(crate) const BATCH_BYTES_MAX: u64 = 16 << 20;
/// After so many bytes a batch is handed to the engine, which keeps readers out while it works.
const STEP_BYTES_MAX: usize = 512 << 10;
/// Values deleted in one step.
const STEP_DELETES_MAX: usize = 4096;

/// The ledger of one node: all its groups. Clones are handles of the same ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    /// What readers may see. Never held while the engine works.
    groups: RwLock<BTreeMap<u64, Group>>,
    /// Held while writing.
    writer: Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    record: Record,
    durable_to: Option<u64>,
}

/// An opened ledger, and what was found when opening it.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// The ledger that was found damaged, if so. The new one is empty: begin each group anew, from
    /// the first index that the log still has.
    pub set_aside: Option<SetAside>,
    /// What is missing in groups that are otherwise kept: replace it, or begin the group anew.
    pub holes: Vec<LedgerError>,
}

/// A damaged ledger that was put out of the way.
#[derive(Debug, Clone)]
pub struct SetAside {
    /// Where it is now. Nothing reads it any more; it is for whoever wants to know, and may be
    /// deleted.
    pub dir: PathBuf,
    /// What was wrong.
    pub reason: String,
}

/// The log indices of which everything is kept; none, if `from` is `to + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// The first index.
    pub from: u64,
    /// The last index.
    pub to: u64,
}

/// A place in a group's ledger: behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The log index.
    pub index: u64,
    /// The entry's number within its index, from 0.
    pub ordinal: u32,
}

impl Cursor {
    /// Behind everything that an index left.
    #[must_use]
    pub fn after_index(index: u64) -> Cursor {
        Cursor {
            index,
            ordinal: u32::MAX,
        }
    }
}

/// An entry as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The group.
    pub group: u64,
    /// The log index that left it.
    pub index: u64,
    /// Its number within that index, from 0.
    pub ordinal: u32,
    /// The entry.
    pub bytes: Bytes,
}

impl LedgerEntry {
    /// The place behind it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            index: self.index,
            ordinal: self.ordinal,
        }
    }
}

/// Some entries of a group, in order and without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<LedgerEntry>,
    /// Where to go on. Behind the last entry at least; behind the last index that is there, if
    /// nothing more was found.
    pub next: Cursor,
}

impl Ledger {
    /// Opens the ledger of the data directory `data_dir`, creating both if need be. Whatever it
    /// holds then is durable.
    ///
    /// A damaged ledger does not stop a node: see [`Opened::set_aside`] and [`Opened::holes`].
    ///
    /// # Errors
    ///
    /// [`LedgerError::InUse`], or [`LedgerError::Io`] or [`LedgerError::Write`] if the volume
    /// refuses.
    pub fn open(data_dir: &Path) -> Result<Opened, LedgerError> {
        opening::open(data_dir, &OsVolume)
    }

    /// Deletes the ledger in a data directory, before it is opened: it belongs to nobody who uses
    /// the directory now. Whether there was one.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`] if the volume refuses.
    pub fn delete(data_dir: &Path) -> Result<bool, LedgerError> {
        opening::delete(data_dir)
    }

    /// Whether there is a ledger in a data directory.
    #[must_use]
    pub fn is_in(data_dir: &Path) -> bool {
        opening::is_in(data_dir)
    }

    /// Says that the group's ledger begins after `after_index`: at first boot, after a snapshot was
    /// installed, or when a hole cannot be refilled. What was kept of the group is gone: an honest
    /// beginning is better than a gap.
    ///
    /// Deletes at once what lies behind `after_index`; the rest is left to [`Ledger::retain`].
    ///
    /// # Errors
    ///
    /// Only [fatal](LedgerError::is_fatal) ones.
    pub fn begin(&self, group: u64, after_index: u64) -> Result<(), LedgerError> {
        let _writer = self.writer();
        let known = self.group(group);
        let last = match known {
            // The chain goes on, so that what `retain` has not deleted yet is no hole.
            Some(Group { record, .. })
                if record.phase == Phase::Kept && record.coverage.to <= after_index =>
            {
                record.last
            }
            Some(_) => {
                let clearing = Record::beginning(after_index, Position::START, Phase::Clearing);
                self.put_record(group, clearing, None)?;
                while self.delete_values(group, u64::MAX, false)? {}
                Position::START
            }
            None => Position::START,
        };
        let record = Record::beginning(after_index, last, Phase::Kept);
        self.put_record(group, record, None)
    }

    /// Appends everything in `batch` and empties it. Readers see it at once; it is durable after
    /// the next [`Ledger::sync`]. After a crash in between, a beginning of each group's part may be
    /// there, and its coverage says how much.
    ///
    /// # Errors
    ///
    /// [`LedgerError::UnknownGroup`], [`LedgerError::OutOfOrder`] and [`LedgerError::TooLarge`] say
    /// that nothing was written and the batch is as it was; every other error is
    /// [fatal](LedgerError::is_fatal).
    pub fn append(&self, batch: &mut LedgerBatch) -> Result<(), LedgerError> {
        let _writer = self.writer();
        batch.check(|group| self.coverage(group))?;
        let mut step = Step::default();
        for (&group, part) in &batch.groups {
            let Some(Group { mut record, .. }) = self.group(group) else {
                return Err(LedgerError::UnknownGroup { group });
            };
            let mut packer = Packer::new(group, record.last);
            let mut entry = 0;
            for (at, item) in part.indices.iter().enumerate() {
                let first = entry;
                while entry < item.ends_to {
                    let bytes = part.entry(entry);
                    step.bytes += bytes.len();
                    // The batch's bound keeps it far below 2^32.
                    packer.push(item.index, (entry - first) as u32, bytes);
                    entry += 1;
                }
                record.coverage.to = item.index;
                let is_last = at + 1 == part.indices.len();
                if is_last || step.bytes > STEP_BYTES_MAX {
                    let (values, last) = packer.finish();
                    record.last = last;
                    packer = Packer::new(group, last);
                    step.put(group, record, values);
                    if step.bytes > STEP_BYTES_MAX {
                        self.apply(std::mem::take(&mut step))?;
                    }
                }
            }
        }
        self.apply(step)?;
        batch.clear();
        Ok(())
    }

    /// Makes durable what was appended, with one `fdatasync` for all groups.
    ///
    /// # Errors
    ///
    /// Only [fatal](LedgerError::is_fatal) ones; [`Ledger::durable`] stays where it was.
    pub fn sync(&self) -> Result<(), LedgerError> {
        let _writer = self.writer();
        self.shared.engine.sync()?;
        for group in write(&self.shared.groups).values_mut() {
            group.durable_to = Some(group.record.coverage.to);
        }
        Ok(())
    }

    /// What is sure to survive a power cut, so that the log need not keep it for the ledger's sake.
    /// Nothing before the first sync after the group began.
    #[must_use]
    pub fn durable(&self, group: u64) -> Option<Coverage> {
        let group = self.group(group)?;
        let to = group.durable_to?;
        let from = group.record.coverage.from.min(to + 1);
        (group.record.phase == Phase::Kept).then_some(Coverage { from, to })
    }

    /// The indices of a group that can be read; nothing if the group was not begun.
    #[must_use]
    pub fn coverage(&self, group: u64) -> Option<Coverage> {
        let group = self.group(group)?;
        (group.record.phase == Phase::Kept).then_some(group.record.coverage)
    }

    /// The groups that have a ledger, in ascending order.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let groups = read(&self.shared.groups);
        let kept = groups
            .iter()
            .filter(|(_, group)| group.record.phase == Phase::Kept);
        kept.map(|(&group, _)| group).collect()
    }

    /// Reads the entries behind a cursor, in order: as many as are at most `entries_max` with no
    /// more than `bytes_max` bytes together, but at least one if there is one.
    ///
    /// Entries that were appended and not synced yet are read too. Behind the end is an empty page.
    ///
    /// # Errors
    ///
    /// [`LedgerError::UnknownGroup`]; [`LedgerError::TooOld`] if something behind the cursor is no
    /// longer kept; [`LedgerError::Hole`] if something is lost on the way, even where that lies
    /// behind entries that could have been read: ask for less to get those; otherwise
    /// [fatal](LedgerError::is_fatal).
    pub fn read(
        &self,
        group: u64,
        after: Cursor,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Page, LedgerError> {
        if let Scan::Page(page) = self.scan(group, after, entries_max, bytes_max)? {
            return Ok(page);
        }
        // A writer that deletes or replaces right here looks like damage, so it is read again with
        // the writer kept out. (A page that was read during that is right: its values fit
        // together.)
        let _writer = self.writer();
        match self.scan(group, after, entries_max, bytes_max)? {
            Scan::Page(page) => Ok(page),
            Scan::Broken { from, to } => Err(LedgerError::Hole { group, from, to }),
        }
    }

    /// Keeps the entries from index `from_index` on and deletes some of those before. Says whether
    /// more is left to delete, so that the caller can do other work in between.
    ///
    /// # Errors
    ///
    /// [`LedgerError::UnknownGroup`]; otherwise only [fatal](LedgerError::is_fatal) ones.
    pub fn retain(&self, group: u64, from_index: u64) -> Result<bool, LedgerError> {
        let _writer = self.writer();
        let mut record = self.kept(group)?;
        let from = from_index.min(record.coverage.to + 1);
        if from > record.coverage.from {
            // First of all, so that a reader of what is being deleted learns why.
            record.coverage.from = from;
            self.put_record(group, record, self.durable_to(group))?;
        }
        self.delete_values(group, record.coverage.from, true)
    }

    /// Forgets a group. Says whether more is left to delete; until nothing is, call it again.
    ///
    /// # Errors
    ///
    /// Only [fatal](LedgerError::is_fatal) ones.
    pub fn forget(&self, group: u64) -> Result<bool, LedgerError> {
        let _writer = self.writer();
        let Some(Group { mut record, .. }) = self.group(group) else {
            return Ok(false);
        };
        if record.phase != Phase::Forgetting {
            record.phase = Phase::Forgetting;
            self.put_record(group, record, None)?;
        }
        if self.delete_values(group, u64::MAX, false)? {
            return Ok(true);
        }
        self.shared
            .engine
            .call(|db| db.remove(coverage_key(group)))?;
        write(&self.shared.groups).remove(&group);
        Ok(false)
    }

    /// Bytes of the ledger's files.
    ///
    /// # Errors
    ///
    /// Only [fatal](LedgerError::is_fatal) ones.
    pub fn disk_bytes(&self) -> Result<u64, LedgerError> {
        self.shared.engine.call(|db| db.size_on_disk())
    }

    fn scan(
        &self,
        group: u64,
        after: Cursor,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Scan, LedgerError> {
        let record = self.kept(group)?;
        let Coverage { from, to } = record.coverage;
        if after < Cursor::after_index(from - 1) {
            return Err(LedgerError::TooOld {
                group,
                complete_from: from,
            });
        }
        if after.index > to {
            return Ok(Scan::Page(Page {
                entries: Vec::new(),
                next: after,
            }));
        }
        scan(
            &self.shared.engine,
            group,
            &record,
            after,
            entries_max,
            bytes_max,
        )
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        // It guards no data, so a writer that panicked leaves nothing half done in it.
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, group: u64) -> Option<Group> {
        read(&self.shared.groups).get(&group).copied()
    }

    fn durable_to(&self, group: u64) -> Option<u64> {
        self.group(group)?.durable_to
    }

    fn kept(&self, group: u64) -> Result<Record, LedgerError> {
        match self.group(group) {
            Some(Group { record, .. }) if record.phase == Phase::Kept => Ok(record),
            _ => Err(LedgerError::UnknownGroup { group }),
        }
    }

    fn put_record(
        &self,
        group: u64,
        record: Record,
        durable_to: Option<u64>,
    ) -> Result<(), LedgerError> {
        let value = record.encode(group);
        self.shared
            .engine
            .call(|db| db.insert(coverage_key(group), value))?;
        write(&self.shared.groups).insert(group, Group { record, durable_to });
        Ok(())
    }

    fn apply(&self, step: Step) -> Result<(), LedgerError> {
        let Step {
            mut batch, records, ..
        } = step;
        if records.is_empty() {
            return Ok(());
        }
        for (&group, record) in &records {
            batch.insert(&coverage_key(group), record.encode(group));
        }
        self.shared.engine.call(|db| db.apply_batch(batch))?;
        let mut groups = write(&self.shared.groups);
        for (group, record) in records {
            if let Some(known) = groups.get_mut(&group) {
                known.record = record;
            }
        }
        Ok(())
    }

    /// Deletes some of a group's values that begin before an index. With `keeps_last` the last of
    /// them stays, since it may hold entries of later indices, and the chain begins with it.
    fn delete_values(
        &self,
        group: u64,
        before_index: u64,
        keeps_last: bool,
    ) -> Result<bool, LedgerError> {
        let keys = entries_key(group, Position::START)
            ..entries_key(group, Position::first_of(before_index));
        self.shared.engine.call(|db| {
            let mut found = Vec::with_capacity(STEP_DELETES_MAX + 1);
            for key in db.range(keys).keys().take(STEP_DELETES_MAX + 1) {
                found.push(key?);
            }
            let more = found.len() > STEP_DELETES_MAX;
            if more || keeps_last {
                found.pop();
            }
            if !found.is_empty() {
                let mut batch = sled::Batch::default();
                for key in found {
                    batch.remove(key);
                }
                db.apply_batch(batch)?;
            }
            Ok(more)
        })
    }
}

/// A part of an append, written at once.
#[derive(Debug, Default)]
struct Step {
    batch: sled::Batch,
    records: HashMap<u64, Record>,
    bytes: usize,
}

impl Step {
    fn put(&mut self, group: u64, record: Record, values: Vec<PackedValue>) {
        for (key, value) in values {
            self.batch.insert(&key, value);
        }
        self.records.insert(group, record);
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
