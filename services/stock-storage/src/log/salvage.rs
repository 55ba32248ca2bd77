//! What is whole of a log that is damaged: everything before the first write that cannot be read.
//!
//! The log then is what it was at an earlier moment, and its node has forgotten what came after.
//! Nothing that it holds counts as a vote or an acknowledgement any more. But its node knows who it
//! is, so that others can let it in anew, and where no other node has more, it can be gone on from.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Queue, file_number, queue_of};
use super::tail::{self, Framing, Tail};
use super::{ASIDE_MAX, Damage, LogError, aside_dir, mark, named_io};
use crate::volume::{Access, Volume, read_exact_at, read_file, write_all_at, write_file};

/// What salvaging a log has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// Where the log is kept as it was found; none where it was only looked at.
    pub aside: Option<PathBuf>,
    /// What was damaged first.
    pub file: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

/// The file that says that a log was copied whole.
const COPIED: &str = "COPIED";

/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 1 << 20;

/// Copies the files of a log to a directory beside it.
///
/// # Errors
///
/// [`LogError::DamagedAgain`] if that was done [`ASIDE_MAX`] times before; [`LogError::Io`].
pub(super) fn set_aside(
    volume: &dyn Volume,
    dir: &Path,
    files: &[PathBuf],
) -> Result<PathBuf, LogError> {
    let kept = |number: &u32| volume.list(&aside_dir(dir, *number)).unwrap_or_default();
    let is_whole = |files: &[PathBuf]| files.iter().any(|file| file.ends_with(COPIED));
    // It was copied, and then nothing was cut: by a kill, or since nothing could be.
    let is_it = |number: &u32| {
        let kept = kept(number);
        is_whole(&kept) && is_copy(volume, files, &kept)
    };
    if let Some(number) = (1..=ASIDE_MAX).find(is_it) {
        return Ok(aside_dir(dir, number));
    }
    let number = (1..=ASIDE_MAX).find(|number| !is_whole(&kept(number)));
    let number = number.ok_or_else(|| LogError::DamagedAgain {
        dir: dir.to_owned(),
        times: ASIDE_MAX,
    })?;
    let aside = aside_dir(dir, number);
    let made = volume.create_dir(&aside);
    made.map_err(named_io("make", &aside))?;
    // Half a copy is of no use, and takes room that may be missing.
    let clear = || -> io::Result<()> {
        let mut files = volume.list(&aside)?.into_iter();
        files.try_for_each(|file| volume.delete(&file))
    };
    clear().map_err(named_io("empty", &aside))?;
    for file in files {
        let to = aside.join(file.file_name().unwrap_or_default());
        if let Err(error) = copy(volume, file, &to) {
            // What the error says is worth more than whether that succeeds.
            let _ = clear();
            return Err(named_io("copy the damaged log to", &to)(error));
        }
    }
    let copied = aside.join(COPIED);
    write_file(volume, &copied, b"").map_err(named_io("write", &copied))?;
    for dir in [&aside, dir] {
        volume.sync_dir(dir).map_err(named_io("sync", dir))?;
    }
    Ok(aside)
}

/// Whether these are a copy of the files of a log, by their names and lengths: each salvage makes
/// the log shorter.
fn is_copy(volume: &dyn Volume, files: &[PathBuf], kept: &[PathBuf]) -> bool {
    let len = |path: &PathBuf| {
        let file = volume.open(path, Access::Read);
        file.and_then(|file| file.len()).ok()
    };
    let is_same = |(file, kept): (&PathBuf, &PathBuf)| {
        file.file_name() == kept.file_name() && len(file) == len(kept)
    };
    let kept: Vec<&PathBuf> = kept.iter().filter(|file| !file.ends_with(COPIED)).collect();
    kept.len() == files.len() && files.iter().zip(kept).all(is_same)
}

fn copy(volume: &dyn Volume, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (
        volume.open(from, Access::Read)?,
        volume.open(to, Access::Create)?,
    );
    let mut buf = vec![0; COPIED_BYTES];
    let (mut at, len) = (0, from.len()?);
    while at < len {
        let part = buf
            .len()
            .min(usize::try_from(len - at).unwrap_or(usize::MAX));
        read_exact_at(&*from, &mut buf[..part], at)?;
        write_all_at(&*to, &buf[..part], at)?;
        at += part as u64;
    }
    to.sync()
}

/// Cuts off what begins with the damage, in its queue of files: the rest of its file, and the files
/// behind it. They are emptied, and deleted where `is_kept` does not hold, from the newest on, so
/// that a crash leaves no gap.
///
/// `false` if it is not known where the damage is, or if there is nothing to be cut.
pub(super) fn cut(
    volume: &dyn Volume,
    files: &[PathBuf],
    damage: &Damage,
    is_kept: bool,
) -> Result<bool, LogError> {
    let found = match damage.offset {
        Some(offset) => Some((damage.file.clone(), offset)),
        None => first_damage(volume, files)?,
    };
    let Some((file, offset)) = found else {
        return Ok(false);
    };
    let (queue, Some(number)) = (queue_of(&file), file_number(&file)) else {
        return Ok(false);
    };
    let is_later = |path: &&PathBuf| queue_of(path) == queue && file_number(path) > Some(number);
    let mut changed = false;
    for later in files.iter().rev().filter(is_later) {
        if is_kept {
            changed |= set_len(volume, later, 0)?;
        } else {
            volume.delete(later).map_err(named_io("delete", later))?;
            let dir = later.parent().unwrap_or(Path::new("."));
            volume.sync_dir(dir).map_err(named_io("sync", dir))?;
            changed = true;
        }
    }
    changed |= set_len(volume, &file, offset)?;
    if queue == Queue::Rewrite {
        let dir = file.parent().unwrap_or(Path::new("."));
        changed |= mark::forget(volume, dir).map_err(named_io("delete the mark in", dir))?;
    }
    Ok(changed)
}

fn set_len(volume: &dyn Volume, path: &Path, len: u64) -> Result<bool, LogError> {
    let file = volume.open(path, Access::Write);
    let file = file.map_err(named_io("open", path))?;
    let is_longer = file.len().map_err(named_io("measure", path))? > len;
    if is_longer {
        let cut = file.set_len(len).and_then(|()| file.sync());
        cut.map_err(named_io("cut", path))?;
    }
    Ok(is_longer)
}

/// The first place, in the order of writing, that is no whole write. The engine does not say where
/// that is in a file that is not the last.
fn first_damage(
    volume: &dyn Volume,
    files: &[PathBuf],
) -> Result<Option<(PathBuf, u64)>, LogError> {
    for queue in [Queue::Append, Queue::Rewrite] {
        let mut of_queue: Vec<(u64, &PathBuf)> = files
            .iter()
            .filter(|path| queue_of(path) == queue)
            .filter_map(|path| Some((file_number(path)?, path)))
            .collect();
        of_queue.sort_unstable();
        let last = of_queue.last().map(|(number, _)| *number);
        for (number, path) in of_queue {
            let bytes = read_file(volume, path).map_err(named_io("read", path))?;
            let Framing::Broken { offset } = Framing::of(&bytes, number) else {
                continue;
            };
            // The end of the last file may be a write that was interrupted, or nothing at all.
            let is_damage =
                || matches!(tail::judge(&bytes[offset..], number), Tail::Damaged { .. });
            if last != Some(number) || is_damage() {
                return Ok(Some((path.clone(), offset as u64)));
            }
        }
    }
    Ok(None)
}
