//! What is in a file: as processes see it now, and as it would be after a power cut.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

/// A disk writes this many bytes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// How much of what was not synced a power cut leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    /// Nothing: the kernel had not begun to write.
    Nothing,
    /// All of it: the kernel had just finished.
    Everything,
    /// Everything up to a random byte of a random write, rounded down to its sector.
    Prefix,
    /// Each sector for itself, as it was at a random moment: the kernel writes pages in any order.
    /// The length of the file likewise.
    Sectors,
}

impl Survival {
    /// One of the four.
    pub(super) fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..8) {
            0 | 1 => Self::Nothing,
            2 => Self::Everything,
            3 | 4 => Self::Prefix,
            _ => Self::Sectors,
        }
    }
}

/// One file's bytes, twice.
#[derive(Debug)]
pub(super) struct Contents {
    now: Image,
    durable: Image,
    /// In the order in which they were made.
    unsynced: Vec<Change>,
    /// Whether a failed sync has left the two copies different although nothing is unsynced.
    has_lost: bool,
    /// Bytes that the disk has given this file, and does not ask for again.
    pub(super) reserved: u64,
}

#[derive(Debug)]
struct Image {
    path: PathBuf,
    file: File,
    len: u64,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Resize { len: u64 },
}

impl Contents {
    /// A new, empty file, kept under this name in `dir`.
    pub(super) fn create(dir: &Path, name: u64) -> io::Result<Self> {
        Ok(Self {
            now: Image::create(dir.join(format!("{name}.now")))?,
            durable: Image::create(dir.join(format!("{name}.durable")))?,
            unsynced: Vec::new(),
            has_lost: false,
            reserved: 0,
        })
    }

    /// Bytes, as processes see it.
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    /// Fewer bytes only at the end of the file.
    pub(super) fn read(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let there = self.now.len.saturating_sub(offset).min(size as u64);
        let mut bytes = vec![0; there as usize];
        self.now.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Extends the file where it must.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.now.write(offset, data)?;
        self.reserved = self.reserved.max(self.now.len);
        self.unsynced.push(Change::Write {
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }

    /// Cuts the file off, or extends it with zeros.
    pub(super) fn resize(&mut self, len: u64) -> io::Result<()> {
        self.now.resize(len)?;
        self.reserved = len;
        self.unsynced.push(Change::Resize { len });
        Ok(())
    }

    /// Makes everything durable, the length included.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for change in std::mem::take(&mut self.unsynced) {
            self.durable.make(&change)?;
        }
        Ok(())
    }

    /// After a sync that failed the kernel takes what it could not write for written: processes go
    /// on seeing it, a later sync succeeds without it, and a power cut takes it.
    pub(super) fn fail_sync(&mut self, random: &mut StdRng) -> io::Result<()> {
        self.has_lost |= !self.unsynced.is_empty();
        self.settle(Survival::Sectors, random)
    }

    /// What a power cut leaves is all there is.
    pub(super) fn cut_power(&mut self, survival: Survival, random: &mut StdRng) -> io::Result<()> {
        let is_apart = self.has_lost || !self.unsynced.is_empty();
        self.settle(survival, random)?;
        if is_apart {
            std::fs::copy(&self.durable.path, &self.now.path)?;
            self.now.len = self.durable.len;
        }
        self.reserved = self.now.len;
        self.has_lost = false;
        Ok(())
    }

    /// Deletes both copies.
    pub(super) fn delete(self) -> io::Result<()> {
        std::fs::remove_file(&self.now.path)?;
        std::fs::remove_file(&self.durable.path)
    }

    fn settle(&mut self, survival: Survival, random: &mut StdRng) -> io::Result<()> {
        if survival == Survival::Everything {
            return self.sync();
        }
        let changes = std::mem::take(&mut self.unsynced);
        match survival {
            Survival::Nothing | Survival::Everything => Ok(()),
            Survival::Prefix => {
                let whole = random.random_range(0..=changes.len());
                for change in &changes[..whole] {
                    self.durable.make(change)?;
                }
                if let Some(Change::Write { offset, data }) = changes.get(whole) {
                    let end = offset + random.random_range(0..=data.len() as u64);
                    let end = (end - end % SECTOR_BYTES).max(*offset);
                    let part = &data[..(end - offset) as usize];
                    self.durable.write(*offset, part)?;
                }
                Ok(())
            }
            Survival::Sectors => self.settle_by_sector(&changes, random),
        }
    }

    fn settle_by_sector(&mut self, changes: &[Change], random: &mut StdRng) -> io::Result<()> {
        let mut versions: BTreeMap<u64, u32> = BTreeMap::new();
        for (offset, data) in changes.iter().filter_map(Change::as_write) {
            for (sector, _) in sectors(offset, data) {
                *versions.entry(sector).or_default() += 1;
            }
        }
        for left in versions.values_mut() {
            *left = random.random_range(0..=*left);
        }
        // Lengths are the file system's own records, which it writes in order.
        let lengths_known = random.random_range(0..=changes.len());
        let mut len = self.durable.len;
        for (at, change) in changes.iter().enumerate() {
            let is_length_known = at < lengths_known;
            if is_length_known {
                len = change.len_after(len);
            }
            match change {
                Change::Resize { len } if is_length_known => self.durable.resize(*len)?,
                Change::Resize { .. } => (),
                Change::Write { offset, data } => {
                    for (sector, part) in sectors(*offset, data) {
                        let left = versions.entry(sector).or_default();
                        if *left > 0 {
                            *left -= 1;
                            self.durable.write(part.0, part.1)?;
                        }
                    }
                }
            }
        }
        self.durable.resize(len)
    }
}

impl Image {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self { path, file, len: 0 })
    }

    fn make(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Write { offset, data } => self.write(*offset, data),
            Change::Resize { len } => self.resize(*len),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)?;
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
        Ok(())
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }
}

impl Change {
    fn as_write(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Write { offset, data } => Some((*offset, data)),
            Self::Resize { .. } => None,
        }
    }

    fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { data, .. } if data.is_empty() => len,
            Self::Write { offset, data } => len.max(offset + data.len() as u64),
            Self::Resize { len } => *len,
        }
    }
}

/// A write, taken apart at the borders of sectors: the number of each, and what goes where.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, (u64, &[u8]))> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let sector = at / SECTOR_BYTES;
        let room = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len() as u64);
        let (part, left) = rest.split_at(room as usize);
        let found = (sector, (at, part));
        at += room;
        rest = left;
        Some(found)
    })
}
