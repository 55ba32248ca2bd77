//! Carrying one order through its life, and keeping the tally of it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use stock_client::Client;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reserve_response::Outcome;
use stock_proto::stock::v1::{
    ConfirmRequest, ErrorReason, FulfillRequest, Line, PartialLine, ReleaseRequest, Reservation,
    ReserveRequest,
};
use stock_tally::{OrderLine, Tally};
use uuid::Uuid;

use super::figures::{CallKind, Figures};
use super::plan::{Ending, Order, Plan};

/// Longer than any outage the replay should live through, so that only what is meant to expire
/// does.
const TTL_OF_KEPT_HOLDS: Duration = Duration::from_secs(15 * 60);

/// How often a basket is tried to be held.
const ATTEMPTS_MAX: u32 = 10;

/// Why a basket is not held.
enum Failed {
    /// It never will be, under this request id.
    NotHeld,
    Otherwise(String),
}

impl From<String> for Failed {
    fn from(failure: String) -> Self {
        Self::Otherwise(failure)
    }
}

/// The counter the orders are carried to. Everything runs on one thread, so the cells are borrowed
/// for a moment between two calls and never across one.
pub(crate) struct Counter<'a> {
    pub(crate) client: &'a Client,
    pub(crate) plan: &'a Plan,
    pub(crate) ttl_of_abandoned: Duration,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) figures: RefCell<Figures>,
}

impl Counter<'_> {
    /// An order that fails stays as far as it came, in the cluster and in the tally.
    pub(crate) async fn carry(&self, order: &Order) {
        if let Err(failure) = self.try_carry(order).await {
            self.figures.borrow_mut().failed(failure);
        }
    }

    async fn try_carry(&self, order: &Order) -> Result<(), String> {
        let id = &self.reserve(order).await?;
        self.tally.borrow_mut().held(&order.lines);
        match &order.ending {
            Ending::HandedOver => {
                self.confirm(id).await?;
                self.fulfill(id, &[], State::Fulfilled).await?;
                self.tally.borrow_mut().handed_over(&order.lines);
            }
            Ending::HandedOverInTwo { first } => {
                self.confirm(id).await?;
                self.fulfill(id, first, State::Confirmed).await?;
                self.tally.borrow_mut().handed_over(first);
                self.fulfill(id, &[], State::Fulfilled).await?;
                self.tally
                    .borrow_mut()
                    .handed_over(&rest(&order.lines, first));
            }
            Ending::PartlyReleased { dropped } => {
                self.release(id, dropped, State::Held).await?;
                self.tally.borrow_mut().given_back(dropped);
                self.confirm(id).await?;
                self.fulfill(id, &[], State::Fulfilled).await?;
                self.tally
                    .borrow_mut()
                    .handed_over(&rest(&order.lines, dropped));
            }
            Ending::Released => {
                self.release(id, &[], State::Released).await?;
                self.tally.borrow_mut().given_back(&order.lines);
            }
            Ending::LeftToExpire => self.tally.borrow_mut().given_back(&order.lines),
        }
        Ok(())
    }

    /// A basket of which a shard could not be asked in time is held by nobody, and is reserved
    /// anew, as a checkout does.
    async fn reserve(&self, order: &Order) -> Result<String, String> {
        for _ in 0..ATTEMPTS_MAX {
            match self.try_reserve(order).await {
                Err(Failed::NotHeld) => self.figures.borrow_mut().was_not_held(),
                Err(Failed::Otherwise(failure)) => return Err(failure),
                Ok(id) => return Ok(id),
            }
        }
        Err(format!("reserve: not held in time, {ATTEMPTS_MAX} times"))
    }

    async fn try_reserve(&self, order: &Order) -> Result<String, Failed> {
        let left_to_expire = matches!(order.ending, Ending::LeftToExpire);
        let ttl = if left_to_expire {
            self.ttl_of_abandoned
        } else {
            TTL_OF_KEPT_HOLDS
        };
        let request = ReserveRequest {
            request_id: request_id(),
            lines: order.lines.iter().map(|line| self.line(line)).collect(),
            ttl: prost_types::Duration::try_from(ttl).ok(),
            ..ReserveRequest::default()
        };
        let mut is_not_held = false;
        let reserve = async {
            let answer = self.client.reserve(request).await;
            let failed = answer.as_ref().err();
            is_not_held = failed.is_some_and(|it| it.reason() == ErrorReason::BasketNotHeld);
            answer
        };
        let answer = match self.timed(CallKind::Reserve, reserve).await {
            Err(_) if is_not_held => return Err(Failed::NotHeld),
            answer => answer?,
        };
        match answer.outcome {
            Some(Outcome::Reservation(reservation)) => {
                // The answer to a retry may come when a short hold has already ended.
                let expired = left_to_expire && reservation.state() == State::Expired;
                let wanted = if expired { State::Expired } else { State::Held };
                expect(&reservation, wanted)?;
                Ok(reservation.reservation_id)
            }
            Some(Outcome::Shortage(shortage)) => Err(format!(
                "reserve: short, though the opening stock covers every line: {:?}",
                shortage.lines
            )
            .into()),
            None => Err("reserve: an answer without an outcome".to_owned().into()),
        }
    }

    async fn confirm(&self, id: &str) -> Result<(), String> {
        let request = ConfirmRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            pickup_within: None,
        };
        let answer = self
            .timed(CallKind::Confirm, self.client.confirm(request))
            .await?;
        expect(&answer.reservation.unwrap_or_default(), State::Confirmed)
    }

    /// No lines: everything that is open.
    async fn release(&self, id: &str, lines: &[OrderLine], then: State) -> Result<(), String> {
        let request = ReleaseRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            lines: self.partial(lines),
        };
        let answer = self
            .timed(CallKind::Release, self.client.release(request))
            .await?;
        expect(&answer.reservation.unwrap_or_default(), then)
    }

    /// No lines: everything that is open.
    async fn fulfill(&self, id: &str, lines: &[OrderLine], then: State) -> Result<(), String> {
        let request = FulfillRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            lines: self.partial(lines),
        };
        let answer = self
            .timed(CallKind::Fulfill, self.client.fulfill(request))
            .await?;
        expect(&answer.reservation.unwrap_or_default(), then)
    }

    /// Waits for a call of the client and records how long it took, an error as text.
    pub(crate) async fn timed<T, E: std::fmt::Display>(
        &self,
        kind: CallKind,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        let started = Instant::now();
        let answer = call.await;
        self.figures.borrow_mut().took(kind, started.elapsed());
        answer.map_err(|error| format!("{kind:?}: {error}"))
    }

    fn line(&self, line: &OrderLine) -> Line {
        let position = &self.plan.positions[line.position];
        Line::at(&position.sku, &position.location, line.quantity)
    }

    fn partial(&self, lines: &[OrderLine]) -> Vec<PartialLine> {
        let partial = |line: &OrderLine| {
            let position = &self.plan.positions[line.position];
            PartialLine {
                sku: position.sku.clone(),
                location: Some(position.location.clone()),
                quantity: line.quantity,
            }
        };
        lines.iter().map(partial).collect()
    }
}

/// Made here and not by the client, so that a reader sees where the id of a retry comes from: it is
/// part of the request the client repeats.
pub(crate) fn request_id() -> String {
    Uuid::now_v7().to_string()
}

fn expect(reservation: &Reservation, wanted: State) -> Result<(), String> {
    let state = reservation.state();
    if state == wanted {
        return Ok(());
    }
    let id = &reservation.reservation_id;
    Err(format!(
        "reservation {id} is {} and not {}",
        state.as_str_name(),
        wanted.as_str_name()
    ))
}

/// What a part leaves of an order's lines.
fn rest(lines: &[OrderLine], part: &[OrderLine]) -> Vec<OrderLine> {
    let taken = |position| {
        part.iter()
            .filter(|line| line.position == position)
            .map(|line| line.quantity)
            .sum::<i64>()
    };
    lines
        .iter()
        .map(|line| OrderLine {
            quantity: line.quantity - taken(line.position),
            ..*line
        })
        .filter(|line| line.quantity > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_and_its_rest_are_the_whole() {
        let line = |position, quantity| OrderLine { position, quantity };
        let lines = [line(3, 5), line(4, 1), line(9, 2)];
        assert_eq!(
            rest(&lines, &[line(3, 2), line(9, 1)]),
            [line(3, 3), line(4, 1), line(9, 1)]
        );
        assert_eq!(rest(&lines, &[line(4, 1)]), [line(3, 5), line(9, 2)]);
        assert_eq!(rest(&lines, &[]), lines);
    }
}
