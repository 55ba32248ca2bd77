//! The machine that everything runs on, for whoever reads the figures later.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::fsync::{self, FsyncCost};

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Absent where the directory is in memory.
    pub(crate) fsync: Option<FsyncCost>,
}

impl Machine {
    /// This one; writes are timed in `directory`. What the system does not tell is empty.
    pub(crate) fn look(directory: &Path) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = value_of(&meminfo, "MemTotal").split_whitespace().next();
        let kib = kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            processor: value_of(&cpuinfo, "model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib * 1_024,
            kernel: kernel.trim().to_owned(),
            fsync: fsync::measure(directory).ok(),
        }
    }
}

/// The first value of a key in lines of `key: value`, or nothing.
fn value_of<'a>(text: &'a str, key: &str) -> &'a str {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let found = pairs.find(|(found, _)| found.trim() == key);
    found.map_or("", |(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key() {
        let text = "processor\t: 0\nmodel name\t: Slow One\nmodel name\t: Other\n";
        assert_eq!(value_of(text, "model name"), "Slow One");
        assert_eq!(value_of(text, "bogomips"), "");
    }
}
