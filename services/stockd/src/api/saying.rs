//! Says to shards what they are told when those who asked have their answers. That baskets are held
//! waits for a moment, so that it is said together and in nobody's way; what gives units back is
//! said at once. Nothing depends on it: what finds no room, or has no answer in time, is found out
//! by the shards' leaders.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use stock_core::{Action, BasketCommand, BasketOutcome, Decision, Outcome};
use stock_node::basket::{ANSWERED_WITHIN_MS, ToShard};
use tokio::time::{sleep, timeout};

use super::afterwards::{SAID_AFTER, Saying};
use super::edge::Edge;
use super::sorter::Sorter;

/// So long they have for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_millis(ANSWERED_WITHIN_MS);

/// Begins to say this: what can wait does.
pub(super) fn begin(edge: &Arc<Edge>, tell: Vec<ToShard>) {
    let (wait, now): (Vec<_>, Vec<_>) = tell.into_iter().partition(can_wait);
    if !now.is_empty() {
        let edge = Arc::clone(edge);
        tokio::spawn(async move {
            if let Some(saying) = edge.afterwards.at_once(now) {
                say(&edge, saying).await;
            }
        });
    }
    say_later(edge, wait, Vec::new());
}

/// Passes on what a home has answered.
pub(super) fn pass_on(edge: &Arc<Edge>, answers: impl Iterator<Item = Outcome>) {
    let is_news = |it: &Outcome| matches!(it, Outcome::Basket(BasketOutcome::AllHeld(_)));
    say_later(edge, Vec::new(), answers.filter(is_news).collect());
}

fn say_later(edge: &Arc<Edge>, tell: Vec<ToShard>, answers: Vec<Outcome>) {
    if edge.afterwards.add(tell, answers) {
        let edge = Arc::clone(edge);
        tokio::spawn(async move {
            sleep(SAID_AFTER).await;
            say(&edge, edge.afterwards.take()).await;
        });
    }
}

/// Says this, and passes on what homes answer.
pub(super) async fn say(edge: &Arc<Edge>, saying: Saying<'_>) {
    let mut sorter = Sorter::default();
    for it in &saying.tell {
        sorter.add(0, it.shard, &it.command);
    }
    let said = join_all(sorter.take().map(async |batch| {
        if let Ok(decided) = timeout(ANSWERED_WITHIN, batch.decide(edge)).await {
            pass_on(edge, decided.outcomes().filter_map(|it| it.2.ok()));
        }
    }));
    said.await;
}

/// Whether it can wait: that a basket is held changes nothing for anybody else.
fn can_wait(tell: &ToShard) -> bool {
    match &tell.command.action {
        Action::Basket(BasketCommand::Decide(decide)) => decide.decision == Decision::Held,
        _ => false,
    }
}
