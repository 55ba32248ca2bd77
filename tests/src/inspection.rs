//! What stopped nodes have on their disks, as `stockd inspect --verify` finds it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, NODES};
use crate::programs;

/// What `stockd inspect --verify` says of a data directory, and whether it found all well. Panics
/// where it finds nothing to look at.
pub fn inspect(dir: &Path) -> (bool, Value) {
    inspect_with(&programs::stockd(), dir)
}

fn inspect_with(stockd: &Path, dir: &Path) -> (bool, Value) {
    let output = programs::without_settings(Command::new(stockd))
        .args(["inspect", "--verify", "-o", "json", "--data-dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("stockd: {e}"));
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{}: {e}: {said}", dir.display())
    });
    (output.status.success(), report)
}

/// Kills the nodes and reads every byte of what each left: its log, every checkpoint, the state
/// that they make, and the ledger. Panics unless all of it is as it was written, every group is
/// there and led to a state, those at one index are equal, and no ledger has a gap. Returns the
/// first index of each stock shard's ledger on each node.
pub fn verify_what_is_left(cluster: &Cluster) -> Vec<Vec<u64>> {
    verify_with(&programs::stockd(), cluster)
}

/// As [`verify_what_is_left`], as another build finds it.
pub fn verify_with(stockd: &Path, cluster: &Cluster) -> Vec<Vec<u64>> {
    cluster.kill_all();
    let mut hashes = std::collections::BTreeMap::new();
    let mut begins = Vec::new();
    for node in NODES {
        let (is_well, report) = inspect_with(stockd, &cluster.data_dir(node));
        assert!(is_well, "node {node}: {report:#}");
        let groups = report["groups"].as_array().cloned().unwrap_or_default();
        assert_eq!(groups.len() as u32, cluster.shards() + 1, "{report:#}");
        let mut begins_here = Vec::new();
        for group in &groups {
            let (state, ledger) = (&group["state"], &group["ledger"]);
            let place = (group["group"].as_u64(), state["index"].as_u64());
            assert!(place.1.is_some(), "node {node} has no state of {group:#}");
            let hash = hashes.entry(place).or_insert_with(|| state["hash"].clone());
            assert_eq!(*hash, state["hash"], "node {node}, {place:?}");
            if place.0 != Some(0) {
                let no_holes = ledger["holes"].as_array().is_some_and(Vec::is_empty);
                assert!(no_holes, "node {node}: {group:#}");
                begins_here.extend(ledger["from"].as_u64());
            }
        }
        begins.push(begins_here);
    }
    begins
}
