//! Disks that forget: bits that turn over, and whole disks that are replaced.

use std::path::Path;

use super::{Disk, Platter};

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

    /// An empty disk takes this one's place.
    pub(crate) fn replace(&self) {
        let mut platter = self.platter();
        platter.boot += 1;
        platter.files.clear();
        platter.names.clear();
        platter.durable_names.clear();
        platter.name_changes.clear();
        platter.damaged.clear();
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
