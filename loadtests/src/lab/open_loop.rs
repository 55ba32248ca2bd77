//! Calls on a schedule that does not wait for answers, as shoppers do not: each is timed from when
//! it was due, so that a stall counts for every call it delayed (no coordinated omission).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::call::Caller;
use super::pacer::Pacer;
use super::recorder::Recorder;

/// Calls that may wait for answers at the same time, and whoever makes several until the last is
/// answered. Past this, calls that are due wait to be sent, and that wait is part of their time.
const IN_FLIGHT_MAX: usize = 4_096;

/// Sends calls, or whoever makes several, off when they are due.
pub(crate) struct Departures<'a> {
    recorder: &'a Rc<Recorder>,
    pacer: Pacer,
    permits: Arc<Semaphore>,
    under_way: JoinSet<()>,
}

impl<'a> Departures<'a> {
    pub(crate) fn new(recorder: &'a Rc<Recorder>) -> anyhow::Result<Departures<'a>> {
        Ok(Departures {
            recorder,
            pacer: Pacer::new().context("cannot make a timer")?,
            permits: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            under_way: JoinSet::new(),
        })
    }

    /// Sends one off; `false` where it was due too long ago, and the schedule is over.
    pub(crate) async fn send(
        &mut self,
        due: Instant,
        call: impl Future<Output = ()> + 'static,
    ) -> anyhow::Result<bool> {
        if self.recorder.is_too_late(due) {
            return Ok(false);
        }
        self.pacer
            .wait_until(due)
            .await
            .context("cannot wait for a timer")?;
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        self.under_way.spawn_local(async move {
            call.await;
            drop(permit);
        });
        // What has ended is let go, so that a long schedule does not collect its tasks.
        while self.under_way.try_join_next().is_some() {}
        Ok(true)
    }

    /// Those that have not ended.
    pub(crate) fn under_way(self) -> JoinSet<()> {
        self.under_way
    }
}

/// Sends calls from now until the window ends; returns those that are still unanswered.
pub(super) async fn run<C: Caller>(
    targets: &[C],
    per_second: u32,
    recorder: &Rc<Recorder>,
) -> anyhow::Result<JoinSet<()>> {
    let interval = Duration::from_secs(1) / per_second;
    let mut departures = Departures::new(recorder)?;
    let started = Instant::now();
    for number in 0u32.. {
        let due = started + interval * number;
        if due >= recorder.until() {
            break;
        }
        let mut target = targets[number as usize % targets.len()].clone();
        let recorder = Rc::clone(recorder);
        let call = async move {
            let sent = Instant::now();
            match target.call().await {
                Ok(outcome) => recorder.answered_due(due, sent, outcome, target.last()),
                Err(error) => recorder.failed(error),
            }
        };
        if !departures.send(due, call).await? {
            break;
        }
    }
    Ok(departures.under_way())
}
