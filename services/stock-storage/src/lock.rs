//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::LogError;

/// Holds the lock of a data directory until dropped. The kernel lets go of it when the process dies,
/// so a crash leaves nothing to clean up.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<DirLock, LogError> {
        let path = dir.join("LOCK");
        let io = |action| {
            let path = path.clone();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        // The file is not truncated on open: it holds the name of whoever has the lock.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is only a help for the reader of the message.
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known {
                    holder.trim().to_owned()
                } else {
                    "unknown".to_owned()
                };
                return Err(LogError::Locked {
                    dir: dir.to_path_buf(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("write the lock file"))?;
        Ok(DirLock { _file: file })
    }
}
