//! Opening, and what is done about what is found then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use super::engine::{Engine, has_name, io_error, list, sync_path};
use super::key::{Position, coverage_group, coverage_keys, entries_key, entries_place};
use super::page::{Scan, scan, value_before};
use super::record::{Phase, Record};
use super::{Cursor, Group, Ledger, Opened, SetAside, Shared, read};
use crate::LedgerError;
use crate::volume::Volume;

/// Values, or entries, looked at from each end of a group.
const CHECKED_MAX: usize = 1024;

const LEDGER_DIR: &str = "ledger";
const ASIDE_PREFIX: &str = "ledger.damaged-";

/// See [`Ledger::open`].
pub(super) fn open(data_dir: &Path, volume: &dyn Volume) -> Result<Opened, LedgerError> {
    let dir = data_dir.join(LEDGER_DIR);
    let reason = match open_files(&dir, volume) {
        Err(LedgerError::Damaged { reason, .. }) => reason,
        opened => return opened,
    };
    let aside = set_aside(data_dir, &dir)?;
    let mut opened = open_files(&dir, volume)?;
    opened.set_aside = Some(SetAside { dir: aside, reason });
    Ok(opened)
}

/// See [`Ledger::is_in`].
pub(super) fn is_in(data_dir: &Path) -> bool {
    data_dir.join(LEDGER_DIR).is_dir()
}

/// See [`Ledger::delete`].
pub(super) fn delete(data_dir: &Path) -> Result<bool, LedgerError> {
    let dir = data_dir.join(LEDGER_DIR);
    match fs::remove_dir_all(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("delete", &dir)(error)),
    }
    sync_path(data_dir)?;
    Ok(true)
}

/// Opens the files and looks at what every group says of itself.
fn open_files(dir: &Path, volume: &dyn Volume) -> Result<Opened, LedgerError> {
    let engine = Engine::open(dir, volume)?;
    let records = records(&engine)?;
    let mut holes = Vec::new();
    for (&group, record) in &records {
        if record.phase == Phase::Kept {
            holes.extend(check(&engine, group, record)?);
        }
    }
    let groups = records.into_iter().map(|(group, record)| {
        let durable_to = Some(record.coverage.to);
        (group, Group { record, durable_to })
    });
    let ledger = Ledger {
        shared: Arc::new(Shared {
            engine,
            groups: RwLock::new(groups.collect()),
            writer: Mutex::new(()),
        }),
    };
    ledger.finish_deleting()?;
    Ok(Opened {
        ledger,
        set_aside: None,
        holes,
    })
}

impl Ledger {
    /// Goes on with what a crash interrupted.
    fn finish_deleting(&self) -> Result<(), LedgerError> {
        let groups = read(&self.shared.groups).clone();
        for (group, Group { record, .. }) in groups {
            match record.phase {
                Phase::Kept => {}
                Phase::Clearing => self.begin(group, record.coverage.to)?,
                Phase::Forgetting => while self.forget(group)? {},
            }
        }
        Ok(())
    }
}

/// The records of all groups. Damaged, if one is unreadable or missing: then nobody knows what the
/// ledger should have.
fn records(engine: &Engine) -> Result<BTreeMap<u64, Record>, LedgerError> {
    let found = engine.call(|db| {
        let mut records = BTreeMap::new();
        for pair in db.range(coverage_keys()) {
            let (key, value) = pair?;
            let Some(group) = coverage_group(&key) else {
                return Ok(Err("a record has a strange key".to_owned()));
            };
            let Some(record) = Record::decode(group, &value) else {
                return Ok(Err(format!("the record of group {group} is unreadable")));
            };
            records.insert(group, record);
        }
        let mut next = Some(0);
        while let Some(group) = next {
            let keys = entries_key(group, Position::START)..;
            let Some((key, _)) = db.range(keys).next().transpose()? else {
                break;
            };
            let Some((group, _)) = entries_place(&key) else {
                return Ok(Err("a value has a strange key".to_owned()));
            };
            let last = value_before(db, group, Position::last_of(u64::MAX, u32::MAX))?;
            let Some(record) = records.get(&group) else {
                return Ok(Err(format!("the record of group {group} is missing")));
            };
            if record.phase == Phase::Kept && last.is_some_and(|(at, _)| at > record.last) {
                return Ok(Err(format!("the record of group {group} is out of date")));
            }
            next = group.checked_add(1);
        }
        Ok(Ok(records))
    })?;
    found.map_err(|reason| engine.damaged(reason))
}

/// Looks at both ends of a group.
fn check(engine: &Engine, group: u64, record: &Record) -> Result<Option<LedgerError>, LedgerError> {
    let near_end = engine.call(|db| {
        let keys = entries_key(group, Position::START)..=entries_key(group, record.last);
        let key = db.range(keys).rev().take(CHECKED_MAX).last().transpose()?;
        Ok(key.and_then(|(key, _)| entries_place(&key)))
    })?;
    let begin = Cursor::after_index(record.coverage.from - 1);
    let near_end = near_end.map_or(begin, |(_, at)| Cursor {
        index: at.index,
        ordinal: at.ordinal,
    });
    for (after, entries_max) in [(begin, CHECKED_MAX), (near_end.max(begin), usize::MAX)] {
        if let Scan::Broken { from, to } =
            scan(engine, group, record, after, entries_max, usize::MAX)?
        {
            return Ok(Some(LedgerError::Hole { group, from, to }));
        }
    }
    Ok(None)
}

/// Renames a damaged ledger's directory, after deleting those that were set aside before.
fn set_aside(data_dir: &Path, dir: &Path) -> Result<PathBuf, LedgerError> {
    let mut number = 1;
    for path in list(data_dir)? {
        if has_name(&path, |name| name.starts_with(ASIDE_PREFIX)) {
            let name = path.to_string_lossy();
            let digits = name.rsplit('-').next().unwrap_or_default();
            number = number.max(digits.parse().unwrap_or(0) + 1);
            fs::remove_dir_all(&path).map_err(io_error("delete", &path))?;
        }
    }
    let aside = data_dir.join(format!("{ASIDE_PREFIX}{number}"));
    fs::rename(dir, &aside).map_err(io_error("set aside", dir))?;
    sync_path(data_dir)?;
    Ok(aside)
}
