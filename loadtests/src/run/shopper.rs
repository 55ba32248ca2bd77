//! One call after the other, as the mix has it.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

use super::assortment::Assortment;
use super::holds::Holds;
use super::profile::{AtEnd, Lines, Mix};
use super::shop::{Hold, Shop};
use crate::lab::{Call, Caller, Outcome};
use stock_tally::OrderLine;

/// Units of a line that is received.
const UNITS_RECEIVED: std::ops::RangeInclusive<i64> = 1..=10;

/// When everything is over, so many holds are ended at the same time.
const ENDINGS_IN_FLIGHT: usize = 64;

/// Does what is drawn. Clones share everything but the memory of what they did last.
#[derive(Clone)]
pub(crate) struct Shopper {
    counter: Rc<Counter>,
    last: Call,
}

struct Counter {
    shop: Rc<Shop>,
    holds: RefCell<Holds>,
    assortment: Assortment,
    weights: WeightedIndex<u32>,
    lines: Lines,
    random: RefCell<StdRng>,
}

/// What is to be done, with what it takes.
enum Action {
    Reserve(Vec<OrderLine>),
    Confirm(Hold),
    Fulfill(Hold),
    Release(Hold),
    Read(Vec<usize>),
    Receive(Vec<OrderLine>),
}

impl Shopper {
    pub(crate) fn new(
        shop: &Rc<Shop>,
        assortment: Assortment,
        mix: &Mix,
        lines: Lines,
        holds: Holds,
        seed: u64,
    ) -> anyhow::Result<Shopper> {
        let weights = mix.weights().map(|(_, weight)| weight);
        let counter = Counter {
            shop: Rc::clone(shop),
            holds: RefCell::new(holds),
            assortment,
            weights: WeightedIndex::new(weights).context("the weights of the mix")?,
            lines,
            random: RefCell::new(StdRng::seed_from_u64(seed)),
        };
        Ok(Shopper {
            counter: Rc::new(counter),
            last: Call::ONE_LINE,
        })
    }

    /// Ends the holds that are open, but for those that were left to expire.
    pub(crate) async fn end(&self, at_end: AtEnd) -> anyhow::Result<()> {
        let counter = &self.counter;
        let shop = &counter.shop;
        let next = || match counter.take_held() {
            Some(hold) => Some((hold, false)),
            None if at_end == AtEnd::Sell => {
                let confirmed = counter.holds.borrow_mut().take_confirmed();
                confirmed.map(|hold| (hold, true))
            }
            None => None,
        };
        stream::iter(std::iter::from_fn(next))
            .map(|(hold, is_confirmed)| async move {
                if at_end == AtEnd::Release {
                    return shop.release(hold).await;
                }
                if !is_confirmed {
                    shop.confirm(&hold).await?;
                }
                shop.fulfill(hold).await
            })
            .buffer_unordered(ENDINGS_IN_FLIGHT)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
            .map_err(anyhow::Error::msg)
            .context("cannot end what was still open")
    }

    /// What is open, and what was left to expire.
    pub(crate) fn with_holds<T>(&self, look: impl FnOnce(&Holds) -> T) -> T {
        look(&self.counter.holds.borrow())
    }
}

impl Counter {
    /// Where nothing is open that could be ended, something new is reserved.
    fn draw(&self) -> Action {
        let random = &mut *self.random.borrow_mut();
        let action = match self.weights.sample(random) {
            0 => None,
            1 => self.take_held().map(Action::Confirm),
            2 => self
                .holds
                .borrow_mut()
                .take_confirmed()
                .map(Action::Fulfill),
            3 => self.take_held().map(Action::Release),
            4 => Some(Action::Read(
                self.assortment.glances(self.lines.read, random),
            )),
            _ => {
                let (lines, units) = (self.lines.receipt, UNITS_RECEIVED);
                let delivery = self.assortment.delivery(lines, units, random);
                Some(Action::Receive(delivery))
            }
        };
        action.unwrap_or_else(|| Action::Reserve(self.assortment.basket(self.lines.basket, random)))
    }

    fn take_held(&self) -> Option<Hold> {
        let tally = &mut self.shop.tally.borrow_mut();
        self.holds.borrow_mut().take_held(tally)
    }

    async fn carry_out(&self, action: Action) -> Result<Call, String> {
        let call = |kind, lines: usize| Call {
            kind,
            lines: lines as u64,
        };
        let shop = &self.shop;
        match action {
            Action::Reserve(lines) => {
                let wanted = lines.len();
                match shop.reserve(lines).await? {
                    Some(hold) => {
                        let tally = &mut shop.tally.borrow_mut();
                        self.holds.borrow_mut().add_held(hold, tally);
                        Ok(call("reserve", wanted))
                    }
                    None => Ok(call("sold out", wanted)),
                }
            }
            Action::Confirm(hold) => {
                shop.confirm(&hold).await?;
                let call = call("confirm", hold.lines.len());
                self.holds.borrow_mut().add_confirmed(hold);
                Ok(call)
            }
            Action::Fulfill(hold) => {
                let call = call("fulfill", hold.lines.len());
                shop.fulfill(hold).await?;
                Ok(call)
            }
            Action::Release(hold) => {
                let call = call("release", hold.lines.len());
                shop.release(hold).await?;
                Ok(call)
            }
            Action::Read(positions) => {
                shop.read_near(&positions).await?;
                Ok(call("read", positions.len()))
            }
            Action::Receive(lines) => {
                shop.receive(&lines).await?;
                Ok(call("receive", lines.len()))
            }
        }
    }
}

impl Caller for Shopper {
    fn last(&self) -> Call {
        self.last
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let action = self.counter.draw();
        self.last = self.counter.carry_out(action).await?;
        Ok(Outcome::Done)
    }
}
