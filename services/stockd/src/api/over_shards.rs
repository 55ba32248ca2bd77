//! Baskets over several shards under way. Each is coordinated by itself (`stock_node::basket`);
//! what they have to tell a shard at the same time travels there together.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use stock_api::basket;
use stock_cluster::GroupId;
use stock_node::answer::{Applied, Failure, Outcome};
use stock_node::basket::{Coordinator, Ended, Said, Then, ToShard};
use stock_proto::stock::v1 as api;
use tokio::time::sleep;

use super::edge::Edge;
use super::error::ApiError;
use super::saying;
use super::seen::Seen;
use super::sorter::{At, Decided, Sorter};

/// Baskets over several shards: what comes of each, as soon as it is known.
pub(super) struct OverShards {
    edge: Arc<Edge>,
    baskets: HashMap<u64, Basket>,
    /// What shards have yet to be told, and of which basket it is.
    tell: Sorter,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Heard> + Send>>>,
    /// Of what shards are being told.
    bytes: usize,
    ended: VecDeque<(u64, CameOf)>,
    /// To be told when those who asked have their answers.
    afterwards: Vec<ToShard>,
}

/// A basket, and what is to be told of it at first.
pub(super) type Begun = (Coordinator, Vec<ToShard>);

struct Basket {
    coordinator: Coordinator,
    seen: Seen,
    began: Instant,
}

/// What came of a basket.
pub(super) struct CameOf {
    /// What its shards said.
    pub(super) said: Said,
    /// Where that is written.
    pub(super) seen: Seen,
    /// When it was begun.
    pub(super) began: Instant,
}

impl CameOf {
    /// What its maker is told, without a header.
    pub(super) fn answer(self) -> Result<api::ReserveResponse, ApiError> {
        Ok(basket::response(self.seen.time(), self.said?)?)
    }
}

enum Heard {
    Decided(Decided),
    /// It is time to tell more of this basket.
    Now(u64, Vec<ToShard>),
}

impl OverShards {
    /// None yet.
    pub(super) fn new(edge: &Arc<Edge>) -> Self {
        Self {
            edge: Arc::clone(edge),
            baskets: HashMap::new(),
            tell: Sorter::default(),
            under_way: FuturesUnordered::new(),
            bytes: 0,
            ended: VecDeque::new(),
            afterwards: Vec::new(),
        }
    }

    /// Begins one, which its caller knows by this number.
    pub(super) fn add(&mut self, number: u64, (coordinator, first): Begun) {
        let (seen, began) = (Seen::default(), Instant::now());
        let basket = Basket {
            coordinator,
            seen,
            began,
        };
        self.baskets.insert(number, basket);
        self.tell(number, &first);
    }

    /// Whether nothing is under way, and nothing waits to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.baskets.is_empty() && self.ended.is_empty()
    }

    /// Of everything that shards are told, or are about to be.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.tell.bytes()
    }

    fn tell(&mut self, number: u64, tell: &[ToShard]) {
        for it in tell {
            self.tell.add(number, it.shard, &it.command);
        }
    }

    fn send(&mut self) {
        for batch in self.tell.take() {
            self.bytes += batch.bytes();
            let edge = Arc::clone(&self.edge);
            let decided = async move { Heard::Decided(batch.decide(&edge).await) };
            self.under_way.push(Box::pin(decided));
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Now(number, tell) => self.tell(number, &tell),
            Heard::Decided(decided) => {
                self.bytes -= decided.bytes();
                let shard = decided.shard();
                for (number, at, said) in decided.outcomes() {
                    self.shard_said(number, shard, at, said);
                }
            }
        }
    }

    fn shard_said(&mut self, number: u64, shard: u32, at: Option<At>, said: Said) {
        let Some(basket) = self.baskets.get_mut(&number) else {
            return;
        };
        if let Some(at) = at {
            basket
                .seen
                .wrote(GroupId::of_shard(shard), at.index, at.stamp);
        }
        match basket.coordinator.answered(shard, said) {
            Then::Wait => {}
            Then::Tell(tell) => self.tell(number, &tell),
            Then::TellLater(ms, tell) => self.under_way.push(Box::pin(async move {
                sleep(Duration::from_millis(ms)).await;
                Heard::Now(number, tell)
            })),
            Then::End(Ended { said, afterwards }) => {
                self.afterwards.extend(afterwards);
                if let Some(Basket { seen, began, .. }) = self.baskets.remove(&number) {
                    self.ended.push_back((number, CameOf { said, seen, began }));
                }
            }
        }
    }
}

impl Stream for OverShards {
    type Item = (u64, CameOf);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(ended) = this.ended.pop_front() {
                if this.ended.is_empty() {
                    saying::begin(&this.edge, std::mem::take(&mut this.afterwards));
                }
                return Poll::Ready(Some(ended));
            }
            this.send();
            match this.under_way.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(heard)) => this.hear(heard),
            }
        }
    }
}

/// What came of a single one.
pub(super) async fn carry_out(edge: &Arc<Edge>, begun: Begun) -> CameOf {
    let mut baskets = OverShards::new(edge);
    baskets.add(0, begun);
    match baskets.next().await {
        Some((_, came_of)) => came_of,
        None => CameOf {
            said: Err(Failure::OutcomeUnknown),
            seen: Seen::default(),
            began: Instant::now(),
        },
    }
}

/// What a shard says to a single command, wherever it is led.
pub(super) async fn ask(edge: &Edge, tell: ToShard) -> (u32, Said) {
    let applied = edge.propose_one(tell.shard, &tell.command).await;
    let said = applied.and_then(Applied::only);
    (tell.shard, said.and_then(Outcome::of_stock))
}
