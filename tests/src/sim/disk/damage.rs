//! Disks that forget: bits that turn over, and whole disks that are replaced.

use std::path::{Path, PathBuf};

use stock_cluster::GroupId;

use super::{Disk, File, Platter};
use crate::sim::dice::Dice;

impl Disk {
    /// Turns a bit of a log file over, where a whole write that was synced lies behind it: damage
    /// to the very last write cannot be told from a torn one. `false` if there is no such place.
    pub(crate) fn flip_a_bit_of_the_log(&self) -> bool {
        let mut platter = self.platter();
        let platter = &mut *platter;
        let mut places = Vec::new();
        for (name, file) in &platter.names {
            if is_of_the_log(name) {
                let end = platter.files[file].durable_writes.last().copied();
                places.push((*file, end.unwrap_or_default()));
            }
        }
        places.retain(|(_, end)| *end > 0);
        let Some(&(file, end)) = platter.dice.pick(&places) else {
            return false;
        };
        let at = platter.dice.below(end);
        platter.flip(file, at)
    }

    /// Turns a bit of the newest checkpoint of a group over, where an older one is whole and the
    /// log goes on from it, so that nothing is lost. `false` if there are no such files.
    pub(crate) fn flip_a_bit_of_the_newest_state(&self, group: GroupId) -> bool {
        let mut platter = self.platter();
        let platter = &mut *platter;
        let begin = format!("g{}-", group.0);
        let is_of_group = |name: &Path| {
            let file = name.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&begin) && has_ending(name, "checkpoint") && is_in(name, "checkpoints")
        };
        let of_group = platter
            .durable_names
            .iter()
            .filter(|(name, _)| is_of_group(name));
        let files: Vec<u64> = of_group.map(|(_, file)| *file).collect();
        let is_whole = |file: &u64| {
            let is_there = platter.names.values().any(|named| named == file);
            is_there
                && !platter.damaged.contains_key(file)
                && !platter.files[file].durable.is_empty()
        };
        let (Some(newest), true) = (files.last(), files.len() > 1 && files.iter().all(is_whole))
        else {
            return false;
        };
        // Behind a snapshot, the log does not go on from what was there before.
        if platter.adopted.contains(newest) {
            return false;
        }
        // Of what it then goes on from, the one before may be older than its log.
        if !platter.newest_was_damaged.insert(group) {
            return false;
        }
        let at = platter.dice.below(platter.files[newest].durable.len());
        platter.flip(*newest, at)
    }

    /// Turns a bit of a whole checkpoint over. `false` if there is none.
    pub(crate) fn flip_a_bit_of_a_checkpoint(&self) -> bool {
        let mut platter = self.platter();
        let platter = &mut *platter;
        let whole = platter.names.iter().filter(|(name, file)| {
            has_ending(name, "checkpoint") && !platter.files[file].durable.is_empty()
        });
        let files: Vec<u64> = whole.map(|(_, file)| *file).collect();
        let Some(file) = platter.dice.pick(&files).copied() else {
            return false;
        };
        let at = platter.dice.below(platter.files[&file].durable.len());
        platter.flip(file, at)
    }

    /// Whether a bit that has turned over is still there.
    pub(crate) fn is_damaged(&self) -> bool {
        let platter = self.platter();
        let mut files = platter.names.values();
        files.any(|file| {
            let at = platter.damaged.get(file);
            at.is_some_and(|at| *at < platter.files[file].content.len())
        })
    }

    /// Whether the log was cut where a bit had turned over, since it was last asked: then the
    /// directory has forgotten something.
    pub(crate) fn was_cut_at_a_damage(&self) -> bool {
        let mut platter = self.platter();
        let platter = &mut *platter;
        let is_cut = |file: &u64| {
            let at = platter.damaged.get(file);
            at.is_some_and(|at| *at >= platter.files[file].content.len())
        };
        let of_log = platter.names.iter().filter(|(name, _)| is_of_the_log(name));
        let cut: Vec<u64> = of_log.map(|(_, file)| *file).filter(is_cut).collect();
        platter.damaged.retain(|file, _| !cut.contains(file));
        !cut.is_empty()
    }

    /// Another disk, empty.
    pub(crate) fn another(&self) -> Self {
        Self::new(Dice::of(self.platter().dice.number()))
    }

    /// Another disk with all that this one has durably, as a copy of a volume has it.
    pub(crate) fn copy(&self) -> Self {
        let copy = self.another();
        self.copy_to(&copy, |_| true);
        copy
    }

    /// The log of this disk takes the place of that on another: the files beside it stay as they
    /// are there.
    pub(crate) fn put_log_back(&self, other: &Self) {
        let mut platter = other.platter();
        let log: Vec<PathBuf> = platter.names.keys().cloned().collect();
        for name in log.into_iter().filter(|name| is_of_the_log(name)) {
            platter.names.remove(&name);
            platter.durable_names.remove(&name);
        }
        drop(platter);
        self.copy_to(other, is_of_the_log);
    }

    fn copy_to(&self, other: &Self, is_copied: impl Fn(&Path) -> bool) {
        let own = self.platter();
        let mut platter = other.platter();
        for (name, file) in &own.durable_names {
            let Some(file) = own.files.get(file).filter(|_| is_copied(name)) else {
                continue;
            };
            let number = platter.next_file;
            platter.next_file += 1;
            let copied = File {
                content: file.durable.clone(),
                durable: file.durable.clone(),
                pending: Vec::new(),
                durable_writes: file.durable_writes.clone(),
            };
            platter.files.insert(number, copied);
            platter.names.insert(name.clone(), number);
            platter.durable_names.insert(name.clone(), number);
        }
    }
}

impl Platter {
    fn flip(&mut self, file: u64, at: usize) -> bool {
        let bit = self.dice.below(8);
        let number = file;
        let Some(file) = self.files.get_mut(&file) else {
            return false;
        };
        if at >= file.durable.len() || at >= file.content.len() {
            return false;
        }
        file.durable[at] ^= 1 << bit;
        file.content[at] ^= 1 << bit;
        self.damaged.insert(number, at);
        true
    }
}

/// A log that was set aside is not the log.
fn is_of_the_log(name: &Path) -> bool {
    has_ending(name, "raftlog") && is_in(name, "log")
}

fn is_in(name: &Path, dir: &str) -> bool {
    name.parent().is_some_and(|parent| parent.ends_with(dir))
}

fn has_ending(name: &Path, ending: &str) -> bool {
    name.extension().is_some_and(|end| end == ending)
}
