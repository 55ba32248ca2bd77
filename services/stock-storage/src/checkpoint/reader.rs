//! Reading a checkpoint file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::format::{
    BLOCK_BYTES, BLOCK_HEAD_BYTES, Manifest, SECTION_BYTES_MAX, block_head, block_offset,
};
use super::{CheckpointError, CheckpointMeta};
use crate::volume::{self, VolumeFile};

/// Reads the sections of a checkpoint in order. No byte is handed out before its checksum was
/// right, and never more is kept in memory than the file has.
pub struct CheckpointReader {
    file: Arc<dyn VolumeFile>,
    path: PathBuf,
    manifest: Manifest,
    /// Sections handed out.
    sections_read: u64,
    /// The block being read, and how much of it was handed out.
    block: Vec<u8>,
    block_read: usize,
    blocks_read: u64,
    hasher: Box<Xxh3>,
}

impl CheckpointReader {
    pub(super) fn open(file: Arc<dyn VolumeFile>, path: &Path) -> Result<Self, CheckpointError> {
        let len = file.len().map_err(|source| CheckpointError::Io {
            action: "measure",
            path: path.to_path_buf(),
            source,
        })?;
        Ok(CheckpointReader {
            manifest: Manifest::read(&*file, path, len)?,
            file,
            path: path.to_path_buf(),
            sections_read: 0,
            block: Vec::new(),
            block_read: 0,
            blocks_read: 0,
            hasher: Box::default(),
        })
    }

    /// What the checkpoint is of.
    #[must_use]
    pub fn meta(&self) -> &CheckpointMeta {
        &self.manifest.meta
    }

    /// How many sections it has.
    #[must_use]
    pub fn sections(&self) -> u64 {
        self.manifest.sections
    }

    /// Replaces what `out` holds by the next section; `false`, and nothing in `out`, after the last
    /// one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] or [`CheckpointError::Io`]. Nothing more can be read then, and
    /// what was read before, though each byte is as it was written, must not be used as a whole.
    pub fn next_section(&mut self, out: &mut Vec<u8>) -> Result<bool, CheckpointError> {
        out.clear();
        if self.sections_read == self.manifest.sections {
            // Also for a checkpoint without sections.
            self.check_whole()?;
            return Ok(false);
        }
        let mut len = Vec::with_capacity(4);
        self.take(4, &mut len)?;
        let len =
            <[u8; 4]>::try_from(&len[..]).map_err(|_| self.damaged("a section ends too early"))?;
        let len = u64::from(u32::from_le_bytes(len));
        if len > SECTION_BYTES_MAX {
            return Err(self.damaged("a section is too large"));
        }
        if let Err(error) = self.take(len as usize, out) {
            out.clear();
            return Err(error);
        }
        self.sections_read += 1;
        if self.sections_read == self.manifest.sections
            && let Err(error) = self.check_whole()
        {
            out.clear();
            return Err(error);
        }
        Ok(true)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Adds `len` bytes to `out`. It grows block by block, so it is never larger than the file.
    fn take(&mut self, mut len: usize, out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        while len > 0 {
            if self.block_read == self.block.len() {
                self.next_block()?;
            }
            let taken = len.min(self.block.len() - self.block_read);
            out.extend_from_slice(&self.block[self.block_read..self.block_read + taken]);
            self.block_read += taken;
            len -= taken;
        }
        Ok(())
    }

    fn next_block(&mut self) -> Result<(), CheckpointError> {
        let number = self.blocks_read;
        if number == self.manifest.blocks() {
            return Err(self.damaged("the sections are longer than the blocks"));
        }
        let rest = self.manifest.content_bytes - number * BLOCK_BYTES as u64;
        let len = rest.min(BLOCK_BYTES as u64) as usize;
        self.block.clear();
        self.block_read = 0;
        let is_right = read_block(&*self.file, number, len, &mut self.block);
        let is_right = is_right.map_err(|source| CheckpointError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        if !is_right {
            self.block.clear();
            return Err(self.damaged("a block is not as it was written"));
        }
        self.blocks_read += 1;
        self.hasher.update(&self.block);
        Ok(())
    }

    fn check_whole(&self) -> Result<(), CheckpointError> {
        let is_read =
            self.blocks_read == self.manifest.blocks() && self.block_read == self.block.len();
        if !is_read {
            return Err(self.damaged("the sections are shorter than the blocks"));
        }
        if self.hasher.digest128() != self.manifest.content_hash {
            return Err(self.damaged("the blocks are not those of the manifest"));
        }
        Ok(())
    }

    /// Names the block being read.
    fn damaged(&self, reason: &'static str) -> CheckpointError {
        CheckpointError::Damaged {
            file: self.path.clone(),
            offset: block_offset(self.blocks_read),
            reason,
        }
    }
}

/// Reads block `number`, of `len` bytes, into `block`; `false` if it is not what was written.
pub(super) fn read_block(
    file: &dyn VolumeFile,
    number: u64,
    len: usize,
    block: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut head = [0; BLOCK_HEAD_BYTES];
    let offset = block_offset(number);
    volume::read_exact_at(file, &mut head, offset)?;
    block.resize(len, 0);
    volume::read_exact_at(file, block, offset + BLOCK_HEAD_BYTES as u64)?;
    Ok(head == block_head(number, block))
}

impl std::fmt::Debug for CheckpointReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointReader")
            .field("path", &self.path)
            .field("manifest", &self.manifest)
            .field("sections_read", &self.sections_read)
            .finish_non_exhaustive()
    }
}
