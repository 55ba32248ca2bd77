//! The other bookkeeping: plain sums over what is known to have been received, held and handed
//! over. It takes nothing from the cluster's answers but that they came, so that the two can be
//! compared.

use stock_proto::stock::v1::Availability;

/// A SKU at a location, and the units it opens with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// What.
    pub sku: String,
    /// Where.
    pub location: String,
    /// Units received before anything else.
    pub opening: i64,
}

/// Units of one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderLine {
    /// Its number among the positions.
    pub position: usize,
    /// How many.
    pub quantity: i64,
}

/// The books of one shop.
#[derive(Debug, Clone)]
pub struct Tally {
    /// One for each position.
    counts: Vec<Count>,
}

/// What is there of a position, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In the building, reserved or not.
    pub on_hand: i64,
    /// Held or confirmed, and not handed over.
    pub reserved: i64,
}

/// A position where the cluster and the tally differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What.
    pub sku: String,
    /// Where.
    pub location: String,
    /// As it should be.
    pub tally: Count,
    /// As the cluster says.
    pub cluster: Count,
    /// What the cluster says can be sold.
    pub available: i64,
}

impl Tally {
    /// Of so many positions, with nothing there.
    pub fn new(positions: usize) -> Tally {
        Tally {
            counts: vec![Count::default(); positions],
        }
    }

    /// Units came in.
    pub fn received(&mut self, position: usize, units: i64) {
        self.counts[position].on_hand += units;
    }

    /// A basket was reserved.
    pub fn held(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved += line.quantity;
        }
    }

    /// Released, or left to expire.
    pub fn given_back(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved -= line.quantity;
        }
    }

    /// What was reserved has left the building.
    pub fn handed_over(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].reserved -= line.quantity;
            self.counts[line.position].on_hand -= line.quantity;
        }
    }

    /// Units that nobody had set aside.
    pub fn sold(&mut self, lines: &[OrderLine]) {
        for line in lines {
            self.counts[line.position].on_hand -= line.quantity;
        }
    }

    /// What should be there of a position.
    pub fn count(&self, position: usize) -> Count {
        self.counts[position]
    }

    /// Units on hand and reserved over all positions.
    pub fn total(&self) -> Count {
        self.counts
            .iter()
            .fold(Count::default(), |sum, count| Count {
                on_hand: sum.on_hand + count.on_hand,
                reserved: sum.reserved + count.reserved,
            })
    }

    /// Compares one answer with the position it was asked for. An answer about another position is
    /// a mismatch, too. Positions have no safety stock: all that is not reserved is available.
    pub fn check(
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
            && answer.location.as_ref() == Some(&position.location);
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
            location: Some("store-3".into()),
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
