//! Pulses and memory to `cluster.v1` and back.

use stock_wire::cluster::v1 as cluster;

use super::{Acquaintances, Beat, Beats, Known, number};
use crate::version::Speaks;

/// The versions of the cluster that it speaks.
pub fn speaks(hello: &cluster::Hello) -> Speaks {
    Speaks {
        oldest: hello.oldest_version,
        newest: hello.newest_version,
    }
}

/// The process that introduces itself.
pub fn boot(hello: &cluster::Hello) -> u64 {
    hello.beats.last().map_or(0, |beat| beat.boot)
}

/// What it says of itself.
pub fn known(hello: &cluster::Hello) -> Option<Known> {
    Some(Known {
        directory: number(&hello.directory)?,
        since: hello.since,
        beats: decode_beats(&hello.beats),
    })
}

/// Pulses, in their order.
pub fn encode_beats(beats: &Beats) -> Vec<cluster::Beat> {
    let beats = beats.all().iter().map(|beat| cluster::Beat {
        boot: beat.boot,
        pulse: beat.pulse,
    });
    beats.collect()
}

/// Pulses, the latest of them if there are too many.
pub fn decode_beats(beats: &[cluster::Beat]) -> Beats {
    let beats = beats.iter().map(|beat| Beat {
        boot: beat.boot,
        pulse: beat.pulse,
    });
    Beats::of(beats.collect())
}

/// Everything that a node remembers of others.
pub fn encode_memory(acquaintances: &Acquaintances) -> Vec<cluster::Memory> {
    let memory = acquaintances.memory();
    memory
        .map(|(node, known)| encode_known(node, known))
        .collect()
}

/// What is remembered of one node.
pub fn encode_known(node: u64, known: &Known) -> cluster::Memory {
    cluster::Memory {
        node_id: node,
        directory: known.directory.to_be_bytes().to_vec().into(),
        since: known.since,
        beats: encode_beats(&known.beats),
    }
}

/// What is remembered of one node, and which; nothing, where it names no directory.
pub fn decode_known(memory: &cluster::Memory) -> Option<(u64, Known)> {
    let known = Known {
        directory: number(&memory.directory)?,
        since: memory.since,
        beats: decode_beats(&memory.beats),
    };
    Some((memory.node_id, known))
}
