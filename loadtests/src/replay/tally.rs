//! The other bookkeeping: plain sums over what the data says was received, held and handed over. It
//! takes nothing from the cluster's answers but that they came, so that the two can be compared.

use stock_proto::stock::v1::Availability;

use super::plan::{OrderLine, Position};

pub(crate) struct Tally {
    /// One for each of the plan's positions.
    counts: Vec<Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
}

/// A position where the cluster and the tally differ.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) sku: String,
    pub(crate) location: String,
    pub(crate) tally: Count,
    pub(crate) cluster: Count,
    /// What the cluster says can be sold.
    pub(crate) available: i64,
}

impl Tally {
    pub(crate) fn new(positions: usize) -> Tally {
        Tally {
            counts: vec![Count::default(); positions],
        }
    }

    pub(crate) fn received(&mut self, position: usize, units: i64) {
        self.counts[position].on_hand += units;
    }

    pub(crate) fn held(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved += line.quantity;
        }
    }

    /// Released, or left to expire.
    pub(crate) fn given_back(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved -= line.quantity;
        }
    }

    pub(crate) fn handed_over(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved -= line.quantity;
            self.counts[line.position].on_hand -= line.quantity;
        }
    }

    /// Units that nobody had set aside.
    pub(crate) fn sold(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].on_hand -= line.quantity;
        }
    }

    /// Units on hand and reserved over all positions.
    pub(crate) fn total(&self) -> Count {
        self.counts
            .iter()
            .fold(Count::default(), |sum, count| Count {
                on_hand: sum.on_hand + count.on_hand,
                reserved: sum.reserved + count.reserved,
            })
    }

    /// Compares one answer with the position it was asked for. An answer about another position is
    /// a mismatch, too.
    pub(crate) fn check(
        &self,
        index: usize,
        position: &Position,
        answer: &Availability,
    ) -> Option<Mismatch> {
        let tally = self.counts[index];
        let cluster = Count {
            on_hand: answer.on_hand,
            reserved: answer.reserved,
        };
        let same = tally == cluster
            && answer.available == tally.on_hand - tally.reserved
            && answer.sku == position.sku
            && answer.location == position.location;
        (!same).then(|| Mismatch {
            sku: position.sku.clone(),
            location: position.location.clone(),
            tally,
            cluster,
            available: answer.available,
        })
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mismatch {
            sku,
            location,
            tally,
            cluster,
            available,
        } = self;
        write!(
            f,
            "{sku}@{location}: the tally says {} on hand and {} reserved, the cluster {} and {}, \
             {available} available",
            tally.on_hand, tally.reserved, cluster.on_hand, cluster.reserved
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(position: usize, quantity: i64) -> OrderLine {
        OrderLine { position, quantity }
    }

    fn position() -> Position {
        Position {
            sku: "r1.7".into(),
            location: "store-3".into(),
            opening: 0,
        }
    }

    fn answer(on_hand: i64, reserved: i64) -> Availability {
        Availability {
            sku: "r1.7".into(),
            location: "store-3".into(),
            on_hand,
            reserved,
            available: on_hand - reserved,
            known: true,
            ..Availability::default()
        }
    }

    #[test]
    fn the_life_of_an_order_moves_its_units() {
        let mut tally = Tally::new(2);
        tally.received(0, 10);
        tally.received(1, 5);
        let order = [line(0, 4), line(1, 2)];
        tally.held(&order);
        assert_eq!(
            tally.counts,
            [
                Count {
                    on_hand: 10,
                    reserved: 4
                },
                Count {
                    on_hand: 5,
                    reserved: 2
                }
            ]
        );
        tally.given_back(&[line(0, 1)]);
        tally.handed_over(&[line(0, 3)]);
        assert_eq!(
            tally.counts,
            [
                Count {
                    on_hand: 7,
                    reserved: 0
                },
                Count {
                    on_hand: 5,
                    reserved: 2
                }
            ]
        );
        tally.handed_over(&[line(1, 2)]);
        assert_eq!(
            tally.total(),
            Count {
                on_hand: 10,
                reserved: 0
            }
        );
    }

    #[test]
    fn one_unit_of_difference_is_a_mismatch() {
        let mut tally = Tally::new(1);
        tally.received(0, 10);
        tally.held(&[line(0, 4)]);
        let check = |answer: Availability| tally.check(0, &position(), &answer);
        assert_eq!(check(answer(10, 4)), None);
        assert!(check(answer(9, 4)).is_some());
        assert!(check(answer(10, 3)).is_some());
        assert!(
            check(Availability {
                available: 7,
                ..answer(10, 4)
            })
            .is_some()
        );
        assert!(
            check(Availability {
                sku: "r1.8".into(),
                ..answer(10, 4)
            })
            .is_some()
        );
        let text = check(answer(11, 4)).map(|mismatch| mismatch.to_string());
        assert_eq!(
            text.as_deref(),
            Some(
                "r1.7@store-3: the tally says 10 on hand and 4 reserved, the cluster 11 and 4, 7 \
                 available"
            )
        );
    }
}
