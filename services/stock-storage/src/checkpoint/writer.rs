//! Writing a checkpoint file.

use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::format::{
    BLOCK_BYTES, BLOCK_HEAD_BYTES, Manifest, SECTION_BYTES_MAX, block_head, block_offset, header,
};
use super::store::{CheckpointStore, Turn, io};
use super::{CheckpointError, CheckpointInfo, CheckpointMeta};
use crate::volume::{self, Access, VolumeFile};

/// What is written is made durable bit by bit, each time it is so many blocks: a mebibyte. Left to
/// the end, all of it goes to the disk at once, and a write of the log waits behind it: with three
/// files of 60 MB for 23 to 39 ms at worst, and so for 4 to 5, while a file takes as long to write
/// as before.
const BLOCKS_BETWEEN_SYNCS: u64 = 4;

/// Writes one checkpoint, front to back. Only [`finish`](CheckpointWriter::finish) makes it one; a
/// writer that is dropped before deletes what it wrote.
pub struct CheckpointWriter {
    store: CheckpointStore,
    file: Arc<dyn VolumeFile>,
    /// While it is written, and once it is whole.
    partial: PathBuf,
    path: PathBuf,
    manifest: Manifest,
    /// The block being filled, behind room for its head.
    block: Vec<u8>,
    blocks: u64,
    hasher: Box<Xxh3>,
    /// Something could not be written or synced.
    is_broken: bool,
    is_finished: bool,
    _turn: Turn,
}

impl CheckpointWriter {
    pub(super) fn create(
        store: &CheckpointStore,
        meta: CheckpointMeta,
        turn: Turn,
    ) -> Result<CheckpointWriter, CheckpointError> {
        let path = store.path(&meta);
        let partial = path.with_extension("partial");
        let file = store
            .volume()
            .open(&partial, Access::Create)
            .map_err(io("create", &partial))?;
        let mut block = Vec::with_capacity(BLOCK_HEAD_BYTES + BLOCK_BYTES);
        block.resize(BLOCK_HEAD_BYTES, 0);
        let mut writer = CheckpointWriter {
            store: store.clone(),
            file,
            partial,
            path,
            manifest: Manifest {
                meta,
                sections: 0,
                content_bytes: 0,
                content_hash: 0,
            },
            block,
            blocks: 0,
            hasher: Box::default(),
            is_broken: false,
            is_finished: false,
            _turn: turn,
        };
        writer.write(0, &header())?;
        Ok(writer)
    }

    /// Adds a section, which may be empty.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::TooLarge`] if it has more than [`SECTION_BYTES_MAX`] bytes;
    /// [`CheckpointError::Io`] if it could not be written: the writer is of no more use then.
    pub fn section(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        if bytes.len() as u64 > SECTION_BYTES_MAX {
            return Err(CheckpointError::TooLarge {
                what: "section",
                bytes: bytes.len() as u64,
                bytes_max: SECTION_BYTES_MAX,
            });
        }
        self.content(&(bytes.len() as u32).to_le_bytes())?;
        self.content(bytes)?;
        self.manifest.sections += 1;
        Ok(())
    }

    /// Makes what was written a checkpoint: writes the rest, makes it durable, gives it its name,
    /// and makes that durable, in this order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; there is no checkpoint then.
    pub fn finish(mut self) -> Result<CheckpointInfo, CheckpointError> {
        if self.block.len() > BLOCK_HEAD_BYTES {
            self.write_block()?;
        }
        self.manifest.content_hash = self.hasher.digest128();
        let heads = self.blocks * BLOCK_HEAD_BYTES as u64;
        let offset = block_offset(0) + heads + self.manifest.content_bytes;
        let end = self.manifest.encode(offset);
        self.write(offset, &end)?;
        self.sync()?;
        self.store.publish(&self.partial, &self.path)?;
        self.is_finished = true;
        let info = CheckpointInfo {
            meta: self.manifest.meta.clone(),
            path: self.path.clone(),
            bytes: offset + end.len() as u64,
            hash: self.manifest.hash(),
        };
        self.store.add(info.clone());
        Ok(info)
    }

    fn content(&mut self, mut bytes: &[u8]) -> Result<(), CheckpointError> {
        while !bytes.is_empty() {
            let room = BLOCK_HEAD_BYTES + BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_HEAD_BYTES + BLOCK_BYTES {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), CheckpointError> {
        let (head, bytes) = self.block.split_at_mut(BLOCK_HEAD_BYTES);
        head.copy_from_slice(&block_head(self.blocks, bytes));
        self.hasher.update(bytes);
        self.manifest.content_bytes += bytes.len() as u64;
        let block = std::mem::take(&mut self.block);
        let result = self.write(block_offset(self.blocks), &block);
        self.block = block;
        self.block.truncate(BLOCK_HEAD_BYTES);
        self.blocks += 1;
        result?;
        match self.blocks.is_multiple_of(BLOCKS_BETWEEN_SYNCS) {
            true => self.sync(),
            false => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), CheckpointError> {
        let result = self.file.sync();
        self.is_broken = result.is_err();
        result.map_err(io("sync", &self.partial))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.is_broken {
            return Err(CheckpointError::Unfinished {
                file: self.partial.clone(),
            });
        }
        let result = volume::write_all_at(&*self.file, bytes, offset);
        self.is_broken = result.is_err();
        result.map_err(io("write", &self.partial))
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be deleted now is deleted before the next one is written.
            drop(self.store.volume().delete(&self.partial));
        }
    }
}

impl std::fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointWriter")
            .field("path", &self.path)
            .field("sections", &self.manifest.sections)
            .finish_non_exhaustive()
    }
}
