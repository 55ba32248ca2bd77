//! A shop's trade while nodes fail, with a tally of what it was told.
//!
//! A call that fails for want of a node is made again, as it was, until it is answered: so
//! everything that was asked for is known to have happened once, and in the end every unit is
//! accounted for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::{Client, Error};
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    Availability, ConfirmRequest, FulfillRequest, RecordReceiptsRequest, ReleaseRequest,
    Reservation, ReserveRequest,
};
use stock_tally::stock::check_recorded;
use stock_tally::{Count, OrderLine, Tally};
use tonic::Code;

use crate::cluster::Cluster;
use crate::names::{fresh, request_id, sku_in};
use crate::stock::{
    fresh_location, line, movement, outcome, position_seen, position_since, reservation, seconds,
};
use crate::wait::until;

/// From the first time that a call is made until it is answered, whatever fails meanwhile.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Between two attempts at a call that nobody could answer.
const PAUSE: Duration = Duration::from_millis(20);

/// For the calls that [`Shop::more_calls`] waits for, elections and restarts included.
const CALLS_WITHIN: Duration = Duration::from_secs(60);

/// Longer than any run.
const HOLD_SECONDS: i64 = 86_400;

const CALLERS: u64 = 12;

/// SKUs of which there is always enough, and those that are always short.
const PLENTY: u32 = 4;
const SCARCE: u32 = 2;
const OPENING: i64 = 1_000_000_000;

/// Reads of the accounts that are under way at once.
const READS_AT_ONCE: usize = 32;

/// A shop with its own location and SKUs.
pub struct Shop {
    client: Client,
    location: String,
    plenty: Vec<String>,
    scarce: Vec<String>,
    told: Told,
    is_over: Cell<bool>,
}

/// What the callers were told.
struct Told {
    orders: RefCell<Vec<Order>>,
    /// Orders that have been looked at since they ended.
    orders_seen: Cell<usize>,
    /// Of all SKUs: those of which there is plenty, then the scarce.
    stock: RefCell<Tally>,
    shortages: Cell<u64>,
    calls: Cell<u64>,
    failures: Cell<u64>,
}

impl Told {
    fn new() -> Self {
        Self {
            orders: RefCell::default(),
            orders_seen: Cell::new(0),
            stock: RefCell::new(Tally::new((PLENTY + SCARCE) as usize)),
            shortages: Cell::new(0),
            calls: Cell::new(0),
            failures: Cell::new(0),
        }
    }
}

/// An order that has ended, and how.
#[derive(Debug, Clone)]
struct Order {
    id: String,
    quantity: i64,
    state: State,
}

impl Shop {
    /// Puts a location and has stock arrive in every shard.
    pub async fn open(cluster: &Cluster) -> Self {
        let client = cluster.client().await;
        let location = fresh_location(&client).await;
        let skus = |count: u32, prefix: &str| {
            let shards = cluster.shards();
            let numbers = 0..count;
            let skus = numbers.map(|number| sku_in(number % shards, shards, prefix));
            skus.collect::<Vec<String>>()
        };
        let shop = Self {
            location,
            plenty: skus(PLENTY, "plenty"),
            scarce: skus(SCARCE, "scarce"),
            told: Told::new(),
            is_over: Cell::new(false),
            client,
        };
        for sku in &shop.plenty {
            shop.receive(sku, OPENING).await;
        }
        for sku in &shop.scarce {
            shop.receive(sku, 1).await;
        }
        shop
    }

    /// Trades as long as `trouble` goes on, then lets the callers finish what they have begun.
    pub async fn trade_during<T>(&self, seed: u64, trouble: impl Future<Output = T>) -> T {
        self.is_over.set(false);
        let callers = join_all((0..CALLERS).map(|caller| self.call(seed.wrapping_add(caller))));
        let trouble = async {
            let done = trouble.await;
            self.is_over.set(true);
            done
        };
        let (_, done) = tokio::join!(callers, trouble);
        done
    }

    /// Waits until so many calls more have been answered.
    pub async fn more_calls(&self, count: u64) {
        let target = self.told.calls.get() + count;
        until("calls under load", CALLS_WITHIN, async || {
            let done = self.told.calls.get();
            (done >= target)
                .then_some(())
                .ok_or(format!("{done} of {target}"))
        })
        .await;
    }

    /// Calls that were answered.
    pub fn calls(&self) -> u64 {
        self.told.calls.get()
    }

    /// Reserves that were answered with a shortage.
    pub fn shortages(&self) -> u64 {
        self.told.shortages.get()
    }

    /// Calls that the client gave up and that were made again. While two of three nodes run there
    /// shall be none.
    pub fn failures(&self) -> u64 {
        self.told.failures.get()
    }

    /// Looks at every order that has ended since the last look, and at all stock, at every node
    /// that runs. Panics, saying what is missing, unless every unit is where the callers were told
    /// it is.
    pub async fn account_for_new(&self, cluster: &Cluster) {
        let seen = self.told.orders_seen.get();
        self.account(cluster, seen).await;
    }

    /// As [`Shop::account_for_new`], for all orders since the shop was opened.
    pub async fn account_for_all(&self, cluster: &Cluster) {
        self.account(cluster, 0).await;
    }

    async fn account(&self, cluster: &Cluster, from: usize) {
        let orders = self.told.orders.borrow().clone();
        for some in orders[from..].chunks(READS_AT_ONCE) {
            join_all(some.iter().map(|order| self.check_order(order))).await;
        }
        self.told.orders_seen.set(orders.len());
        for (position, sku) in self.skus().enumerate() {
            let told = self.told.stock.borrow().count(position);
            self.check_stock(cluster, sku, told).await;
        }
    }

    async fn check_order(&self, order: &Order) {
        let read = async || reservation(&self.client, &order.id).await;
        let found = self.answered("a read of an order", read).await;
        let line = &found.lines[0];
        assert_eq!(
            (found.state(), line.quantity),
            (order.state, order.quantity),
            "acknowledged: {order:?}; found: {found:?}"
        );
    }

    fn skus(&self) -> impl Iterator<Item = &String> {
        self.plenty.iter().chain(&self.scarce)
    }

    async fn check_stock(&self, cluster: &Cluster, sku: &str, told: Count) {
        assert!(told.reserved <= told.on_hand, "{sku} is oversold: {told:?}");
        let read = async || position_seen(&self.client, sku, &self.location).await;
        let (now, seen) = self.answered("a read of stock", read).await;
        assert_eq!(count(&now), told, "{sku}: {now:?}");
        for node in cluster.running() {
            let channel = cluster.channel(node);
            let there = until("a replica that catches up", CALLS_WITHIN, async || {
                let read = position_since(&channel, sku, &self.location, &seen).await;
                read.map_err(|status| format!("node {node}: {status}"))
            })
            .await;
            assert_eq!(count(&there), told, "{sku} at node {node}");
        }
    }

    async fn call(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.is_over.get() {
            if random.random_bool(0.1) {
                let sku = &self.scarce[random.random_range(0..self.scarce.len())];
                self.receive(sku, random.random_range(1..=3)).await;
                continue;
            }
            let skus = match random.random_bool(0.25) {
                true => &self.scarce,
                false => &self.plenty,
            };
            let sku = &skus[random.random_range(0..skus.len())];
            let quantity = random.random_range(1..=3);
            self.order(sku, quantity, random.random_range(0..5)).await;
        }
    }

    async fn receive(&self, sku: &str, quantity: i64) {
        let request = RecordReceiptsRequest {
            source: None,
            document: fresh("note"),
            lines: vec![movement(sku, &self.location, quantity)],
        };
        let call = async || self.client.record_receipts([request.clone()]).await;
        let verdicts = self.answered("a receipt", call).await.verdicts;
        check_recorded(1, &verdicts).unwrap();
        self.count();
        let position = self.position_of(sku);
        self.told.stock.borrow_mut().received(position, quantity);
    }

    /// An order that ends in one of five ways, or in a shortage.
    async fn order(&self, sku: &str, quantity: i64, end: u32) {
        let request = ReserveRequest {
            request_id: request_id(),
            lines: vec![line(sku, &self.location, quantity)],
            ttl: seconds(HOLD_SECONDS),
            order_reference: Some(fresh("order")),
            channel: Some("web".to_owned()),
        };
        let call = async || self.client.reserve(request.clone()).await;
        let held = outcome(self.answered("a reserve", call).await);
        self.count();
        let Ok(held) = held else {
            self.told.shortages.set(self.told.shortages.get() + 1);
            return;
        };
        let lines = [OrderLine {
            position: self.position_of(sku),
            quantity,
        }];
        self.told.stock.borrow_mut().held(&lines);
        let id = held.reservation_id;
        let state = match end {
            0 => State::Held,
            1 => self.confirm(&id).await,
            2 => {
                self.confirm(&id).await;
                self.fulfill(&id).await
            }
            3 => {
                self.confirm(&id).await;
                self.release(&id).await
            }
            _ => self.release(&id).await,
        };
        match state {
            State::Fulfilled => self.told.stock.borrow_mut().handed_over(&lines),
            State::Released => self.told.stock.borrow_mut().given_back(&lines),
            _ => {}
        }
        self.told.orders.borrow_mut().push(Order {
            id,
            quantity,
            state,
        });
    }

    async fn confirm(&self, id: &str) -> State {
        let request = ConfirmRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            ..Default::default()
        };
        let call = async || self.client.confirm(request.clone()).await;
        let answer = self.answered("a confirm", call).await;
        self.ended(answer.reservation.as_ref(), State::Confirmed)
    }

    async fn fulfill(&self, id: &str) -> State {
        let request = FulfillRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            ..Default::default()
        };
        let call = async || self.client.fulfill(request.clone()).await;
        let answer = self.answered("a fulfilment", call).await;
        self.ended(answer.reservation.as_ref(), State::Fulfilled)
    }

    async fn release(&self, id: &str) -> State {
        let request = ReleaseRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            ..Default::default()
        };
        let call = async || self.client.release(request.clone()).await;
        let answer = self.answered("a release", call).await;
        self.ended(answer.reservation.as_ref(), State::Released)
    }

    fn ended(&self, found: Option<&Reservation>, expected: State) -> State {
        let state = found.map(Reservation::state);
        assert_eq!(state, Some(expected), "{found:?}");
        self.count();
        expected
    }

    fn position_of(&self, sku: &str) -> usize {
        let position = self.skus().position(|known| known == sku);
        position.unwrap_or_else(|| panic!("{sku} is not the shop's"))
    }

    fn count(&self) {
        self.told.calls.set(self.told.calls.get() + 1);
    }

    /// Makes a call until it is answered. What a node refuses, and what no failing node explains,
    /// is a broken promise.
    async fn answered<T>(&self, what: &str, mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
        let began = Instant::now();
        loop {
            let error = match call().await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            let is_broken = error.status().is_some_and(|status| status.transport);
            let is_transient = matches!(
                error.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::ResourceExhausted
            );
            assert!(is_broken || is_transient, "{what}: {error:?}");
            let waited = began.elapsed();
            assert!(
                waited < ANSWERED_WITHIN,
                "{what}: after {waited:?}: {error}"
            );
            self.told.failures.set(self.told.failures.get() + 1);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn count(seen: &Availability) -> Count {
    Count {
        on_hand: seen.on_hand,
        reserved: seen.reserved,
    }
}
