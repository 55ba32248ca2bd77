//! The state machine's answers as `stock.v1`. Public messages stop here: nothing further in knows
//! them.

use prost_types::Duration;
use stock_core::{
    CatalogOutcome, Coordinates, Discrepancy, LineVerdict, LocationType, Outcome, Policy, Position,
    PutLocation, Refusal, Reservation, Shortage, Stamp, State,
};
use stock_proto::stock::v1 as api;

use crate::Rejection;
use crate::refusal::describe;
use crate::time::timestamp;

/// A reservation after a command that can run short.
pub enum Held {
    /// It is held.
    Reservation(api::Reservation),
    /// It is not.
    Shortage(api::Shortage),
}

/// What a reserve or amend came to.
pub fn held(outcome: Outcome, now: Stamp) -> Result<Held, Rejection> {
    match outcome {
        Outcome::Reservation(held) => Ok(Held::Reservation(reservation(&held, now))),
        Outcome::Shortage(short) => Ok(Held::Shortage(shortage(&short))),
        other => Err(refusal(&other)),
    }
}

/// What a command on a reservation came to.
pub fn settled(outcome: Outcome, now: Stamp) -> Result<api::Reservation, Rejection> {
    match outcome {
        Outcome::Reservation(settled) => Ok(reservation(&settled, now)),
        other => Err(refusal(&other)),
    }
}

/// What a policy came to.
pub fn policy(outcome: Outcome) -> Result<Policy, Rejection> {
    match outcome {
        Outcome::Policy(policy) => Ok(policy),
        other => Err(refusal(&other)),
    }
}

/// What a document's lines came to.
pub fn verdicts(outcome: Outcome) -> Result<Box<[LineVerdict]>, Rejection> {
    match outcome {
        Outcome::Movements(verdicts) => Ok(verdicts),
        other => Err(refusal(&other)),
    }
}

/// Whether a location was put.
pub fn put(outcome: CatalogOutcome) -> Result<(), Rejection> {
    match outcome {
        CatalogOutcome::Put => Ok(()),
        CatalogOutcome::Refused(refusal) => Err(Rejection::Refused(refusal)),
    }
}

fn refusal(outcome: &Outcome) -> Rejection {
    match outcome {
        Outcome::Refused(refusal) => Rejection::Refused(*refusal),
        // The same id stood for another kind of call: the fingerprints cannot be equal, but if they
        // were, this is what it is.
        _ => Rejection::Refused(Refusal::RequestReused),
    }
}

/// A reservation as of now.
pub fn reservation(reservation: &Reservation, now: Stamp) -> api::Reservation {
    let lines = reservation.lines.iter().map(|line| api::ReservationLine {
        sku: line.sku.as_str().to_owned(),
        location: line.location.as_str().to_owned(),
        quantity: line.quantity,
        open: line.open,
        fulfilled: line.fulfilled,
        released: line.released,
        expired: line.expired(),
    });
    let expires_at = reservation
        .expires_at
        .filter(|_| reservation.state.is_open());
    api::Reservation {
        reservation_id: reservation.id.to_string(),
        state: state(reservation.state).into(),
        lines: lines.collect(),
        expires_at: expires_at.map(timestamp),
        expires_in: expires_at.map(|at| duration_ms(at.0.saturating_sub(now.0))),
        created_at: Some(timestamp(reservation.created_at)),
        order_reference: reservation.order_reference().map(ToString::to_string),
        channel: reservation.channel().map(ToString::to_string),
    }
}

/// A reservation of which something is not decided yet, as of now.
pub fn pending(undecided: &Reservation, now: Stamp) -> api::Reservation {
    api::Reservation {
        state: api::reservation::State::Pending.into(),
        ..reservation(undecided, now)
    }
}

fn state(state: State) -> api::reservation::State {
    match state {
        State::Held => api::reservation::State::Held,
        State::Confirmed => api::reservation::State::Confirmed,
        State::Fulfilled => api::reservation::State::Fulfilled,
        State::Released => api::reservation::State::Released,
        State::Expired => api::reservation::State::Expired,
    }
}

fn shortage(shortage: &Shortage) -> api::Shortage {
    let lines = shortage.lines.iter().map(|line| api::ShortLine {
        sku: line.sku.as_str().to_owned(),
        location: line.location.as_str().to_owned(),
        requested: line.requested,
        available: line.available,
        reservable: line.reservable,
    });
    api::Shortage {
        lines: lines.collect(),
    }
}

/// One position.
pub fn availability(sku: &str, position: &Position) -> api::Availability {
    api::Availability {
        sku: sku.to_owned(),
        location: Some(position.location.as_str().to_owned()),
        on_hand: position.on_hand,
        reserved: position.reserved,
        safety_stock: position.safety_stock,
        backorder_limit: position.backorder_limit,
        available: position.available(),
        known: true,
    }
}

/// What became of a document's line.
pub fn line_verdict(document: &str, line: &str, verdict: &LineVerdict) -> api::LineVerdict {
    use api::line_verdict::Verdict;
    let mut out = api::LineVerdict {
        document: document.to_owned(),
        line: line.to_owned(),
        ..Default::default()
    };
    let verdict = match verdict {
        LineVerdict::Recorded {
            discrepancy: found,
            ahead_ms,
        } => {
            out.discrepancy = found.as_deref().map(discrepancy);
            out.clock_ahead = (*ahead_ms > 0).then(|| duration_ms(*ahead_ms));
            Verdict::Recorded
        }
        LineVerdict::AlreadyRecorded { discrepancy: found } => {
            out.discrepancy = found.as_deref().map(discrepancy);
            Verdict::AlreadyRecorded
        }
        LineVerdict::Refused(refusal) => {
            let refused = describe(refusal);
            out.error = Some(api::LineError {
                reason: refused.reason.into(),
                field: refused.field.to_owned(),
                message: refused.message,
            });
            Verdict::Refused
        }
    };
    out.verdict = verdict.into();
    out
}

/// What a movement or a policy endangers.
pub fn discrepancy(found: &Discrepancy) -> api::Discrepancy {
    api::Discrepancy {
        sku: found.sku.as_str().to_owned(),
        location: found.location.as_str().to_owned(),
        available: found.available,
        short_by: found.short_by,
        endangered_reservation_ids: found.endangered.iter().map(ToString::to_string).collect(),
    }
}

/// A location.
pub fn location(put: &PutLocation) -> api::Location {
    let kind = match put.kind {
        LocationType::Warehouse => api::location::Type::Warehouse,
        LocationType::Store => api::location::Type::Store,
    };
    api::Location {
        location_id: put.location.as_str().to_owned(),
        r#type: kind.into(),
        name: put.name.clone(),
        coordinates: put.coordinates.map(|at| api::Coordinates {
            latitude: f64::from(at.latitude_e6) / DEGREE,
            longitude: f64::from(at.longitude_e6) / DEGREE,
        }),
        gln: Some(put.gln.clone()).filter(|gln| !gln.is_empty()),
    }
}

/// Millionths in a degree.
const DEGREE: f64 = 1_000_000.0;

/// Rounds coordinates to a millionth of a degree. The caller has checked their range.
pub fn coordinates(at: &api::Coordinates) -> Coordinates {
    Coordinates {
        latitude_e6: (at.latitude * DEGREE).round() as i32,
        longitude_e6: (at.longitude * DEGREE).round() as i32,
    }
}

fn duration_ms(ms: u64) -> Duration {
    Duration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    }
}
