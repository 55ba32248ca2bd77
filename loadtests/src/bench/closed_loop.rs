//! A fixed number of callers, each sending its next call when the last is answered: how much the
//! cluster can do, and how long one call takes when nobody queues.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::call::{CallKind, Recorder, Target};

/// Starts the callers; they end with the window, or at their first error.
pub(crate) fn start(
    targets: &[Target],
    kind: CallKind,
    in_flight: usize,
    recorder: &Arc<Recorder>,
) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for caller in 0..in_flight {
        let targets = targets.to_vec();
        // Callers start at different targets, so that they do not all ask the same shard at once.
        let first = caller * targets.len() / in_flight;
        callers.spawn(call_in_turn(targets, first, kind, Arc::clone(recorder)));
    }
    callers
}

async fn call_in_turn(
    mut targets: Vec<Target>,
    first: usize,
    kind: CallKind,
    recorder: Arc<Recorder>,
) {
    let mut next = first;
    loop {
        let started = Instant::now();
        if started >= recorder.until() {
            return;
        }
        if let Err(error) = targets[next].call(kind).await {
            recorder.failed(error);
            return;
        }
        recorder.answered(started);
        next = (next + 1) % targets.len();
    }
}
