//! How far the log's copies once went.
//!
//! A purge copies what is still needed to the files of the rewrite queue, makes it durable, and
//! deletes the files that it was in. From then on the copy is all there is, and it may lie
//! unchanged for months: in the newest of those files, behind which nothing whole comes. The engine
//! would take damage there for a write that was interrupted. So before a file is deleted it is
//! written down, beside the log's files, how far the copies go that were made for it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::disk::{Damage, Queue, file_number, queue_of};
use crate::volume::{Access, Volume, read_file, write_file};

const MARK: &str = "REWRITTEN";

/// The number of a file of the rewrite queue, and its length.
type Place = (u64, u64);

/// How far copies went: as the disk says, and as was written since.
#[derive(Default)]
pub(super) struct Mark {
    told: Mutex<Option<Place>>,
    written: Mutex<Option<Place>>,
}

impl Mark {
    /// What the disk says; nothing where it says nothing that can be read: then damage is found as
    /// far as it can be.
    pub(super) fn read(&self, volume: &dyn Volume, log_dir: &Path) {
        let text = read_file(volume, &log_dir.join(MARK)).ok();
        *lock(&self.told) = text.and_then(|text| parse(&text));
        *lock(&self.written) = None;
    }

    /// A copy is durable up to here.
    pub(super) fn written(&self, path: &Path, end: u64) {
        let mut written = lock(&self.written);
        if let Some(number) = file_number(path) {
            *written = (*written).max(Some((number, end)));
        }
    }

    /// A file is about to be deleted. Where the volume is full it is deleted all the same: what was
    /// said before holds.
    pub(super) fn before_deletion(&self, volume: &dyn Volume, log_dir: &Path) {
        let written = *lock(&self.written);
        let mut told = lock(&self.told);
        if written <= *told {
            return;
        }
        if let Some((number, end)) = written {
            let text = format!("{number} {end}");
            let text = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
            match write_file(volume, &log_dir.join(MARK), text.as_bytes()) {
                Ok(()) => *told = written,
                Err(error) => {
                    tracing::warn!(%error, "it cannot be noted how far the log's copies go");
                }
            }
        }
    }

    /// Whether copies are lost if this file ends here.
    pub(super) fn is_beyond(&self, path: &Path, end: u64) -> bool {
        let told = *lock(&self.told);
        queue_of(path) == Queue::Rewrite
            && told.is_some_and(|(number, len)| file_number(path) == Some(number) && end < len)
    }

    /// What is missing of the copies, if files are.
    pub(super) fn missing(&self, volume: &dyn Volume, log_dir: &Path) -> Option<Damage> {
        let (number, end) = (*lock(&self.told))?;
        let files = volume.list(log_dir).ok()?;
        let of_queue = files.iter().filter(|path| queue_of(path) == Queue::Rewrite);
        let newest = of_queue.filter_map(|path| file_number(path)).max();
        let file = log_dir.join(format!("{number:016}.rewrite"));
        if newest.is_some_and(|newest| newest > number) {
            return None;
        }
        let len = volume.open(&file, Access::Read).and_then(|file| file.len());
        let len = len.unwrap_or_default();
        (len < end).then(|| Damage {
            file,
            offset: Some(len),
            reason: format!("it has {len} bytes, and once had {end}"),
        })
    }
}

/// The copies were cut on purpose.
pub(super) fn forget(volume: &dyn Volume, log_dir: &Path) -> std::io::Result<bool> {
    match volume.delete(&log_dir.join(MARK)) {
        Ok(()) => volume.sync_dir(log_dir).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(text).ok()?.trim_end();
    let (place, sum) = text.rsplit_once(' ')?;
    let is_whole = format!("{:08x}", crc32fast::hash(place.as_bytes())) == sum;
    let (number, end) = place.split_once(' ').filter(|_| is_whole)?;
    Some((number.parse().ok()?, end.parse().ok()?))
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
