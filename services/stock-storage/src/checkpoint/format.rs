//! The bytes of a checkpoint file.
//!
//! ```text
//! header    magic, version, checksum
//! blocks    each: length, checksum, bytes. All but the last hold BLOCK_BYTES
//! manifest  what it is of, and how much
//! trailer   where the manifest is, its checksum, checksum of the trailer, magic
//! ```
//!
//! The bytes of all blocks together are the sections, each as its length (u32) and its bytes. All
//! numbers are little-endian, all checksums xxh3. A block's is seeded with its number, so that no
//! block passes for another. Every byte of a file is covered by a checksum.
//!
//! Nothing is compressed: what a checkpoint holds is written on a thread that shares its processor
//! with the loop, and read back as fast as the disk gives it. A later version may.

use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

use super::{CheckpointError, CheckpointMeta};
use crate::volume::{self, VolumeFile};

// On disk for ever: none of these changes.
const MAGIC: [u8; 8] = *b"stockchk";
const MAGIC_END: [u8; 8] = *b"stockend";
const VERSION: u32 = 1;

/// Bytes of sections in a block.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// The header, in bytes.
pub(super) const HEADER_BYTES: u64 = 24;
/// What comes before a block's bytes: length and checksum.
pub(super) const BLOCK_HEAD_BYTES: usize = 12;
const TRAILER_BYTES: usize = 40;
/// A manifest without its context.
const MANIFEST_BYTES_MIN: usize = 8 + 8 + 8 + 16 + 4 + 8 + 8 + 16;

/// The largest section, in bytes.
pub const SECTION_BYTES_MAX: u64 = 256 << 20;
/// The largest context, in bytes.
pub const CONTEXT_BYTES_MAX: u64 = 1 << 20;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) meta: CheckpointMeta,
    pub(super) sections: u64,
    /// Bytes in all blocks, without their heads.
    pub(super) content_bytes: u64,
    /// Over the bytes in all blocks.
    pub(super) content_hash: u128,
}

pub(super) fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// What comes before block `number`, which holds `bytes`.
pub(super) fn block_head(number: u64, bytes: &[u8]) -> [u8; BLOCK_HEAD_BYTES] {
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&xxh3_64_with_seed(bytes, number).to_le_bytes());
    head
}

/// Where block `number` begins.
pub(super) fn block_offset(number: u64) -> u64 {
    HEADER_BYTES + number * (BLOCK_HEAD_BYTES + BLOCK_BYTES) as u64
}

impl Manifest {
    /// Manifest and trailer, for a manifest at `offset`.
    pub(super) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut bytes = self.encode_alone();
        let len = bytes.len() as u64;
        let checksum = xxh3_64(&bytes);
        let trailer = bytes.len();
        bytes.extend(offset.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(xxh3_64(&bytes[trailer..]).to_le_bytes());
        bytes.extend(MAGIC_END);
        bytes
    }

    /// Tells this content from any other.
    pub(super) fn hash(&self) -> u128 {
        xxh3_128(&self.encode_alone())
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.content_bytes.div_ceil(BLOCK_BYTES as u64)
    }

    /// Reads header and manifest of a file of `len` bytes, and nothing else.
    pub(super) fn read(
        file: &dyn VolumeFile,
        path: &Path,
        len: u64,
    ) -> Result<Manifest, CheckpointError> {
        let damaged = |offset, reason| CheckpointError::Damaged {
            file: path.to_path_buf(),
            offset,
            reason,
        };
        let read = |buf: &mut [u8], offset| {
            volume::read_exact_at(file, buf, offset).map_err(|source| CheckpointError::Io {
                action: "read",
                path: path.to_path_buf(),
                source,
            })
        };
        let least = HEADER_BYTES + (MANIFEST_BYTES_MIN + TRAILER_BYTES) as u64;
        if len < least {
            return Err(damaged(len, "it ends too early"));
        }
        let mut head = [0; HEADER_BYTES as usize];
        read(&mut head, 0)?;
        let wanted = header();
        if head[..8] != MAGIC {
            return Err(damaged(0, "it is no checkpoint"));
        }
        if head[8..12] != wanted[8..12] {
            return Err(damaged(8, "it is of a version that is not known here"));
        }
        if head != wanted[..] {
            return Err(damaged(8, "the header is not as it was written"));
        }

        let at = len - TRAILER_BYTES as u64;
        let mut trailer = [0; TRAILER_BYTES];
        read(&mut trailer, at)?;
        let (fields, rest) = trailer.split_at(24);
        if rest[8..] != MAGIC_END || rest[..8] != xxh3_64(fields).to_le_bytes() {
            return Err(damaged(at, "the trailer is not as it was written"));
        }
        let mut fields = Fields(fields);
        let (Some(offset), Some(bytes), Some(checksum)) =
            (fields.u64(), fields.u64(), fields.u64())
        else {
            return Err(damaged(at, "the trailer ends too early"));
        };
        // Bounds what is read next, whatever the trailer says.
        if bytes > MANIFEST_BYTES_MIN as u64 + CONTEXT_BYTES_MAX
            || offset.checked_add(bytes) != Some(at)
        {
            return Err(damaged(at, "the manifest is not where the trailer says"));
        }
        let mut manifest = vec![0; bytes as usize];
        read(&mut manifest, offset)?;
        if xxh3_64(&manifest) != checksum {
            return Err(damaged(offset, "the manifest is not as it was written"));
        }
        let manifest = Manifest::decode(&manifest)
            .ok_or_else(|| damaged(offset, "the manifest cannot be read"))?;
        let heads = manifest.blocks().checked_mul(BLOCK_HEAD_BYTES as u64);
        let end = heads
            .and_then(|heads| heads.checked_add(manifest.content_bytes))
            .and_then(|blocks| blocks.checked_add(HEADER_BYTES));
        if end != Some(offset) {
            return Err(damaged(
                offset,
                "the blocks are not as long as the manifest says",
            ));
        }
        Ok(manifest)
    }

    fn encode_alone(&self) -> Vec<u8> {
        let meta = &self.meta;
        let mut bytes = Vec::with_capacity(MANIFEST_BYTES_MIN + meta.context.len());
        bytes.extend(meta.group.to_le_bytes());
        bytes.extend(meta.index.to_le_bytes());
        bytes.extend(meta.term.to_le_bytes());
        bytes.extend(meta.incarnation.to_le_bytes());
        bytes.extend((meta.context.len() as u32).to_le_bytes());
        bytes.extend(&meta.context);
        bytes.extend(self.sections.to_le_bytes());
        bytes.extend(self.content_bytes.to_le_bytes());
        bytes.extend(self.content_hash.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Manifest> {
        let mut fields = Fields(bytes);
        let (group, index, term) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let incarnation = fields.u128()?;
        let context_len = fields.u32()?;
        let context = fields.take(context_len as usize)?.to_vec();
        let manifest = Manifest {
            meta: CheckpointMeta {
                group,
                index,
                term,
                incarnation,
                context,
            },
            sections: fields.u64()?,
            content_bytes: fields.u64()?,
            content_hash: fields.u128()?,
        };
        fields.0.is_empty().then_some(manifest)
    }
}

/// Takes numbers off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u128(&mut self) -> Option<u128> {
        Some(u128::from_le_bytes(self.take(16)?.try_into().ok()?))
    }
}
