//! What happens to data directories: copies are put back, ends are lost, parts are deleted, and one
//! that was put aside is taken for the node's.
//!
//! Nothing here looks into a running node's directory but [`copy`], and a test pauses the node for
//! that.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;

impl Cluster {
    /// Copies a node's data directory, as a snapshot of its volume would: the node stands still
    /// meanwhile, if it runs. Returns where the copy is; `name` is its own.
    pub fn copy_data(&self, node: u64, name: &str) -> PathBuf {
        let to = self.dir().join(format!("node-{node}-{name}"));
        let runs = self.running().contains(&node);
        if runs {
            self.pause(node);
        }
        copy(&self.data_dir(node), &to);
        if runs {
            self.resume(node);
        }
        to
    }

    /// Takes the data directory of a node that does not run away from it, so that it begins with an
    /// empty one. Returns where it is now; `name` is its own.
    pub fn put_aside(&self, node: u64, name: &str) -> PathBuf {
        assert!(!self.running().contains(&node), "node {node} runs");
        let to = self.dir().join(format!("node-{node}-{name}"));
        rename(&self.data_dir(node), &to);
        to
    }

    /// Gives a node that does not run, and whose own directory was put aside, this one.
    pub fn put_in_place(&self, node: u64, from: &Path) {
        assert!(!self.running().contains(&node), "node {node} runs");
        rename(from, &self.data_dir(node));
    }

    /// Puts a copy in the place of the directory of a node that does not run.
    pub fn put_back(&self, node: u64, copy: &Path) {
        self.empty(node);
        self.put_in_place(node, copy);
    }
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    let entries = std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    for entry in entries.flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
            continue;
        }
        std::fs::copy(&path, &to).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// Cuts so many bytes off the end of what was written to the newest file of the log, and the space
/// that was reserved behind it.
pub fn cut_end_of_log(data_dir: &Path, bytes: usize) {
    let path = newest_log_file(data_dir);
    let content = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // Of a write that ends with zeros some more goes.
    let written = content.iter().rposition(|byte| *byte != 0);
    let written = written.map_or(0, |last| last + 1);
    assert!(written > bytes, "{}: {written} bytes", path.display());
    set_len(&path, written - bytes);
}

/// Empties the newest file of the log.
pub fn empty_end_of_log(data_dir: &Path) {
    set_len(&newest_log_file(data_dir), 0);
}

/// Deletes the log, and nothing else.
pub fn delete_log(data_dir: &Path) {
    let log = data_dir.join("log");
    std::fs::remove_dir_all(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
}

/// Turns a bit of an entry over that names this SKU.
pub fn damage_in_log(data_dir: &Path, sku: &str) {
    let files = std::fs::read_dir(data_dir.join("log"));
    let files = files.into_iter().flatten().flatten();
    for path in files.map(|file| file.path()) {
        let mut content =
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found = content
            .windows(sku.len())
            .position(|it| it == sku.as_bytes());
        if let Some(at) = found {
            content[at] ^= 1;
            std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            return;
        }
    }
    panic!("no entry in {} names {sku}", data_dir.display());
}

/// Turns a bit over in the middle of the newest state that was written down of a group.
pub fn damage_newest_state(data_dir: &Path, group: u32) {
    let files = std::fs::read_dir(data_dir.join("checkpoints"));
    let files = files.into_iter().flatten().flatten();
    let of_group = format!("g{group}-");
    let newest = files
        .map(|file| file.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&of_group) && name.ends_with(".checkpoint")
        })
        .max();
    let path = newest.unwrap_or_else(|| panic!("{} has no state", data_dir.display()));
    let mut content = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Their names are numbers, all of the same length.
fn newest_log_file(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join("log"));
    let files = files.into_iter().flatten().flatten();
    let files = files.map(|file| file.path());
    let newest = files
        .filter(|path| path.extension().is_some_and(|end| end == "raftlog"))
        .max();
    newest.unwrap_or_else(|| panic!("{} has no log", data_dir.display()))
}

fn set_len(path: &Path, bytes: usize) {
    let file = File::options().write(true).open(path);
    let cut = file.and_then(|file| file.set_len(bytes as u64));
    cut.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
}
