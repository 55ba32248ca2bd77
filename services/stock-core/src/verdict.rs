//! What is remembered of a request's outcome.

use std::sync::Arc;

use crate::apply::need::Need;
use crate::command::Operation;
use crate::ids::{Principal, ReservationId, Stamp};
use crate::outcome::{Outcome, Policy, Refusal, Shortage};
use crate::reservation::{Reservation, ReservationLine, State};

/// What is kept of an outcome. A plain reserve, by far the most frequent, is kept in a few bytes: its
/// lines are those of the retried command, since the fingerprints are equal.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Held {
        id: ReservationId,
        created_at: Stamp,
        expires_at: Stamp,
    },
    Reservation(Arc<Reservation>),
    Shortage(Arc<Shortage>),
    Policy(Box<Policy>),
    Refused(Box<Refusal>),
}

impl Verdict {
    pub(crate) fn of(outcome: Outcome) -> (Outcome, Self) {
        let verdict = match &outcome {
            Outcome::Reservation(reservation) => Self::Reservation(Arc::clone(reservation)),
            Outcome::Shortage(shortage) => Self::Shortage(Arc::clone(shortage)),
            Outcome::Policy(policy) => Self::Policy(Box::new(*policy)),
            Outcome::Refused(refusal) => Self::Refused(Box::new(*refusal)),
            Outcome::Movements(_) => unreachable!("movements are known by their document"),
        };
        (outcome, verdict)
    }

    pub(crate) fn of_reserve(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Reservation(held) => Self::Held {
                id: held.id,
                created_at: held.created_at,
                expires_at: held.expires_at.unwrap_or(held.created_at),
            },
            other => Self::of(other.clone()).1,
        }
    }

    pub(crate) fn outcome(&self, principal: &Principal, operation: &Operation) -> Outcome {
        match self {
            Self::Held {
                id,
                created_at,
                expires_at,
            } => {
                let Operation::Reserve(reserve) = operation else {
                    return Outcome::Refused(Refusal::RequestReused);
                };
                let lines = Need::merge(&reserve.lines)
                    .into_iter()
                    .map(|need| ReservationLine::new(need.sku, need.location, need.quantity))
                    .collect();
                Outcome::Reservation(Arc::new(Reservation {
                    id: *id,
                    state: State::Held,
                    expires_at: Some(*expires_at),
                    created_at: *created_at,
                    principal: principal.clone(),
                    lines,
                }))
            }
            Self::Reservation(reservation) => Outcome::Reservation(Arc::clone(reservation)),
            Self::Shortage(shortage) => Outcome::Shortage(Arc::clone(shortage)),
            Self::Policy(policy) => Outcome::Policy(**policy),
            Self::Refused(refusal) => Outcome::Refused(**refusal),
        }
    }
}
