//! Receiving a checkpoint file in chunks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BLOCK_BYTES, BLOCK_HEAD_BYTES, HEADER_BYTES, block_offset, header};
use super::reader::{CheckpointReader, read_block};
use super::store::{CheckpointStore, Turn, io, stem};
use super::{CheckpointError, CheckpointInfo, CheckpointMeta};
use crate::volume::{self, Access, VolumeFile};

/// A checkpoint file that is being received.
///
/// It is dropped when the sender goes away, and what came stays for the next try. After
/// [`finish`](Incoming::finish) it lies whole in the store, but apart from the own ones.
pub struct Incoming {
    store: CheckpointStore,
    file: Arc<dyn VolumeFile>,
    /// While it is received, and once it is whole.
    partial: PathBuf,
    path: PathBuf,
    meta: CheckpointMeta,
    /// As announced.
    bytes: u64,
    hash: u128,
    have: u64,
    _turn: Turn,
}

impl Incoming {
    pub(super) fn open(
        store: &CheckpointStore,
        meta: CheckpointMeta,
        bytes: u64,
        hash: u128,
        turn: Turn,
    ) -> Result<Incoming, CheckpointError> {
        let dir = store.incoming_dir();
        let stem = stem(&meta);
        // The name is the identity: what lies under another one is of no use here.
        let partial = dir.join(format!("{stem}-{bytes}-{hash:032x}.partial"));
        let volume = store.volume();
        store.delete_incoming_but(meta.group, Some(&partial))?;
        let file = volume
            .open(&partial, Access::Create)
            .map_err(io("create", &partial))?;
        let have = whole_blocks(&*file, bytes).map_err(io("read", &partial))?;
        file.set_len(have).map_err(io("truncate", &partial))?;
        Ok(Incoming {
            path: dir.join(format!("{stem}.checkpoint")),
            store: store.clone(),
            file,
            partial,
            meta,
            bytes,
            hash,
            have,
            _turn: turn,
        })
    }

    /// Bytes that are there; the next chunk begins here.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Takes the bytes of the file from `offset` on. What is there already is passed over.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Gap`] if something is missing before; [`CheckpointError::Length`] if it
    /// is more than was announced; [`CheckpointError::Io`]. Nothing of the chunk was taken then.
    pub fn chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        if offset > self.have {
            return Err(CheckpointError::Gap {
                offset,
                have: self.have,
            });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.bytes {
            return Err(CheckpointError::Length {
                have: end,
                bytes: self.bytes,
            });
        }
        if end <= self.have {
            return Ok(());
        }
        let new = &bytes[(self.have - offset) as usize..];
        volume::write_all_at(&*self.file, new, self.have).map_err(io("write", &self.partial))?;
        self.have = end;
        Ok(())
    }

    /// Checks every byte, makes the file durable and gives it its name. An older one received for
    /// the same group is deleted.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Length`] if it has not all come yet; what came stays.
    /// [`CheckpointError::Damaged`] or [`CheckpointError::Other`] if it is not what was announced,
    /// and [`CheckpointError::Io`]: what came is deleted, and receiving begins anew.
    pub fn finish(self) -> Result<CheckpointInfo, CheckpointError> {
        if self.have != self.bytes {
            return Err(CheckpointError::Length {
                have: self.have,
                bytes: self.bytes,
            });
        }
        let finished = self
            .check()
            .and_then(|()| self.file.sync().map_err(io("sync", &self.partial)))
            .and_then(|()| self.store.publish(&self.partial, &self.path));
        if let Err(error) = finished {
            // What cannot be deleted now is found wanting, or deleted, at the next try.
            drop(self.store.volume().delete(&self.partial));
            return Err(error);
        }
        let info = CheckpointInfo {
            meta: self.meta.clone(),
            path: self.path.clone(),
            bytes: self.bytes,
            hash: self.hash,
        };
        self.store.add_incoming(&info);
        Ok(info)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let mut reader = CheckpointReader::open(Arc::clone(&self.file), &self.partial)?;
        let manifest = reader.manifest();
        if manifest.meta != self.meta || manifest.hash() != self.hash {
            return Err(CheckpointError::Other {
                file: self.partial.clone(),
            });
        }
        let mut section = Vec::new();
        while reader.next_section(&mut section)? {}
        Ok(())
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("path", &self.partial)
            .field("have", &self.have)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// How much of a file can be relied on: after a crash a length may be there without the bytes. Only
/// whole blocks count, and what comes behind them is received again.
fn whole_blocks(file: &dyn VolumeFile, bytes: u64) -> std::io::Result<u64> {
    let len = file.len()?.min(bytes);
    let mut head = [0; HEADER_BYTES as usize];
    if len < HEADER_BYTES {
        return Ok(0);
    }
    volume::read_exact_at(file, &mut head, 0)?;
    if head != header()[..] {
        return Ok(0);
    }
    let blocks = (len - HEADER_BYTES) / (BLOCK_HEAD_BYTES + BLOCK_BYTES) as u64;
    let mut block = Vec::new();
    for number in 0..blocks {
        if !read_block(file, number, BLOCK_BYTES, &mut block)? {
            return Ok(block_offset(number));
        }
    }
    Ok(block_offset(blocks))
}

/// Takes out of `partials` the one of each group that may be resumed; the others are of no more
/// use.
pub(super) fn retain_one_of_each_group(partials: &mut Vec<PathBuf>) {
    let group = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        Some(name.split_once('-')?.0.to_owned())
    };
    // In the order of their names, so the last of a group has the highest index.
    let mut rest = Vec::new();
    for (at, path) in partials.iter().enumerate() {
        let next = partials.get(at + 1).and_then(|next| group(next));
        if group(path).is_none() || group(path) == next {
            rest.push(path.clone());
        }
    }
    *partials = rest;
}
