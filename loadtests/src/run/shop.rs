//! The shop that a profile works on: what can be done there, and the tally of what was
//! acknowledged.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use stock_client::Client;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reserve_response::Outcome;
use stock_proto::stock::v1::{
    ConfirmRequest, Consistency, FulfillRequest, GetAvailabilityRequest, Line, MovementLine,
    RecordSaleRequest, ReleaseRequest, Reservation, ReserveRequest,
};
use stock_tally::{OrderLine, Position, Tally, stock};

/// Everything runs on one thread, so the cells are borrowed for a moment between two calls and
/// never across one.
pub(crate) struct Shop {
    pub(crate) client: Client,
    /// Names documents and SKUs, so that no two runs touch the same positions.
    pub(crate) run_name: String,
    pub(crate) positions: Vec<Position>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) sold_out: Cell<u64>,
    /// Calls of which nobody knows what became of them.
    pub(crate) unknown: Cell<u64>,
    ttl: prost_types::Duration,
    documents: Cell<u64>,
}

/// Units that were set aside.
pub(crate) struct Hold {
    pub(crate) id: String,
    pub(crate) lines: Vec<OrderLine>,
    /// Asked for at this time, so that it ends a time to live later at the earliest.
    pub(crate) since: Instant,
}

impl Shop {
    /// With empty shelves. A hold lasts `ttl_seconds`.
    pub(crate) fn new(
        client: &Client,
        run_name: &str,
        positions: Vec<Position>,
        ttl_seconds: u32,
    ) -> Shop {
        Shop {
            client: client.clone(),
            run_name: run_name.to_owned(),
            tally: RefCell::new(Tally::new(positions.len())),
            positions,
            sold_out: Cell::new(0),
            unknown: Cell::new(0),
            ttl: prost_types::Duration {
                seconds: ttl_seconds.into(),
                nanos: 0,
            },
            documents: Cell::new(0),
        }
    }

    /// Sets units aside; none where there are too few.
    pub(crate) async fn reserve(&self, lines: Vec<OrderLine>) -> Result<Option<Hold>, String> {
        let since = Instant::now();
        let request = ReserveRequest {
            lines: lines.iter().map(|line| self.line(line)).collect(),
            ttl: Some(self.ttl),
            ..Default::default()
        };
        let answer = self.known("reserve", self.client.reserve(request).await)?;
        match answer.outcome {
            Some(Outcome::Reservation(reservation)) => {
                self.tally.borrow_mut().held(&lines);
                let id = reservation.reservation_id;
                Ok(Some(Hold { id, lines, since }))
            }
            Some(Outcome::Shortage(_)) => {
                self.sold_out.set(self.sold_out.get() + 1);
                Ok(None)
            }
            None => Err(self.unexpected("reserve: an answer without an outcome".into())),
        }
    }

    /// Paid.
    pub(crate) async fn confirm(&self, hold: &Hold) -> Result<(), String> {
        let request = ConfirmRequest {
            reservation_id: hold.id.clone(),
            ..Default::default()
        };
        let answer = self.known("confirm", self.client.confirm(request).await)?;
        self.expect(answer.reservation, State::Confirmed)
    }

    /// Handed over.
    pub(crate) async fn fulfill(&self, hold: Hold) -> Result<(), String> {
        let request = FulfillRequest {
            reservation_id: hold.id,
            ..Default::default()
        };
        let answer = self.known("fulfill", self.client.fulfill(request).await)?;
        self.expect(answer.reservation, State::Fulfilled)?;
        self.tally.borrow_mut().handed_over(&hold.lines);
        Ok(())
    }

    /// Given back.
    pub(crate) async fn release(&self, hold: Hold) -> Result<(), String> {
        let request = ReleaseRequest {
            reservation_id: hold.id,
            ..Default::default()
        };
        let answer = self.known("release", self.client.release(request).await)?;
        self.expect(answer.reservation, State::Released)?;
        self.tally.borrow_mut().given_back(&hold.lines);
        Ok(())
    }

    /// A look from any node.
    pub(crate) async fn read_near(&self, positions: &[usize]) -> Result<(), String> {
        let request = self.question(positions, Consistency::Near);
        // Nothing can have changed, whatever became of it.
        let answer = self.client.get_availability(request).await;
        let items = answer.map_err(|error| format!("read: {error}"))?.items;
        match items.len() == positions.len() {
            true => Ok(()),
            false => Err(format!(
                "read: {} of {} items",
                items.len(),
                positions.len()
            )),
        }
    }

    /// What was bought at a till.
    pub(crate) async fn sell(&self, lines: &[OrderLine]) -> Result<(), String> {
        let request = RecordSaleRequest {
            source: None,
            document: self.next_document(),
            lines: self.movements(lines),
        };
        let answer = self.known("sale", self.client.record_sale(request).await)?;
        let recorded = stock::check_recorded(lines.len(), &answer.verdicts);
        self.known("sale", recorded)?;
        self.tally.borrow_mut().sold(lines);
        Ok(())
    }

    /// What a lorry brought.
    pub(crate) async fn receive(&self, lines: &[OrderLine]) -> Result<(), String> {
        let (document, movements) = (self.next_document(), self.movements(lines));
        let received = stock::receive(&self.client, &document, &movements).await;
        self.known("receive", received)?;
        let mut tally = self.tally.borrow_mut();
        for line in lines {
            tally.received(line.position, line.quantity);
        }
        Ok(())
    }

    /// What is there of some positions.
    pub(crate) fn question(
        &self,
        positions: &[usize],
        consistency: Consistency,
    ) -> GetAvailabilityRequest {
        let positions = positions.iter().map(|position| &self.positions[*position]);
        stock::question(positions.map(|it| (&*it.sku, &*it.location)), consistency)
    }

    fn next_document(&self) -> String {
        let number = self.documents.get() + 1;
        self.documents.set(number);
        format!("{}-{number}", self.run_name)
    }

    fn line(&self, line: &OrderLine) -> Line {
        let position = &self.positions[line.position];
        Line::at(&position.sku, &position.location, line.quantity)
    }

    fn movements(&self, lines: &[OrderLine]) -> Vec<MovementLine> {
        let movement = |(number, line): (usize, &OrderLine)| {
            let position = &self.positions[line.position];
            let (sku, location) = (&position.sku, &position.location);
            stock::movement(number.to_string(), sku, location, line.quantity)
        };
        lines.iter().enumerate().map(movement).collect()
    }

    fn known<T, E: std::fmt::Display>(
        &self,
        what: &str,
        answer: Result<T, E>,
    ) -> Result<T, String> {
        answer.map_err(|error| self.unexpected(format!("{what}: {error}")))
    }

    fn unexpected(&self, error: String) -> String {
        self.unknown.set(self.unknown.get() + 1);
        error
    }

    fn expect(&self, reservation: Option<Reservation>, wanted: State) -> Result<(), String> {
        let reservation = reservation.unwrap_or_default();
        let state = reservation.state();
        if state == wanted {
            return Ok(());
        }
        Err(self.unexpected(format!(
            "reservation {} is {} and not {}",
            reservation.reservation_id,
            state.as_str_name(),
            wanted.as_str_name()
        )))
    }
}
