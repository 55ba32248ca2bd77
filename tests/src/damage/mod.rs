//! Every kind of file that a node keeps, damaged in every way that disks and people damage files,
//! on one node, on two and on all three: what a cluster makes of it, what an operator has to do,
//! and what is lost.

mod harm;
mod mend;
mod table;
mod trial;

pub use harm::{Harm, Kind};
pub use table::table;
pub use trial::{Sweep, Trial};

/// What became of a cluster.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was tried.
    pub trial: Trial,
    /// What the cluster did by itself, and what an operator did.
    pub deeds: Vec<String>,
    /// What is not there any more of what had been acknowledged.
    pub lost: Lost,
    /// What the damaged nodes said of it first, in their own words.
    pub words: Vec<String>,
}

/// What is not there any more of what had been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// All is there.
    Nothing,
    /// This, and `stockd recover` had said so before it did anything.
    Told(String),
    /// This, and nobody had said so: never to be.
    Untold(String),
    /// The cluster is not whole again, for this reason.
    Everything(String),
}

/// Every trial there is.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in Kind::ALL {
        for harm in kind.harms() {
            for nodes in [&[3][..], &[2, 3], &[1, 2, 3]] {
                trials.push(Trial {
                    kind: *kind,
                    harm: *harm,
                    nodes: nodes.to_vec(),
                });
            }
        }
    }
    trials
}
