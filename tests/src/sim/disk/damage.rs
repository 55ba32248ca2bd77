//! Disks that forget: bits that turn over, and whole disks that are replaced.

use std::path::{Path, PathBuf};

use super::{Disk, File, Platter};
use crate::sim::dice::Dice;

impl Disk {
    /// Turns a bit of a log file over, where a whole write that was synced lies behind it: damage to the
    /// very last write cannot be told from a torn one. `false` if there is no such place.
    pub(crate) fn flip_a_bit_of_the_log(&self) -> bool {
        let mut platter = self.platter();
        let platter = &mut *platter;
        let mut places = Vec::new();
        for (name, file) in &platter.names {
            if has_ending(name, "raftlog") {
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
        let is_flipped = platter.flip(file, at);
        if is_flipped {
            platter.damaged.insert(file);
        }
        is_flipped
    }

    /// Whether a checkpoint with bits turned over is still there.
    pub(crate) fn has_damaged_checkpoints(&self) -> bool {
        let platter = self.platter();
        let mut files = platter.names.values();
        files.any(|file| platter.damaged.contains(file))
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

    /// The log of this disk takes the place of that on another: the files beside it stay as they are there.
    pub(crate) fn put_log_back(&self, other: &Self) {
        let mut platter = other.platter();
        let log: Vec<PathBuf> = platter.names.keys().cloned().collect();
        for name in log.into_iter().filter(|name| has_ending(name, "raftlog")) {
            platter.names.remove(&name);
            platter.durable_names.remove(&name);
        }
        drop(platter);
        self.copy_to(other, |name| has_ending(name, "raftlog"));
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
        let Some(file) = self.files.get_mut(&file) else {
            return false;
        };
        if at >= file.durable.len() || at >= file.content.len() {
            return false;
        }
        file.durable[at] ^= 1 << bit;
        file.content[at] ^= 1 << bit;
        true
    }
}

fn has_ending(name: &Path, ending: &str) -> bool {
    name.extension().is_some_and(|end| end == ending)
}
