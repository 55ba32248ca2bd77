//! What is remembered of a request's outcome: what its retry does not bring itself.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::apply::need::Need;
use crate::basket::Line;
use crate::codec::{Read, Reader, Writer};
use crate::command::Operation;
use crate::ids::{Location, Principal, ReservationId, Stamp};
use crate::labels::Labels;
use crate::memory::Weigh;
use crate::outcome::{InTheWay, Outcome, Policy, Refusal, ShortLine, Shortage};
use crate::reservation::{Reservation, ReservationLine, State};
use crate::sku::Sku;

/// What is kept of an outcome. A plain reserve, by far the most frequent, is kept in a few bytes,
/// and so is a shortage: their lines are those of the retried command, since the fingerprints are
/// equal.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Held {
        id: ReservationId,
        created_at: Stamp,
        expires_at: Stamp,
    },
    Reservation(Arc<Reservation>),
    /// Home has done its part, and it is not decided yet.
    Prepared {
        id: ReservationId,
    },
    Shortage(ShortNeeds),
    Policy(Box<Policy>),
    Refused(Box<Refusal>),
}

impl Verdict {
    pub(crate) fn of(outcome: &Outcome, operation: &Operation) -> Self {
        match outcome {
            Outcome::Reservation(held) if matches!(operation, Operation::Reserve(_)) => {
                Self::held(held)
            }
            Outcome::Reservation(reservation) => Self::Reservation(Arc::clone(reservation)),
            Outcome::Shortage(shortage) => {
                Self::Shortage(ShortNeeds::of(shortage, lines(operation)))
            }
            Outcome::Policy(policy) => Self::Policy(Box::new(policy.clone())),
            Outcome::Refused(refusal) => Self::Refused(Box::new(*refusal)),
            Outcome::Prepared(prepared) => Self::Prepared {
                id: prepared.reservation.id,
            },
            Outcome::Movements(_) => unreachable!("movements are known by their document"),
            Outcome::Undecided(_) => unreachable!("nothing was done"),
            Outcome::Basket(_) => unreachable!("nobody requests what shards tell each other"),
        }
    }

    /// That a basket is held.
    pub(crate) fn held(reservation: &Reservation) -> Self {
        Self::Held {
            id: reservation.id,
            created_at: reservation.created_at,
            expires_at: reservation.expires_at.unwrap_or(reservation.created_at),
        }
    }

    /// That lines of this basket are short.
    pub(crate) fn short(shortage: &Shortage, lines: &[ReservationLine]) -> Self {
        let needs = lines.iter().map(|line| (&line.sku, &line.location));
        Self::Shortage(ShortNeeds::of_needs(shortage, needs))
    }

    pub(crate) fn outcome(&self, principal: &Principal, operation: &Operation) -> Outcome {
        match self {
            Self::Held {
                id,
                created_at,
                expires_at,
            } => {
                let lines = Need::of_lines(lines(operation))
                    .into_iter()
                    .map(|need| ReservationLine::new(need.sku, need.location, need.quantity))
                    .collect();
                Outcome::Reservation(Arc::new(Reservation {
                    id: *id,
                    state: State::Held,
                    expires_at: Some(*expires_at),
                    created_at: *created_at,
                    principal: principal.clone(),
                    labels: labels(operation),
                    lines,
                }))
            }
            Self::Reservation(reservation) => Outcome::Reservation(Arc::clone(reservation)),
            Self::Shortage(needs) => Outcome::Shortage(Arc::new(needs.of_lines(lines(operation)))),
            Self::Prepared { .. } => unreachable!("it is not decided"),
            Self::Policy(policy) => Outcome::Policy((**policy).clone()),
            Self::Refused(refusal) => Outcome::Refused(**refusal),
        }
    }
}

impl Weigh for Verdict {
    fn bytes(&self) -> usize {
        match self {
            Self::Held { .. } | Self::Prepared { .. } => 0,
            // Counted as if nobody else had it, though mostly the hold is the same.
            Self::Reservation(reservation) => reservation.bytes(),
            Self::Shortage(needs) => needs.packed.len(),
            Self::Policy(policy) => {
                let found = policy.discrepancy.as_ref();
                size_of::<Policy>() + found.map_or(0, |found| found.bytes())
            }
            Self::Refused(_) => size_of::<Refusal>(),
        }
    }
}

/// What a reserve's caller calls it.
fn labels(operation: &Operation) -> Option<Arc<Labels>> {
    match operation {
        Operation::Reserve(reserve) => reserve.labels.clone(),
        _ => None,
    }
}

/// The lines of an operation's basket.
fn lines(operation: &Operation) -> &[Line] {
    match operation {
        Operation::Reserve(reserve) => &reserve.lines,
        Operation::Amend(amend) => &amend.lines,
        Operation::Confirm(_)
        | Operation::Release(_)
        | Operation::Fulfill(_)
        | Operation::Extend(_)
        | Operation::SetPolicy(_) => &[],
    }
}

/// Which needs of a basket were short, and what there was. Packed, since refused baskets may be
/// large and many: how many, then for each its place among the basket's needs, what was available
/// and what was reservable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortNeeds {
    packed: Box<[u8]>,
}

impl ShortNeeds {
    fn of(shortage: &Shortage, lines: &[Line]) -> Self {
        let needs = Need::of_lines(lines);
        Self::of_needs(shortage, needs.iter().map(|it| (&it.sku, &it.location)))
    }

    fn of_needs<'a>(
        shortage: &Shortage,
        needs: impl Iterator<Item = (&'a Sku, &'a Location)>,
    ) -> Self {
        let short = (0..).zip(needs).filter_map(|(place, (sku, location))| {
            let is_need = |line: &&ShortLine| line.sku == *sku && line.location == *location;
            Some((place, shortage.lines.iter().find(is_need)?))
        });
        let short: SmallVec<[(u64, &ShortLine); 4]> = short.collect();
        let mut packed = Writer::default();
        packed.number(short.len() as u64);
        for (place, line) in short {
            packed.number(place);
            packed.signed(line.available);
            packed.signed(line.reservable);
        }
        Self {
            packed: packed.into_bytes().into(),
        }
    }

    fn of_lines(&self, lines: &[Line]) -> Shortage {
        let needs = Need::of_lines(lines);
        let mut short = Vec::new();
        let read = self.read(|place, available, reservable| {
            if let Some(need) = usize::try_from(place).ok().and_then(|at| needs.get(at)) {
                short.push(ShortLine {
                    sku: need.sku.clone(),
                    location: need.location.clone(),
                    requested: need.quantity,
                    available,
                    reservable,
                });
            }
        });
        debug_assert_eq!(read, Ok(()), "packed here, or checked when it was restored");
        Shortage {
            lines: short,
            in_the_way: InTheWay::Stock,
        }
    }

    /// As it was written down.
    pub(crate) fn from_bytes(packed: &[u8]) -> Read<Self> {
        let needs = Self {
            packed: packed.into(),
        };
        needs.read(|_, _, _| {})?;
        Ok(needs)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.packed
    }

    fn read(&self, mut short: impl FnMut(u64, i64, i64)) -> Read<()> {
        let mut reader = Reader::new(&self.packed);
        for _ in 0..reader.number()? {
            short(reader.number()?, reader.signed()?, reader.signed()?);
        }
        reader.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Reserve;
    use crate::ids::{Location, Quantity};
    use crate::sku::Sku;

    #[test]
    fn a_shortage_comes_back_from_its_retrys_lines_in_a_few_bytes() {
        let line = |sku: &str, quantity| Line {
            sku: Sku::new(sku).unwrap(),
            location: Location::new("A").unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
        };
        let lines = vec![
            line("MUG", 2),
            line("PEN", 1),
            line("MUG", 3),
            line("INK", 9),
        ];
        let short = |sku: &str, requested, available, reservable| ShortLine {
            sku: Sku::new(sku).unwrap(),
            location: Location::new("A").unwrap(),
            requested,
            available,
            reservable,
        };
        let shortage = Shortage {
            lines: vec![short("MUG", 5, -1, 0), short("INK", 9, 1_000_000, 8)],
            in_the_way: InTheWay::Stock,
        };
        let operation = Operation::Reserve(Reserve {
            id: ReservationId::compose(Stamp(1), 0, 1),
            lines,
            ttl_ms: 5,
            labels: None,
            over: None,
        });
        let outcome = Outcome::Shortage(Arc::new(shortage));
        let verdict = Verdict::of(&outcome, &operation);
        assert_eq!(verdict.bytes(), 1 + (1 + 1 + 1) + (1 + 3 + 1));
        let principal = Principal::new("web").unwrap();
        assert_eq!(verdict.outcome(&principal, &operation), outcome);
    }

    #[test]
    fn bytes_that_are_no_shortage_are_refused() {
        assert!(ShortNeeds::from_bytes(&[]).is_err());
        assert!(ShortNeeds::from_bytes(&[0, 0]).is_err());
        assert!(ShortNeeds::from_bytes(&[1, 0, 2]).is_err());
        assert!(ShortNeeds::from_bytes(&[1, 0, 2, 4]).is_ok());
    }
}
