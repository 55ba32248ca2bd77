//! What is done to files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::directories::copy;

/// A kind of file that a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The newest file of the log, between two entries: what the log reads when it is opened.
    Log,
    /// An entry of the log, which is read when somebody needs it.
    Entry,
    /// Every file of the log.
    WholeLog,
    /// What the log copied out of files that it deleted.
    Rewrite,
    /// The newest state that was written down of a shard.
    State,
    /// The part of that file which says what is in it.
    Manifest,
    /// Both states that are kept of a shard.
    States,
    /// Every state of group 0, the registry and the catalog.
    Registry,
    /// History.
    Ledger,
    /// What keeps two processes out of one directory.
    Lock,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A bit is turned over.
    Flipped,
    /// The second half is gone.
    Cut,
    /// It is there, without a byte.
    Emptied,
    /// It is gone.
    Deleted,
    /// It is as it was yesterday.
    Yesterdays,
}

/// Bytes of the header of a file of the log: the name of the format, its version, and an alignment.
const LOG_HEADER: usize = 53 + 8 + 8;
/// Bytes that end a checkpoint; before them is its manifest.
const TRAILER: usize = 40;
/// Bytes that begin a write: its length and compression, and where its footer is.
const WRITE_HEADER: usize = 16;

impl Kind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Log,
        Self::Entry,
        Self::WholeLog,
        Self::Rewrite,
        Self::State,
        Self::Manifest,
        Self::States,
        Self::Registry,
        Self::Ledger,
        Self::Lock,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "the newest file of the log",
            Self::Entry => "an entry of the log",
            Self::WholeLog => "the whole log",
            Self::Rewrite => "the log's copies (rewrite)",
            Self::State => "a shard's newest checkpoint",
            Self::Manifest => "the manifest of that checkpoint",
            Self::States => "every checkpoint of a shard",
            Self::Registry => "every checkpoint of the meta group",
            Self::Ledger => "the ledger",
            Self::Lock => "the lock",
        }
    }

    /// What can be done to it.
    pub fn harms(self) -> &'static [Harm] {
        use Harm::{Cut, Deleted, Emptied, Flipped, Yesterdays};
        match self {
            Self::Entry | Self::Manifest => &[Flipped],
            Self::WholeLog => &[Emptied, Deleted, Yesterdays],
            Self::Log => &[Flipped, Cut, Emptied, Deleted],
            _ => &[Flipped, Cut, Emptied, Deleted, Yesterdays],
        }
    }

    /// Does it to a directory. `yesterday` is a copy of the same one, and `entry` is something that
    /// an entry of the log names. Panics where there is no such file: then nothing would be tried.
    pub fn suffers(self, harm: Harm, dir: &Path, yesterday: &Path, entry: &str) {
        let files = self.files(dir);
        assert!(!files.is_empty(), "{}: no {}", dir.display(), self.name());
        match harm {
            Harm::Flipped => files.iter().for_each(|file| self.flip(file, entry)),
            Harm::Cut => each(&files, |file| {
                // Behind what was written, space is reserved.
                let written = fs::read(file)?.iter().rposition(|byte| *byte != 0);
                set_len(file, written.map_or(0, |last| last / 2))
            }),
            Harm::Emptied => each(&files, |file| set_len(file, 0)),
            Harm::Deleted => match self {
                Self::WholeLog => done(dir, fs::remove_dir_all(dir.join("log"))),
                Self::Ledger => done(dir, fs::remove_dir_all(dir.join("ledger"))),
                _ => each(&files, |file| fs::remove_file(file)),
            },
            Harm::Yesterdays => match self {
                Self::WholeLog | Self::Ledger => {
                    let name = match self {
                        Self::Ledger => "ledger",
                        _ => "log",
                    };
                    done(dir, fs::remove_dir_all(dir.join(name)));
                    copy(&yesterday.join(name), &dir.join(name));
                }
                _ => {
                    each(&files, |file| fs::remove_file(file));
                    for file in self.files(yesterday) {
                        let there = file.strip_prefix(yesterday).map(|name| dir.join(name));
                        let there = there.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
                        done(&file, fs::copy(&file, there).map(drop));
                    }
                }
            },
        }
    }

    fn files(self, dir: &Path) -> Vec<PathBuf> {
        let of_log = |end: &str| below(&dir.join("log"), |name| name.ends_with(end));
        let states = |group: u32| {
            let begin = format!("g{group}-");
            below(&dir.join("checkpoints"), |name| {
                name.starts_with(&begin) && name.ends_with(".checkpoint")
            })
        };
        let newest = |mut files: Vec<PathBuf>| files.split_off(files.len().saturating_sub(1));
        match self {
            Self::Log => newest(of_log(".raftlog")),
            Self::Entry => of_log(".raftlog"),
            Self::WholeLog => below(&dir.join("log"), |_| true),
            Self::Rewrite => newest(of_log(".rewrite")),
            Self::State | Self::Manifest => newest(states(1)),
            Self::States => states(1),
            Self::Registry => states(0),
            Self::Ledger => largest(below(&dir.join("ledger"), |_| true)),
            Self::Lock => below(dir, |name| name == "LOCK"),
        }
    }

    fn flip(self, file: &Path, entry: &str) {
        let mut content = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let at = match self {
            Self::Log | Self::Rewrite => Some(between_entries(&content)),
            // Of all files of the log, those that have it.
            Self::Entry => content
                .windows(entry.len())
                .position(|it| it == entry.as_bytes()),
            Self::Manifest => content.len().checked_sub(TRAILER + WRITE_HEADER),
            _ => Some(content.len() / 2),
        };
        if let Some(byte) = at.and_then(|at| content.get_mut(at)) {
            *byte ^= 1;
            done(file, fs::write(file, &content));
        }
    }
}

impl Harm {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flipped => "one bit flipped",
            Self::Cut => "cut in half",
            Self::Emptied => "emptied",
            Self::Deleted => "deleted",
            Self::Yesterdays => "yesterday's",
        }
    }
}

/// The first byte of the footer of the write in the middle of a file of the log.
fn between_entries(content: &[u8]) -> usize {
    let number = |at: usize| {
        let bytes = content.get(at..at + 8)?.iter();
        Some(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let mut writes = Vec::new();
    let mut at = LOG_HEADER;
    while let (Some(begin), Some(footer)) = (number(at), number(at + 8)) {
        let length = begin >> 8;
        if length < WRITE_HEADER || footer >= length {
            break;
        }
        writes.push(at + footer);
        at += length;
    }
    let middle = writes.get(writes.len() / 2);
    *middle.unwrap_or_else(|| panic!("a file of the log without a write"))
}

/// The files of a directory whose names are such, by their names.
fn below(dir: &Path, is: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = files.map(|file| file.path()).filter(|path| path.is_file());
    let mut files: Vec<PathBuf> = files
        .filter(|path| is(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    files.sort();
    files
}

fn largest(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let bytes = |file: &PathBuf| file.metadata().map_or(0, |file| file.len());
    files.into_iter().max_by_key(bytes).into_iter().collect()
}

fn set_len(file: impl AsRef<Path>, bytes: usize) -> std::io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_len(bytes as u64)
}

fn each(files: &[PathBuf], harm: impl Fn(&PathBuf) -> std::io::Result<()>) {
    files.iter().for_each(|file| done(file, harm(file)));
}

fn done(file: &Path, done: std::io::Result<()>) {
    done.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}
