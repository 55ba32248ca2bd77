//! Which versions of the cluster a build speaks.
//!
//! A version is everything that nodes write for each other to read: entries of logs, states,
//! messages between peers, and what calls may ask for. The registry holds the one that the cluster
//! speaks; nothing of a later one is written before an operator has raised it, which the registry
//! refuses while a node cannot follow. So nodes of two neighbouring builds form one cluster, and
//! the newer one can be taken back until then.

use std::fmt;

/// The versions that a node speaks: one, or two neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaks {
    /// The lowest.
    pub oldest: u32,
    /// The highest.
    pub newest: u32,
}

impl Speaks {
    /// What this build speaks.
    pub const THIS: Self = Self {
        oldest: 1,
        newest: 1,
    };

    /// Whether it can be in a cluster that speaks this version. 0: none is known yet.
    pub fn can_follow(self, version: u32) -> bool {
        version == 0 || self.includes(version)
    }

    /// Whether a version is among them.
    pub fn includes(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// Whether there is one that both speak.
    pub fn meets(self, other: Self) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

impl fmt::Display for Speaks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(out, "version {}", self.newest),
            false => write!(out, "versions {} to {}", self.oldest, self.newest),
        }
    }
}
