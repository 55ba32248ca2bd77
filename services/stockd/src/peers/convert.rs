//! Answers to `cluster.v1` and back.

use std::sync::Arc;

use bytes::Bytes;
use stock_core::{
    CatalogOutcome, Discrepancy, LineVerdict, Location, Policy, Principal, Refusal, Reservation,
    ReservationId, ReservationLine, ShortLine, Shortage, Sku, Stamp, State,
};
use stock_proto::cluster::v1 as cluster;

use crate::worker::clock::ClusterTime;
use crate::worker::event::{Answer, Failure, GroupId, Outcome};

/// A Raft message, and what its sender takes cluster time to be.
pub fn group_message(
    group: GroupId,
    payload: Bytes,
    time: Option<ClusterTime>,
) -> cluster::GroupMessage {
    cluster::GroupMessage {
        group: group.0,
        payload,
        cluster_time_ms: time.map_or(0, |time| time.stamp.0),
        cluster_time_term: time.map_or(0, |time| time.term),
    }
}

/// What the sender of a Raft message takes cluster time to be.
pub fn cluster_time(message: &cluster::GroupMessage) -> Option<ClusterTime> {
    let time = ClusterTime {
        stamp: Stamp(message.cluster_time_ms),
        term: message.cluster_time_term,
    };
    (time.stamp.0 != 0).then_some(time)
}

/// For the peer that forwarded the commands.
pub fn reply(forward_id: u64, answer: Answer) -> cluster::Reply {
    use cluster::reply::Result;
    let result = match answer {
        Answer::Outcomes {
            applied_index,
            stamp,
            outcomes,
        } => Result::Answers(cluster::Answers {
            applied_index,
            stamp_ms: stamp.0,
            outcomes: outcomes.iter().map(encode_outcome).collect(),
        }),
        Answer::Failed(failure) => Result::Failure(encode_failure(failure).into()),
        // Only commands are forwarded.
        Answer::Reached { .. } | Answer::Reservation { .. } => {
            Result::Failure(cluster::Failure::OutcomeUnknown.into())
        }
    };
    cluster::Reply {
        forward_id,
        result: Some(result),
    }
}

/// From the peer that carried the commands out. What is not understood is an unknown outcome.
pub fn answer(reply: cluster::Reply) -> Answer {
    use cluster::reply::Result;
    match reply.result {
        Some(Result::Answers(answers)) => {
            let outcomes = answers.outcomes.into_iter().map(decode_outcome).collect();
            match outcomes {
                Some(outcomes) => Answer::Outcomes {
                    applied_index: answers.applied_index,
                    stamp: Stamp(answers.stamp_ms),
                    outcomes,
                },
                None => Answer::Failed(Failure::OutcomeUnknown),
            }
        }
        Some(Result::Failure(failure)) => Answer::Failed(decode_failure(failure)),
        None => Answer::Failed(Failure::OutcomeUnknown),
    }
}

fn encode_failure(failure: Failure) -> cluster::Failure {
    match failure {
        Failure::NotLeader { .. } => cluster::Failure::NotLeader,
        Failure::Overloaded => cluster::Failure::Overloaded,
        Failure::DiskFull => cluster::Failure::DiskFull,
        Failure::MemoryFull => cluster::Failure::MemoryFull,
        Failure::OutcomeUnknown | Failure::TooFarBehind => cluster::Failure::OutcomeUnknown,
    }
}

fn decode_failure(failure: i32) -> Failure {
    match cluster::Failure::try_from(failure) {
        Ok(cluster::Failure::NotLeader) => Failure::NotLeader { leader: None },
        Ok(cluster::Failure::Overloaded) => Failure::Overloaded,
        Ok(cluster::Failure::DiskFull) => Failure::DiskFull,
        Ok(cluster::Failure::MemoryFull) => Failure::MemoryFull,
        Ok(cluster::Failure::OutcomeUnknown | cluster::Failure::Unspecified) | Err(_) => {
            Failure::OutcomeUnknown
        }
    }
}

fn encode_outcome(outcome: &Outcome) -> cluster::Outcome {
    use cluster::outcome::Outcome as Out;
    let outcome = match outcome {
        Outcome::Stock(stock_core::Outcome::Reservation(reservation)) => {
            Out::Reservation(encode_reservation(reservation))
        }
        Outcome::Stock(stock_core::Outcome::Shortage(shortage)) => {
            Out::Shortage(encode_shortage(shortage))
        }
        Outcome::Stock(stock_core::Outcome::Policy(policy)) => Out::Policy(cluster::Policy {
            safety_stock: policy.safety_stock,
            backorder_limit: policy.backorder_limit,
            available: policy.available,
            discrepancy: policy.discrepancy.as_deref().map(encode_discrepancy),
        }),
        Outcome::Stock(stock_core::Outcome::Movements(verdicts)) => {
            Out::Movements(cluster::LineVerdicts {
                verdicts: verdicts.iter().map(encode_verdict).collect(),
            })
        }
        Outcome::Stock(stock_core::Outcome::Refused(refusal))
        | Outcome::Catalog(CatalogOutcome::Refused(refusal)) => {
            Out::Refusal(encode_refusal(refusal))
        }
        Outcome::Catalog(CatalogOutcome::Put) => Out::LocationPut(cluster::LocationPut {}),
        // The API sends whoever changes the registry to the leader of group 0; none is forwarded.
        Outcome::Registry(_) => return cluster::Outcome { outcome: None },
    };
    cluster::Outcome {
        outcome: Some(outcome),
    }
}

fn decode_outcome(outcome: cluster::Outcome) -> Option<Outcome> {
    use cluster::outcome::Outcome as In;
    let outcome = match outcome.outcome? {
        In::Reservation(reservation) => {
            stock_core::Outcome::Reservation(Arc::new(decode_reservation(&reservation)?))
        }
        In::Shortage(shortage) => {
            stock_core::Outcome::Shortage(Arc::new(decode_shortage(&shortage)?))
        }
        In::Policy(policy) => stock_core::Outcome::Policy(Policy {
            safety_stock: policy.safety_stock,
            backorder_limit: policy.backorder_limit,
            available: policy.available,
            discrepancy: decode_discrepancy(policy.discrepancy.as_ref())?,
        }),
        In::Movements(verdicts) => {
            let verdicts = verdicts.verdicts.iter().map(decode_verdict);
            stock_core::Outcome::Movements(verdicts.collect::<Option<_>>()?)
        }
        In::Refusal(refusal) => stock_core::Outcome::Refused(decode_refusal(&refusal)?),
        In::LocationPut(_) => return Some(Outcome::Catalog(CatalogOutcome::Put)),
    };
    Some(Outcome::Stock(outcome))
}

/// Whose reservation it is stays with the shard: an answer does not tell.
fn unnamed() -> Option<Principal> {
    Principal::new("-").ok()
}

fn encode_reservation(reservation: &Reservation) -> cluster::Reservation {
    let lines = reservation
        .lines
        .iter()
        .map(|line| cluster::ReservationLine {
            sku: line.sku.as_str().to_owned(),
            location: line.location.as_str().to_owned(),
            quantity: line.quantity,
            open: line.open,
            fulfilled: line.fulfilled,
            released: line.released,
        });
    cluster::Reservation {
        reservation_id: encode_id(&reservation.id),
        state: encode_state(reservation.state).into(),
        expires_at_ms: reservation.expires_at.map_or(0, |at| at.0),
        created_at_ms: reservation.created_at.0,
        lines: lines.collect(),
    }
}

fn decode_reservation(reservation: &cluster::Reservation) -> Option<Reservation> {
    let lines = reservation.lines.iter().map(|line| {
        Some(ReservationLine {
            sku: Sku::new(&line.sku).ok()?,
            location: Location::new(&line.location).ok()?,
            quantity: line.quantity,
            open: line.open,
            fulfilled: line.fulfilled,
            released: line.released,
        })
    });
    Some(Reservation {
        id: decode_id(&reservation.reservation_id)?,
        state: decode_state(reservation.state())?,
        expires_at: Some(reservation.expires_at_ms)
            .filter(|ms| *ms != 0)
            .map(Stamp),
        created_at: Stamp(reservation.created_at_ms),
        principal: unnamed()?,
        lines: lines.collect::<Option<_>>()?,
    })
}

fn encode_id(id: &ReservationId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn decode_id(bytes: &[u8]) -> Option<ReservationId> {
    ReservationId::new(bytes.try_into().ok()?).ok()
}

fn encode_state(state: State) -> cluster::reservation::State {
    match state {
        State::Held => cluster::reservation::State::Held,
        State::Confirmed => cluster::reservation::State::Confirmed,
        State::Fulfilled => cluster::reservation::State::Fulfilled,
        State::Released => cluster::reservation::State::Released,
        State::Expired => cluster::reservation::State::Expired,
    }
}

fn decode_state(state: cluster::reservation::State) -> Option<State> {
    match state {
        cluster::reservation::State::Held => Some(State::Held),
        cluster::reservation::State::Confirmed => Some(State::Confirmed),
        cluster::reservation::State::Fulfilled => Some(State::Fulfilled),
        cluster::reservation::State::Released => Some(State::Released),
        cluster::reservation::State::Expired => Some(State::Expired),
        cluster::reservation::State::Unspecified => None,
    }
}

fn encode_shortage(shortage: &Shortage) -> cluster::Shortage {
    let lines = shortage.lines.iter().map(|line| cluster::ShortLine {
        sku: line.sku.as_str().to_owned(),
        location: line.location.as_str().to_owned(),
        requested: line.requested,
        available: line.available,
        reservable: line.reservable,
    });
    cluster::Shortage {
        lines: lines.collect(),
    }
}

fn decode_shortage(shortage: &cluster::Shortage) -> Option<Shortage> {
    let lines = shortage.lines.iter().map(|line| {
        Some(ShortLine {
            sku: Sku::new(&line.sku).ok()?,
            location: Location::new(&line.location).ok()?,
            requested: line.requested,
            available: line.available,
            reservable: line.reservable,
        })
    });
    Some(Shortage {
        lines: lines.collect::<Option<_>>()?,
    })
}

fn encode_verdict(verdict: &LineVerdict) -> cluster::LineVerdict {
    use cluster::line_verdict::Verdict;
    let verdict = match verdict {
        LineVerdict::Recorded {
            discrepancy,
            ahead_ms,
        } => Verdict::Recorded(cluster::Recorded {
            discrepancy: discrepancy.as_deref().map(encode_discrepancy),
            ahead_ms: *ahead_ms,
        }),
        LineVerdict::AlreadyRecorded { discrepancy } => {
            Verdict::AlreadyRecorded(cluster::AlreadyRecorded {
                discrepancy: discrepancy.as_deref().map(encode_discrepancy),
            })
        }
        LineVerdict::Refused(refusal) => Verdict::Refusal(encode_refusal(refusal)),
    };
    cluster::LineVerdict {
        verdict: Some(verdict),
    }
}

fn decode_verdict(verdict: &cluster::LineVerdict) -> Option<LineVerdict> {
    use cluster::line_verdict::Verdict;
    Some(match verdict.verdict.as_ref()? {
        Verdict::Recorded(recorded) => LineVerdict::Recorded {
            discrepancy: decode_discrepancy(recorded.discrepancy.as_ref())?,
            ahead_ms: recorded.ahead_ms,
        },
        Verdict::AlreadyRecorded(recorded) => LineVerdict::AlreadyRecorded {
            discrepancy: decode_discrepancy(recorded.discrepancy.as_ref())?,
        },
        Verdict::Refusal(refusal) => LineVerdict::Refused(decode_refusal(refusal)?),
    })
}

fn encode_discrepancy(found: &Discrepancy) -> cluster::Discrepancy {
    cluster::Discrepancy {
        sku: found.sku.as_str().to_owned(),
        location: found.location.as_str().to_owned(),
        available: found.available,
        short_by: found.short_by,
        endangered: found.endangered.iter().map(encode_id).collect(),
    }
}

/// None inside where there is none; none at all where it is not understood.
fn decode_discrepancy(found: Option<&cluster::Discrepancy>) -> Option<Option<Box<Discrepancy>>> {
    let Some(found) = found else {
        return Some(None);
    };
    let endangered = found.endangered.iter().map(|id| decode_id(id));
    Some(Some(Box::new(Discrepancy {
        sku: Sku::new(&found.sku).ok()?,
        location: Location::new(&found.location).ok()?,
        available: found.available,
        short_by: found.short_by,
        endangered: endangered.collect::<Option<_>>()?,
    })))
}

fn encode_refusal(refusal: &Refusal) -> cluster::Refusal {
    use cluster::refusal::Kind;
    let mut out = cluster::Refusal::default();
    let kind = match *refusal {
        Refusal::RequestTooOld { horizon } => {
            out.horizon_ms = horizon.0;
            Kind::RequestTooOld
        }
        Refusal::RequestFromFuture => Kind::RequestFromFuture,
        Refusal::RequestReused => Kind::RequestReused,
        Refusal::RequestMemoryFull => Kind::RequestMemoryFull,
        Refusal::DocumentTooOld { horizon } => {
            out.horizon_ms = horizon.0;
            Kind::DocumentTooOld
        }
        Refusal::DocumentReused => Kind::DocumentReused,
        Refusal::OccurredInFuture => Kind::OccurredInFuture,
        Refusal::UnknownSku { line } => {
            out.line = line;
            Kind::UnknownSku
        }
        Refusal::UnknownReservation => Kind::UnknownReservation,
        Refusal::WrongState { state } => {
            out.state = encode_state(state).into();
            Kind::WrongState
        }
        Refusal::NothingToExtend => Kind::NothingToExtend,
        Refusal::LineNotInReservation { line } => {
            out.line = line;
            Kind::LineNotInReservation
        }
        Refusal::LineAmbiguous { line } => {
            out.line = line;
            Kind::LineAmbiguous
        }
        Refusal::LineExceedsOpen { line, open } => {
            (out.line, out.open) = (line, open);
            Kind::LineExceedsOpen
        }
        Refusal::CounterOutOfRange { line } => {
            out.line = line;
            Kind::CounterOutOfRange
        }
        Refusal::TooManyReservations => Kind::TooManyReservations,
        Refusal::TooManyPositions => Kind::TooManyPositions,
        Refusal::TooManyLocations => Kind::TooManyLocations,
        Refusal::ReservationIdTaken => Kind::ReservationIdTaken,
        Refusal::DocumentMemoryFull => Kind::DocumentMemoryFull,
    };
    out.kind = kind.into();
    out
}

fn decode_refusal(refusal: &cluster::Refusal) -> Option<Refusal> {
    use cluster::refusal::Kind;
    let line = refusal.line;
    let horizon = Stamp(refusal.horizon_ms);
    Some(match refusal.kind() {
        Kind::Unspecified => return None,
        Kind::RequestTooOld => Refusal::RequestTooOld { horizon },
        Kind::RequestFromFuture => Refusal::RequestFromFuture,
        Kind::RequestReused => Refusal::RequestReused,
        Kind::RequestMemoryFull => Refusal::RequestMemoryFull,
        Kind::DocumentTooOld => Refusal::DocumentTooOld { horizon },
        Kind::DocumentReused => Refusal::DocumentReused,
        Kind::OccurredInFuture => Refusal::OccurredInFuture,
        Kind::UnknownSku => Refusal::UnknownSku { line },
        Kind::UnknownReservation => Refusal::UnknownReservation,
        Kind::WrongState => Refusal::WrongState {
            state: decode_state(refusal.state())?,
        },
        Kind::NothingToExtend => Refusal::NothingToExtend,
        Kind::LineNotInReservation => Refusal::LineNotInReservation { line },
        Kind::LineAmbiguous => Refusal::LineAmbiguous { line },
        Kind::LineExceedsOpen => Refusal::LineExceedsOpen {
            line,
            open: refusal.open,
        },
        Kind::CounterOutOfRange => Refusal::CounterOutOfRange { line },
        Kind::TooManyReservations => Refusal::TooManyReservations,
        Kind::TooManyPositions => Refusal::TooManyPositions,
        Kind::TooManyLocations => Refusal::TooManyLocations,
        Kind::ReservationIdTaken => Refusal::ReservationIdTaken,
        Kind::DocumentMemoryFull => Refusal::DocumentMemoryFull,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome) {
        let answer = Answer::Outcomes {
            applied_index: 7,
            stamp: Stamp(9),
            outcomes: [outcome.clone()].into_iter().collect(),
        };
        match super::answer(reply(1, answer)) {
            Answer::Outcomes {
                applied_index: 7,
                stamp: Stamp(9),
                outcomes,
            } => assert_eq!(outcomes.as_slice(), [outcome]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outcomes_survive_the_way_between_nodes() {
        let id = ReservationId::compose(Stamp(5), 2, 77);
        let sku = Sku::new("MUG").unwrap();
        let location = Location::new("A").unwrap();
        for state in [
            State::Held,
            State::Confirmed,
            State::Fulfilled,
            State::Released,
            State::Expired,
        ] {
            let reservation = Reservation {
                id,
                state,
                expires_at: (state == State::Held).then_some(Stamp(12)),
                created_at: Stamp(3),
                principal: unnamed().unwrap(),
                lines: [ReservationLine {
                    sku: sku.clone(),
                    location: location.clone(),
                    quantity: 9,
                    open: 4,
                    fulfilled: 3,
                    released: 1,
                }]
                .into(),
            };
            check(Outcome::Stock(stock_core::Outcome::Reservation(Arc::new(
                reservation,
            ))));
        }
        let short = ShortLine {
            sku: sku.clone(),
            location: location.clone(),
            requested: 3,
            available: -2,
            reservable: 1,
        };
        let shortage = Arc::new(Shortage { lines: vec![short] });
        check(Outcome::Stock(stock_core::Outcome::Shortage(shortage)));
        let discrepancy = Discrepancy {
            sku,
            location,
            available: -3,
            short_by: 3,
            endangered: vec![id],
        };
        let discrepancy = Some(Box::new(discrepancy));
        let verdicts = [
            LineVerdict::Recorded {
                discrepancy: None,
                ahead_ms: 0,
            },
            LineVerdict::Recorded {
                discrepancy: discrepancy.clone(),
                ahead_ms: 70_000,
            },
            LineVerdict::AlreadyRecorded { discrepancy: None },
            LineVerdict::AlreadyRecorded {
                discrepancy: discrepancy.clone(),
            },
            LineVerdict::Refused(Refusal::DocumentReused),
        ];
        check(Outcome::Stock(stock_core::Outcome::Movements(Box::new(
            verdicts,
        ))));
        check(Outcome::Catalog(CatalogOutcome::Put));
        let policy = Policy {
            safety_stock: 1,
            backorder_limit: 2,
            available: 3,
            discrepancy,
        };
        check(Outcome::Stock(stock_core::Outcome::Policy(policy)));
    }

    #[test]
    fn refusals_survive_the_way_between_nodes() {
        for refusal in [
            Refusal::RequestTooOld { horizon: Stamp(4) },
            Refusal::RequestFromFuture,
            Refusal::RequestReused,
            Refusal::RequestMemoryFull,
            Refusal::DocumentTooOld { horizon: Stamp(5) },
            Refusal::DocumentReused,
            Refusal::OccurredInFuture,
            Refusal::UnknownSku { line: 3 },
            Refusal::UnknownReservation,
            Refusal::WrongState {
                state: State::Released,
            },
            Refusal::NothingToExtend,
            Refusal::LineNotInReservation { line: 1 },
            Refusal::LineAmbiguous { line: 2 },
            Refusal::LineExceedsOpen { line: 2, open: 8 },
            Refusal::CounterOutOfRange { line: 1 },
            Refusal::TooManyReservations,
            Refusal::TooManyPositions,
            Refusal::TooManyLocations,
            Refusal::ReservationIdTaken,
            Refusal::DocumentMemoryFull,
        ] {
            assert_eq!(decode_refusal(&encode_refusal(&refusal)), Some(refusal));
        }
    }
}
