//! What one turn of the loop writes.

use raft_engine::LogBatch;

use super::entry::{StoredEntries, StoredEntry};
use super::{NODE_GROUP, RECORD_NODE, RECORD_ORIGIN, RECORD_STATE};

/// The most that one batch may carry, in bytes of entries. A turn of the loop stays far below; the
/// engine itself would take 2 GiB and keep them in memory.
pub(super) const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Larger buffers are given back after use, so that one large entry does not stay in memory for ever.
const KEPT_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// As many buffers for entries are kept for the next batch.
const KEPT_ENTRIES_MAX: usize = 1024;

/// Whether a [`Log::write`](super::Log::write) waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the write returns, it and everything written before it are on the disk (one `fdatasync`).
    Sync,
    /// The write is handed to the operating system. It survives a crash of the process, but not of the
    /// machine; the next synced write makes it durable too.
    Lazy,
}

/// Everything that one turn of the loop has to write, over all groups; written whole or not at all.
///
/// Made once and used again: after a [`Log::write`](super::Log::write) it is empty and keeps its buffers.
/// Calls take effect in their order. Nothing here fails; what cannot be written is refused by the write.
#[derive(Default)]
pub struct WriteBatch {
    pub(super) engine: LogBatch,
    /// The appends, in their order, to be held against what the log has.
    pub(super) appends: Vec<Append>,
    /// Bytes of the entries as they lie in the file.
    pub(super) bytes: u64,
    /// Entries on their way into `engine`, which wants a slice of its own kind of message. Kept for
    /// their buffers.
    entries: Vec<StoredEntry>,
}

/// Entries `first` to `last` of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) group: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Appends `entries` to the log of `group`, the first at `first_index` and each of the others one
    /// further. Entries that the log has from `first_index` on are overwritten, also those beyond the
    /// new end. The first entries of a group may begin anywhere; after that, `first_index` may be
    /// neither below the group's first entry nor beyond its last + 1.
    ///
    /// Each entry is copied twice, into a reused buffer and from there into the batch, and allocates
    /// nothing once the buffers have grown.
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
        let mut len = 0;
        for (entry, index) in entries.into_iter().zip(first_index..) {
            if self.entries.len() == len {
                self.entries.push(StoredEntry::default());
            }
            let stored = &mut self.entries[len];
            stored.index = index;
            stored.payload.clear();
            stored.payload.extend_from_slice(entry.as_ref());
            self.bytes = self.bytes.saturating_add(stored.encoded_len());
            len += 1;
        }
        if len == 0 {
            return;
        }
        let last = first_index + (len as u64 - 1);
        self.appends.push(Append {
            group,
            first: first_index,
            last,
        });
        // A batch past its limit is going to be refused; it need not grow any further.
        if self.bytes <= BATCH_BYTES_MAX {
            self.engine
                .add_entries::<StoredEntries>(group, &self.entries[..len])
                .expect(
                    "writing to memory fails only past 2 GiB, which is beyond the limit of a batch",
                );
        }
        self.entries.truncate(KEPT_ENTRIES_MAX);
        for entry in &mut self.entries {
            if entry.payload.capacity() > KEPT_PAYLOAD_BYTES_MAX {
                entry.payload = Vec::new();
            }
        }
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

    /// Replaces the identity of this node.
    pub fn put_node_record(&mut self, bytes: &[u8]) {
        self.put(NODE_GROUP, RECORD_NODE, bytes);
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.engine.is_empty() && self.appends.is_empty()
    }

    /// Forgets everything in the batch. Only needed after a write was refused.
    pub fn clear(&mut self) {
        // The engine has no way to empty a batch other than writing it.
        self.engine = LogBatch::default();
        self.written();
    }

    /// Makes the batch ready for the next turn, the engine's part being empty already.
    pub(super) fn written(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }

    /// The engine keeps records in memory and wants to own key and value: two small allocations each.
    fn put(&mut self, group: u64, record: &[u8], bytes: &[u8]) {
        self.engine
            .put(group, record.to_vec(), bytes.to_vec())
            .expect("only keys that begin with two underscores are refused");
    }
}

fn check_group(group: u64) {
    assert_ne!(
        group, NODE_GROUP,
        "group {NODE_GROUP} is reserved for the node's own records"
    );
}
