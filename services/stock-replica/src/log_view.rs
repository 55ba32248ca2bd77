//! The log as raft sees it: recent entries in memory, older ones on disk through a reader.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use thiserror::Error;

use crate::origin::Origin;

/// Entries kept in memory for followers and for applying; older ones are read from disk. A follower
/// that is a second behind at full load still finds its entries here.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Reads entries back from the disk.
pub trait EntryReader: Send {
    /// Appends the stored bytes of entries `low..high` to `out`: as many as fit into `bytes_max`, but
    /// at least one.
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
    origin: Origin,
    hard_state: HardState,
    last_index: u64,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    reader: Box<dyn EntryReader>,
}

impl LogView {
    pub(crate) fn new(
        origin: Origin,
        hard_state: HardState,
        last_index: u64,
        reader: Box<dyn EntryReader>,
    ) -> Self {
        Self {
            origin,
            hard_state,
            last_index,
            recent: VecDeque::new(),
            recent_bytes: 0,
            reader,
        }
    }

    pub(crate) fn voters(&self) -> &[u64] {
        &self.origin.voters
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
        while self.recent_bytes > CACHE_BYTES_MAX && self.recent.len() > 1 {
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
        self.reader
            .read(low, high, bytes_max, &mut stored)
            .map_err(|error| StorageError::Other(Box::new(error)))?;
        if stored.is_empty() {
            return Err(StorageError::Unavailable.into());
        }
        stored
            .iter()
            .map(|bytes| {
                parse_shared(bytes).map_err(|error| StorageError::Other(Box::new(error)).into())
            })
            .collect()
    }
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
        let voters = ConfState::from((self.origin.voters.clone(), vec![]));
        Ok(RaftState::new(self.hard_state.clone(), voters))
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
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let first_recent = self.first_recent();
        if low < first_recent {
            return self.read_entries(low, high.min(first_recent), bytes_max);
        }
        let start = (low - first_recent) as usize;
        let end = (high - first_recent) as usize;
        let mut entries: Vec<Entry> = self.recent.range(start..end).cloned().collect();
        raft::util::limit_size(&mut entries, Some(bytes_max));
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

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        // The log is never truncated, so no follower is ever too far behind for it.
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
