//! A data directory whose log was damaged is used as far as the log is whole, and has forgotten the
//! rest. That is written beside the log before anything is cut off it, so that no crash makes a
//! directory forget that it has forgotten.

use std::io;
use std::path::Path;
use std::sync::Arc;

use stock_storage::{Log, LogError, LogOptions, OnDamage, Salvage, Volume, write_file};

/// The file that says so. Its text is why, for people.
const FORGOTTEN: &str = "FORGOTTEN";

/// Opens a log, and deals with one that is damaged as `on_damage` says.
///
/// # Errors
///
/// As [`Log::open_or`].
pub fn open(
    volume: &Arc<dyn Volume>,
    dir: &Path,
    options: &LogOptions,
    on_damage: OnDamage,
) -> Result<Log, LogError> {
    let say = |salvage: &Salvage| say(&**volume, dir, salvage);
    let log = Log::open_or(Arc::clone(volume), dir, options, on_damage, say)?;
    if let Some(Salvage {
        aside,
        file,
        reason,
    }) = log.salvage()
    {
        tracing::error!(
            file = %file.display(),
            reason,
            kept = aside.as_ref().map(|dir| dir.display().to_string()),
            "the log is damaged; what it has behind that is not used"
        );
    }
    Ok(log)
}

fn say(volume: &dyn Volume, dir: &Path, salvage: &Salvage) -> io::Result<()> {
    let text = format!("{}: {}\n", salvage.file.display(), salvage.reason);
    write_file(volume, &dir.join(FORGOTTEN), text.as_bytes())
}

/// Whether a directory has forgotten something, and nobody was told.
///
/// # Errors
///
/// [`LogError::Io`].
pub fn is_said(volume: &dyn Volume, dir: &Path) -> Result<bool, LogError> {
    let files = volume.list(dir);
    let files = files.map_err(|source| LogError::Io {
        action: "list",
        path: dir.to_owned(),
        source,
    })?;
    Ok(files.iter().any(|path| path.ends_with(FORGOTTEN)))
}

/// The directory's record says it from now on, or what it has is gone on from.
///
/// # Errors
///
/// [`LogError::Io`].
pub fn settle(volume: &dyn Volume, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(FORGOTTEN);
    let deleted = match volume.delete(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted.and_then(|()| volume.sync_dir(dir)),
    };
    deleted.map_err(|source| LogError::Io {
        action: "delete",
        path,
        source,
    })
}
