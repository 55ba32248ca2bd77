//! What is not decided yet of a basket over several shards, as callers come upon it. Whoever
//! changes a reservation has that found out first, and so has whoever looks one up by its id; a
//! list waits for a moment and says so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use stock_cluster::GroupId;
use stock_core::{Command, Outcome, Prepared, Reservation, ReservationId, Stamp};
use stock_node::answer::{Answer, Failure, Freshness, Question};
use stock_node::basket::{Coordinator, Settling};
use tokio::time::sleep;

use super::afterwards::SAID_AFTER;
use super::edge::{Edge, Proposed};
use super::error::ApiError;
use super::over_shards::{self, CameOf};
use super::saying;
use super::seen::Seen;

/// Whoever has a basket held says so to home soon after the answer: it takes this long as a rule.
const DECIDED_WITHIN: Duration = SAID_AFTER.saturating_mul(2);

/// Requests that are undecided when a command comes to a reservation are settled before it, one
/// after the other, and so many of them at most.
const SETTLED_MAX: u32 = 3;

/// Has a reserve, an amendment or a change of a reservation carried out, by all of its shards.
///
/// # Errors
///
/// [`ApiError::Failed`].
pub(super) async fn carry_out(
    edge: &Arc<Edge>,
    shard: u32,
    mut command: Command,
) -> Result<(Seen, Outcome), ApiError> {
    for _ in 0..=SETTLED_MAX {
        let (seen, outcome) = match Coordinator::new(command) {
            Ok(begun) => {
                command = begun.0.command().clone();
                let over_shards = Box::pin(over_shards::carry_out(edge, begun));
                let CameOf { said, seen, .. } = over_shards.await;
                (seen, said?)
            }
            Err(alone) => {
                let applied = propose(edge, shard, &alone).await?;
                command = alone;
                let seen = Seen::of(GroupId::of_shard(shard), &applied);
                (seen, applied.only()?.of_stock()?)
            }
        };
        match outcome {
            Outcome::Undecided(prepared) => Box::pin(settle(edge, prepared)).await?,
            outcome => return Ok((seen, outcome)),
        }
    }
    Err(Failure::OutcomeUnknown.into())
}

/// Has a shard carry a command out, and before it what waits to be said of the same reservation.
async fn propose(edge: &Arc<Edge>, shard: u32, command: &Command) -> Proposed {
    let before = command.action.reservation();
    let before = before.map(|id| edge.afterwards.take_before(&id));
    let Some(before) = before.filter(|before| !before.is_empty()) else {
        return edge.propose_one(shard, command).await;
    };
    let said = saying::say(edge, before);
    // Both are on their way before either has an answer, and in this order.
    tokio::join!(said, edge.propose_one(shard, command)).1
}

/// Finds out what has become of what is prepared, and has home decide it.
async fn settle(edge: &Arc<Edge>, prepared: Arc<Prepared>) -> Result<(), Failure> {
    let mut settling = Settling::new(prepared);
    let probes: Vec<_> = settling.unanswered().collect();
    let probes = probes
        .into_iter()
        .map(|probe| over_shards::ask(edge, probe));
    for (shard, said) in join_all(probes).await {
        settling.answered(shard, said);
    }
    match settling.decision() {
        Some(decide) => {
            let said = over_shards::ask(edge, decide).await.1?;
            saying::pass_on(edge, std::iter::once(said));
            Ok(())
        }
        // Home has decided meanwhile.
        None if settling.is_over() => Ok(()),
        None => Err(settling.failure().unwrap_or(Failure::OutcomeUnknown)),
    }
}

/// What this node's replica knows of a reservation.
pub(super) struct Known {
    /// It, if it is there.
    pub(super) reservation: Option<Arc<Reservation>>,
    /// Whether it is not known what becomes of it, or of what was amended.
    pub(super) is_pending: bool,
    pub(super) applied_index: u64,
    pub(super) now: Stamp,
}

/// Looks a reservation up. Where something of it is not decided it looks once more after a moment,
/// and has it settled if need be.
pub(super) async fn look_up(
    edge: &Arc<Edge>,
    id: ReservationId,
    freshness: Freshness,
) -> Result<Known, Failure> {
    let (known, undecided) = look(edge, id, freshness).await?;
    if undecided.is_none() {
        return Ok(known);
    }
    let waits = edge.afterwards.take_before(&id);
    if !waits.is_empty() {
        saying::say(edge, waits).await;
        return Ok(look(edge, id, Freshness::LINEARIZABLE).await?.0);
    }
    let (known, undecided) = look_again(edge, id).await?;
    let Some(prepared) = undecided else {
        return Ok(known);
    };
    match settle(edge, prepared).await {
        Ok(()) => Ok(look(edge, id, Freshness::LINEARIZABLE).await?.0),
        Err(_) => Ok(known),
    }
}

/// Looks once more, after a moment, at a reservation of which something was not decided.
pub(super) async fn look_again(
    edge: &Edge,
    id: ReservationId,
) -> Result<(Known, Option<Arc<Prepared>>), Failure> {
    sleep(DECIDED_WITHIN).await;
    look(edge, id, Freshness::LINEARIZABLE).await
}

async fn look(
    edge: &Edge,
    id: ReservationId,
    freshness: Freshness,
) -> Result<(Known, Option<Arc<Prepared>>), Failure> {
    let group = GroupId::of_shard(id.shard());
    match edge.ask(group, freshness, Question::Reservation(id)).await {
        Answer::Reservation {
            reservation,
            undecided,
            applied_index,
            now,
        } => {
            let known = Known {
                reservation,
                is_pending: undecided.is_some(),
                applied_index,
                now,
            };
            Ok((known, undecided))
        }
        Answer::Failed(failure) => Err(failure),
        Answer::Outcomes(_) | Answer::Reached { .. } | Answer::Listed { .. } => {
            Err(Failure::TooFarBehind)
        }
    }
}
