//! A fixed number of callers, each sending its next call when the last is answered: how much a
//! system can do, and how long one call takes when nobody queues.

use std::rc::Rc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::call::{Caller, Outcome};
use super::recorder::Recorder;

/// Starts the callers; they end with the window, or at their first error.
pub(super) fn start<C: Caller>(
    targets: &[C],
    in_flight: usize,
    recorder: &Rc<Recorder>,
) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for caller in 0..in_flight {
        let targets = targets.to_vec();
        // Callers start at different targets, so that they do not all ask the same shard at once.
        let first = caller * targets.len() / in_flight;
        callers.spawn_local(call_in_turn(targets, first, Rc::clone(recorder)));
    }
    callers
}

async fn call_in_turn<C: Caller>(mut targets: Vec<C>, first: usize, recorder: Rc<Recorder>) {
    let mut next = first;
    loop {
        let started = Instant::now();
        if started >= recorder.until() {
            return;
        }
        match targets[next].call().await {
            Ok(Outcome::Done) => recorder.answered(started, Instant::now(), targets[next].last()),
            Ok(Outcome::Refused) => recorder.failed("refused in a closed loop".to_owned()),
            Err(error) => {
                recorder.failed(error);
                return;
            }
        }
        next = (next + 1) % targets.len();
    }
}
