//! The log as raft sees it: recent entries in memory, older ones on disk through a reader.

use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use thiserror::Error;

use crate::point::{Configuration, Point};

#[cfg(test)]
mod contract;

/// Entries kept in memory for followers and for applying; older ones are read from disk. A follower
/// that is a second behind at full load still finds its entries here.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Ticks for which a snapshot is wanted after somebody asked for it last: one second. Whoever needs
/// one and can be sent it asks again with each heartbeat that it answers, every two ticks.
const WANTED_TICKS: usize = 20;

/// Reads entries back from the disk.
pub trait EntryReader: Send {
    /// Appends the stored bytes of entries `low..high` to `out`: as many as fit into `bytes_max`,
    /// but at least one.
    fn read(
        &self,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError>;
}

/// The log could not be read.
#[derive(Debug, Error)]
#[error("cannot read the log: {message}")]
pub struct ReadError {
    /// What the disk said.
    pub message: String,
}

pub(crate) struct LogView {
    /// The log holds the entries after this one.
    origin: Point,
    /// The members where the state machine was brought back.
    restored: Configuration,
    /// A snapshot that could be sent.
    offered: Option<Point>,
    /// Somebody needs a snapshot that is not there.
    wanted: Cell<Option<Wanted>>,
    /// Why a part of the log could not be read, until somebody asks.
    unread: Cell<Option<String>>,
    hard_state: HardState,
    last_index: u64,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    cache_bytes_max: usize,
    reader: Box<dyn EntryReader>,
}

/// A snapshot that somebody asked for and that is not there.
#[derive(Clone, Copy)]
struct Wanted {
    /// Of this index at least.
    index_min: u64,
    /// With this replica a member.
    replica: u64,
    /// For so long, unless it is asked for again.
    ticks_left: usize,
}

impl Wanted {
    fn fits(&self, point: &Point) -> bool {
        point.index >= self.index_min && point.configuration.contains(self.replica)
    }
}

impl LogView {
    pub(crate) fn new(
        origin: Point,
        restored: Configuration,
        hard_state: HardState,
        last_index: u64,
        reader: Box<dyn EntryReader>,
    ) -> Self {
        Self {
            origin,
            restored,
            offered: None,
            wanted: Cell::new(None),
            unread: Cell::new(None),
            hard_state,
            last_index,
            recent: VecDeque::new(),
            recent_bytes: 0,
            cache_bytes_max: CACHE_BYTES_MAX,
            reader,
        }
    }

    /// The entries up to this point are about to be dropped from the disk.
    pub(crate) fn begin_at(&mut self, origin: Point) {
        while self
            .recent
            .front()
            .is_some_and(|entry| entry.index <= origin.index)
        {
            if let Some(entry) = self.recent.pop_front() {
                self.recent_bytes -= entry.data.len();
            }
        }
        self.origin = origin;
    }

    /// The whole log is about to be replaced by a snapshot.
    pub(crate) fn install(&mut self, point: Point) {
        self.recent.clear();
        self.recent_bytes = 0;
        self.last_index = point.index;
        self.origin = point;
        self.offered = None;
    }

    pub(crate) fn origin(&self) -> &Point {
        &self.origin
    }

    /// A snapshot that could be sent from now on.
    pub(crate) fn offer(&mut self, point: Point) {
        self.wanted.get_mut().take_if(|wanted| wanted.fits(&point));
        self.offered = Some(point);
    }

    /// A tick has passed. What nobody asks for any more is wanted no more: a learner may be taken
    /// out before a state is written down that has it as a member, and then none that fits would
    /// ever come.
    pub(crate) fn tick(&mut self) {
        if let Some(wanted) = self.wanted.get_mut() {
            wanted.ticks_left = wanted.ticks_left.saturating_sub(1);
        }
        self.wanted
            .get_mut()
            .take_if(|wanted| wanted.ticks_left == 0);
    }

    pub(crate) fn wants_snapshot(&self) -> bool {
        self.wanted.get().is_some()
    }

    /// Takes entries that are being written. They replace whatever conflicts.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        while self
            .recent
            .back()
            .is_some_and(|entry| entry.index >= first.index)
        {
            if let Some(entry) = self.recent.pop_back() {
                self.recent_bytes -= entry.data.len();
            }
        }
        for entry in entries {
            self.recent_bytes += entry.data.len();
            self.last_index = entry.index;
            self.recent.push_back(entry.clone());
        }
        while self.recent_bytes > self.cache_bytes_max && self.recent.len() > 1 {
            if let Some(entry) = self.recent.pop_front() {
                self.recent_bytes -= entry.data.len();
            }
        }
    }

    fn first_recent(&self) -> u64 {
        self.recent
            .front()
            .map_or(self.last_index + 1, |entry| entry.index)
    }

    fn read_entries(&self, low: u64, high: u64, bytes_max: u64) -> raft::Result<Vec<Entry>> {
        let mut stored = Vec::new();
        let read = self.reader.read(low, high, bytes_max, &mut stored);
        let entries = match read {
            Ok(()) if stored.is_empty() => Err("they are not there".to_owned()),
            Ok(()) => {
                let parsed: Result<Vec<Entry>, _> = stored.iter().map(parse_shared).collect();
                parsed.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        entries.map_err(|why| {
            let last = high - 1;
            let unread = format!("entries {low} to {last} of its log cannot be read: {why}");
            // raft panics for it, whatever it is told.
            self.unread.set(Some(unread.clone()));
            StorageError::Other(unread.into()).into()
        })
    }

    /// Why a part of the log could not be read, if so.
    pub(crate) fn unread(&self) -> Option<String> {
        self.unread.take()
    }
}

/// What an entry counts for where an answer is limited: its bytes as it is sent and stored.
fn entry_bytes(entry: &Entry) -> u64 {
    u64::from(entry.compute_size())
}

/// Parses a message whose byte fields share `bytes` instead of copying them.
pub(crate) fn parse_shared<M: protobuf::Message>(bytes: &Bytes) -> protobuf::ProtobufResult<M> {
    let mut message = M::new();
    let mut stream = protobuf::CodedInputStream::from_carllerche_bytes(bytes);
    message.merge_from(&mut stream)?;
    Ok(message)
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.restored.to_raft(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.origin.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last_index + 1 {
            return Err(StorageError::Unavailable.into());
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let first_recent = self.first_recent();
        let mut entries = match low < first_recent {
            true => self.read_entries(low, high.min(first_recent), bytes_max)?,
            false => Vec::new(),
        };
        // raft takes an answer that is shorter than the range for the size limit's doing: it must
        // not be short for any other reason, such as a range that runs from the disk into memory.
        let next = low + entries.len() as u64;
        if next >= first_recent && next < high {
            let range = (next - first_recent) as usize..(high - first_recent) as usize;
            let mut bytes: u64 = entries.iter().map(entry_bytes).sum();
            for entry in self.recent.range(range) {
                bytes += entry_bytes(entry);
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.origin.index {
            return Ok(self.origin.term);
        }
        if index < self.origin.index {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last_index {
            return Err(StorageError::Unavailable.into());
        }
        let first_recent = self.first_recent();
        if index >= first_recent {
            return Ok(self.recent[(index - first_recent) as usize].term);
        }
        Ok(self.read_entries(index, index + 1, 0)?[0].term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.origin.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// The state itself travels on its own: this is only the envelope. A replica takes no snapshot
    /// in which it is no member, so a new one needs a snapshot from after it was added.
    fn snapshot(&self, index_min: u64, to: u64) -> raft::Result<Snapshot> {
        let wanted = Wanted {
            index_min: index_min.max(self.origin.index),
            replica: to,
            ticks_left: WANTED_TICKS,
        };
        let offered = self.offered.as_ref();
        let Some(point) = offered.filter(|point| wanted.fits(point)) else {
            self.wanted.set(Some(wanted));
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = point.index;
        metadata.term = point.term;
        metadata.set_conf_state(point.configuration.to_raft());
        Ok(snapshot)
    }
}
