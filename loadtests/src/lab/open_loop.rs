//! Calls on a schedule that does not wait for answers, as shoppers do not: each is timed from when
//! it was due, so that a stall counts for every call it delayed (no coordinated omission).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Caller, Pacer, Recorder};

/// Calls that may wait for answers at the same time. Past this, calls that are due wait to be sent,
/// and that wait is part of their time.
const IN_FLIGHT_MAX: usize = 4_096;

/// How far behind its schedule a system may fall before it is over: it does not carry the rate.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Sends calls from now until the window ends; returns those that are still unanswered.
pub(super) async fn run<C: Caller>(
    targets: &[C],
    per_second: u32,
    recorder: &Rc<Recorder>,
) -> anyhow::Result<JoinSet<()>> {
    let interval = Duration::from_secs(1) / per_second;
    let pacer = Pacer::new().context("cannot make a timer")?;
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut calls = JoinSet::new();
    let started = Instant::now();
    for number in 0u32.. {
        let due = started + interval * number;
        if due >= recorder.until() {
            break;
        }
        if due + BEHIND_MAX < Instant::now() {
            recorder.fell_behind();
            break;
        }
        pacer
            .wait_until(due)
            .await
            .context("cannot wait for a timer")?;
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let mut target = targets[number as usize % targets.len()].clone();
        let recorder = Rc::clone(recorder);
        calls.spawn_local(async move {
            let sent = Instant::now();
            match target.call().await {
                Ok(outcome) => recorder.answered_due(due, sent, outcome, target.last()),
                Err(error) => recorder.failed(error),
            }
            drop(permit);
        });
        // What has ended is let go, so that a long window does not collect its tasks.
        while calls.try_join_next().is_some() {}
    }
    Ok(calls)
}
