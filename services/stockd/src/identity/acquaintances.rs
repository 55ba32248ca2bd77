//! How long a directory has been written in, and what it remembers of others in that respect.
//!
//! A pulse is a second in which something was written. It lies in the log beside what was written, and is told to
//! every node once it is durable; each keeps the highest that it has heard of each other, in its own log. So a
//! directory that was put back to an older copy is known by its pulse, by everybody who has heard it since.

use std::collections::BTreeMap;

use stock_storage::{Durability, LogError, WriteBatch};

use crate::disk::Disk;

/// Nodes that are remembered: as many as a cluster can have, and as many again that have left.
const REMEMBERED_MAX: usize = 2 * crate::placement::NODES_MAX;

/// What is remembered of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The latest of its directories.
    pub directory: u128,
    /// The index of group 0's entry that let it in; 0: a founder's.
    pub since: u64,
    /// The highest pulse that was heard of it.
    pub pulse: u64,
    /// The process that told it.
    pub boot: u64,
}

/// This directory's pulse, and those of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acquaintances {
    /// Durable.
    pulse: u64,
    nodes: BTreeMap<u64, Known>,
    /// Something was heard that the disk does not know.
    has_news: bool,
}

impl Acquaintances {
    /// As the disk remembers them, and with another pulse, which is durable before anybody is told.
    pub fn begin(disk: &Disk) -> Result<Self, LogError> {
        let mut begun = disk
            .acquaintances()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .unwrap_or_default();
        let mut batch = WriteBatch::new();
        batch.put_acquaintances(&begun.next_beat());
        disk.write(&mut batch, Durability::Sync)?;
        begun.beaten();
        Ok(begun)
    }

    /// The pulse that others are told: it is durable.
    pub fn pulse(&self) -> u64 {
        self.pulse
    }

    /// What is remembered of a node.
    pub fn known(&self, node: u64) -> Option<&Known> {
        self.nodes.get(&node)
    }

    /// Whether something was heard that the disk does not know.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// A node has introduced itself, and was believed.
    pub fn met(&mut self, node: u64, mut theirs: Known) {
        if let Some(known) = self.nodes.get(&node)
            && known.boot == theirs.boot
        {
            theirs.pulse = theirs.pulse.max(known.pulse);
        }
        if self.nodes.len() >= REMEMBERED_MAX && !self.nodes.contains_key(&node) {
            return;
        }
        self.has_news |= self.nodes.insert(node, theirs) != Some(theirs);
    }

    /// A connected node tells its pulse.
    pub fn heard(&mut self, node: u64, pulse: u64) {
        if let Some(known) = self.nodes.get_mut(&node)
            && pulse > known.pulse
        {
            known.pulse = pulse;
            self.has_news = true;
        }
    }

    /// What the disk is to remember with the next write, which is another second's.
    pub fn next_beat(&mut self) -> Vec<u8> {
        self.has_news = false;
        self.to_bytes(self.pulse + 1)
    }

    /// It does.
    pub fn beaten(&mut self) {
        self.pulse += 1;
    }

    /// Little-endian: the pulse, then of each node its id, directory, admission, pulse and boot. Never to change.
    fn to_bytes(&self, pulse: u64) -> Vec<u8> {
        let mut bytes = pulse.to_le_bytes().to_vec();
        for (node, known) in &self.nodes {
            bytes.extend_from_slice(&node.to_le_bytes());
            bytes.extend_from_slice(&known.directory.to_le_bytes());
            for number in [known.since, known.pulse, known.boot] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pulse, rest) = bytes.split_first_chunk::<8>()?;
        let (nodes, []) = rest.as_chunks::<48>() else {
            return None;
        };
        let nodes = nodes.iter().map(|record| {
            let (node, rest) = record.split_first_chunk::<8>()?;
            let (directory, rest) = rest.split_first_chunk::<16>()?;
            let (numbers, _) = rest.as_chunks::<8>();
            let [since, pulse, boot] = numbers else {
                return None;
            };
            let known = Known {
                directory: u128::from_le_bytes(*directory),
                since: u64::from_le_bytes(*since),
                pulse: u64::from_le_bytes(*pulse),
                boot: u64::from_le_bytes(*boot),
            };
            Some((u64::from_le_bytes(*node), known))
        });
        Some(Self {
            pulse: u64::from_le_bytes(*pulse),
            nodes: nodes.collect::<Option<_>>()?,
            has_news: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_survives_the_disk_with_the_next_pulse() {
        let mut own = Acquaintances::default();
        let theirs = Known {
            directory: u128::MAX - 3,
            since: 77,
            pulse: 5,
            boot: u64::MAX,
        };
        own.met(2, theirs);
        own.heard(2, 4);
        own.heard(3, 9);
        assert_eq!(own.known(2), Some(&theirs), "no pulse goes back");
        assert!(own.has_news());
        let bytes = own.next_beat();
        assert_eq!(own.pulse(), 0, "not durable yet");
        own.beaten();
        assert!(!own.has_news());
        assert_eq!(Acquaintances::from_bytes(&bytes), Some(own));
        assert_eq!(Acquaintances::from_bytes(&bytes[..bytes.len() - 1]), None);
    }
}
