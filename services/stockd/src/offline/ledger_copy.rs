//! Looking into a ledger: into a copy of it, since its engine tidies up its files whenever it opens
//! them.

use std::path::{Path, PathBuf};
use std::{fs, io};

use stock_storage::{Coverage, Cursor, Ledger, LedgerError, SetAside};
use tempfile::TempDir;

use super::OfflineError;

const LEDGER_DIR: &str = "ledger";

/// Read at a time.
const ENTRIES_PER_PAGE_MAX: usize = 4_096;
const BYTES_PER_PAGE_MAX: usize = 4 << 20;

/// A copy of a ledger. It goes when this is dropped.
pub(super) struct LedgerCopy {
    ledger: Ledger,
    holes: Vec<(u64, u64, u64)>,
    set_aside: Option<SetAside>,
    _dir: TempDir,
}

impl LedgerCopy {
    /// Of the ledger in a data directory, made below `scratch`; none if there is none.
    pub(super) fn of(data_dir: &Path, scratch: &Path) -> Result<Option<Self>, OfflineError> {
        let from = data_dir.join(LEDGER_DIR);
        if !from.is_dir() {
            return Ok(None);
        }
        let failed = |source| OfflineError::LedgerCopy {
            path: from.clone(),
            source,
        };
        let dir = TempDir::with_prefix_in("stockd-ledger-", scratch).map_err(failed)?;
        copy(&from, &dir.path().join(LEDGER_DIR)).map_err(failed)?;
        let opened = Ledger::open(dir.path()).map_err(|error| failed(io::Error::other(error)))?;
        let holes = opened.holes.iter().filter_map(hole);
        Ok(Some(Self {
            holes: holes.collect(),
            ledger: opened.ledger,
            set_aside: opened.set_aside,
            _dir: dir,
        }))
    }

    /// Why the whole of it could not be read, if it could not.
    pub(super) fn damage(&self) -> Option<&str> {
        let set_aside = self.set_aside.as_ref();
        set_aside.map(|set_aside| set_aside.reason.as_str())
    }

    /// The indexes of a group that it says it has.
    pub(super) fn coverage(&self, group: u64) -> Option<Coverage> {
        self.ledger.coverage(group)
    }

    /// How many entries of a group there are, and the stretches of indexes that it lacks though it
    /// says that it has them. Reads all of it.
    pub(super) fn read_all(&self, group: u64) -> Result<(u64, Vec<(u64, u64)>), LedgerError> {
        let Some(coverage) = self.coverage(group) else {
            return Ok((0, Vec::new()));
        };
        let mut after = Cursor::after_index(coverage.from.saturating_sub(1));
        let mut holes = Vec::new();
        let mut entries = 0;
        while after.index < coverage.to {
            let page = self
                .ledger
                .read(group, after, ENTRIES_PER_PAGE_MAX, BYTES_PER_PAGE_MAX);
            match page {
                Ok(page) => {
                    entries += page.entries.len() as u64;
                    if page.next <= after {
                        break;
                    }
                    after = page.next;
                }
                Err(LedgerError::Hole { from, to, .. }) => {
                    holes.push((from, to));
                    after = Cursor::after_index(to.max(after.index + 1));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((entries, holes))
    }

    /// The holes of a group that opening found, near both of its ends.
    pub(super) fn known_holes(&self, group: u64) -> Vec<(u64, u64)> {
        let of_group = self.holes.iter().filter(|(of, ..)| *of == group);
        of_group.map(|(_, from, to)| (*from, *to)).collect()
    }
}

fn hole(error: &LedgerError) -> Option<(u64, u64, u64)> {
    match error {
        LedgerError::Hole { group, from, to } => Some((*group, *from, *to)),
        _ => None,
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                fs::create_dir_all(&target)?;
                open.push((entry.path(), target));
            } else {
                fs::copy(entry.path(), target)?;
            }
        }
    }
    Ok(())
}
