//! What one turn of the loop writes.

use std::ops::Range;

use super::entry::StoredEntry;
use super::{
    NODE_GROUP, RECORD_ACQUAINTANCES, RECORD_NODE, RECORD_ORIGIN, RECORD_REPLICA, RECORD_STATE,
};

/// The most that one batch of the log may carry, in bytes of entries and records. Whoever makes
/// batches stays below; the engine itself would take 2 GiB and keep them in memory.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Larger buffers are given back after use, so that one large entry does not stay in memory for
/// ever.
const KEPT_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// As many buffers for entries are kept for the next batch.
const KEPT_ENTRIES_MAX: usize = 1024;

/// Whether a [`Log::write`](super::Log::write) waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the write returns, it and everything written before it are on the disk (one
    /// `fdatasync`).
    Sync,
    /// The write is handed to the operating system. It survives a crash of the process, but not of
    /// the machine; the next synced write makes it durable too.
    Lazy,
}

/// Everything that one turn of the loop has to write, over all groups; written whole or not at all.
///
/// Made once and used again: after a [`Log::write`](super::Log::write) it is empty and keeps its
/// buffers. Calls take effect in their order, where a group's entries and its records are
/// independent of each other. Nothing here fails; what cannot be written is refused by the write.
#[derive(Default)]
pub struct WriteBatch {
    /// What happens to entries, in order.
    pub(super) steps: Vec<Step>,
    /// What happens to records, in order.
    pub(super) puts: Vec<Put>,
    /// Bytes of entries and records as they lie in the file.
    pub(super) bytes: u64,
    /// The entries of all appends, of which the first `entries_len` are in use. The rest is kept
    /// for its buffers.
    entries: Vec<StoredEntry>,
    entries_len: usize,
    /// The bytes of all records.
    record_bytes: Vec<u8>,
}

/// What happens to the entries of a group.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Entries that follow each other, the first with this index.
    Append {
        group: u64,
        first: u64,
        entries: Range<usize>,
    },
    /// Those before this index go.
    Truncate { group: u64, index: u64 },
    /// All go, and with `forget` origin and state as well.
    Reset { group: u64, forget: bool },
}

/// A record that is replaced.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) group: u64,
    pub(super) record: &'static [u8],
    bytes: Range<usize>,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Appends `entries` to the log of `group`, the first at `first_index` and each of the others
    /// one further. Entries that the log has from `first_index` on are overwritten, also those
    /// beyond the new end. The first entries of a group, or the first after a
    /// [`reset`](WriteBatch::reset), may begin anywhere; after that, `first_index` may be neither
    /// below the group's first entry nor beyond its last + 1.
    ///
    /// Each entry is copied twice, into a reused buffer and from there into what is written, and
    /// allocates nothing once the buffers have grown.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn append<E: AsRef<[u8]>>(
        &mut self,
        group: u64,
        first_index: u64,
        entries: impl IntoIterator<Item = E>,
    ) {
        check_group(group);
        let begin = self.entries_len;
        for (entry, index) in entries.into_iter().zip(first_index..) {
            if self.entries.len() == self.entries_len {
                self.entries.push(StoredEntry::default());
            }
            let stored = &mut self.entries[self.entries_len];
            stored.index = index;
            stored.payload.clear();
            stored.payload.extend_from_slice(entry.as_ref());
            self.bytes = self.bytes.saturating_add(stored.encoded_len());
            // A batch past its limit is going to be refused; it need not grow any further.
            if self.bytes <= BATCH_BYTES_MAX {
                self.entries_len += 1;
            }
        }
        if self.entries_len > begin {
            self.steps.push(Step::Append {
                group,
                first: first_index,
                entries: begin..self.entries_len,
            });
        }
    }

    /// Drops the entries of `group` before `index`; beyond the last one, all of them. Space comes
    /// back with the next [`purge`](super::Purger::purge).
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn truncate_before(&mut self, group: u64, index: u64) {
        check_group(group);
        self.steps.push(Step::Truncate { group, index });
    }

    /// Drops all entries of `group`, so that its log may begin again anywhere. Its records stay.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn reset(&mut self, group: u64) {
        check_group(group);
        self.steps.push(Step::Reset {
            group,
            forget: false,
        });
    }

    /// Drops all entries of `group`, its state and its origin. Its replica record stays; if it has
    /// none, nothing of the group does.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn forget(&mut self, group: u64) {
        check_group(group);
        self.puts
            .retain(|put| put.group != group || put.record == RECORD_REPLICA);
        self.steps.push(Step::Reset {
            group,
            forget: true,
        });
    }

    /// Replaces the hard state of `group`.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn put_state(&mut self, group: u64, bytes: &[u8]) {
        check_group(group);
        self.put(group, RECORD_STATE, bytes);
    }

    /// Replaces the origin of `group`: where its log begins, and who its members were then.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn put_origin(&mut self, group: u64, bytes: &[u8]) {
        check_group(group);
        self.put(group, RECORD_ORIGIN, bytes);
    }

    /// Replaces the replica record of `group`: who this node is, or was, in it.
    ///
    /// # Panics
    ///
    /// If `group` is `u64::MAX`, which is reserved.
    pub fn put_replica(&mut self, group: u64, bytes: &[u8]) {
        check_group(group);
        self.put(group, RECORD_REPLICA, bytes);
    }

    /// Replaces the identity of this node.
    pub fn put_node_record(&mut self, bytes: &[u8]) {
        self.put(NODE_GROUP, RECORD_NODE, bytes);
    }

    /// Replaces what this node remembers of others.
    pub fn put_acquaintances(&mut self, bytes: &[u8]) {
        self.put(NODE_GROUP, RECORD_ACQUAINTANCES, bytes);
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // An append past the limit leaves no step, but must not pass for nothing.
        self.steps.is_empty() && self.puts.is_empty() && self.bytes == 0
    }

    /// Whether only what this node remembers of others is written.
    #[must_use]
    pub fn is_memory_only(&self) -> bool {
        let is_memory = |put: &Put| put.group == NODE_GROUP && put.record == RECORD_ACQUAINTANCES;
        self.steps.is_empty() && self.puts.iter().all(is_memory)
    }

    /// Forgets everything in the batch. Only needed after a write was refused.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.puts.clear();
        self.bytes = 0;
        self.entries.truncate(KEPT_ENTRIES_MAX);
        let used = self.entries_len.min(self.entries.len());
        for entry in &mut self.entries[..used] {
            if entry.payload.capacity() > KEPT_PAYLOAD_BYTES_MAX {
                entry.payload = Vec::new();
            }
        }
        self.entries_len = 0;
        self.record_bytes.clear();
        self.record_bytes.shrink_to(KEPT_PAYLOAD_BYTES_MAX);
    }

    /// The entries of an append.
    pub(super) fn entries(&self, range: &Range<usize>) -> &[StoredEntry] {
        &self.entries[range.clone()]
    }

    /// The bytes of a record.
    pub(super) fn record_bytes(&self, put: &Put) -> &[u8] {
        &self.record_bytes[put.bytes.clone()]
    }

    fn put(&mut self, group: u64, record: &'static [u8], bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes <= BATCH_BYTES_MAX {
            let begin = self.record_bytes.len();
            self.record_bytes.extend_from_slice(bytes);
            self.puts.push(Put {
                group,
                record,
                bytes: begin..self.record_bytes.len(),
            });
        }
    }
}

fn check_group(group: u64) {
    assert_ne!(
        group, NODE_GROUP,
        "group {NODE_GROUP} is reserved for the node's own records"
    );
}
