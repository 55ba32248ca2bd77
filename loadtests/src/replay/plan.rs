//! What the replay will do, decided before the first call: positions, opening stock, and the orders
//! with how each of them ends. All of it depends on the data and the seed only; over how many
//! shards a basket reaches also on the names of its SKUs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_tally::{OrderLine, Position};

use super::dataset::{Basket, Dataset};

/// Lines of one reservation that the API takes.
const ORDER_LINES_MAX: usize = 256;

/// The opening stock of a position is what the data sells there and up to this many units more, so
/// that the last unit is sometimes sold and sometimes left.
const SURPLUS_UNITS_MAX: i64 = 20;

/// What the command line decides about a plan.
#[derive(Clone, Copy)]
pub(crate) struct Choices {
    pub(crate) seed: u64,
    /// Baskets nobody pays for: half are released, half left to expire.
    pub(crate) abandon_percent: u32,
    /// Baskets handed over in two parts, or partly released before they are paid.
    pub(crate) partial_percent: u32,
}

pub(crate) struct Plan {
    /// Location ids of every store that sells something.
    pub(crate) stores: Vec<String>,
    pub(crate) positions: Vec<Position>,
    /// In the order of time.
    pub(crate) orders: Vec<Order>,
    pub(crate) baskets_abandoned: u64,
    /// How many baskets reach over so many shards.
    pub(crate) baskets_by_shards: BTreeMap<usize, u64>,
}

/// The lines of one basket, as many as a reservation takes: one reservation.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) ending: Ending,
}

#[derive(Debug)]
pub(crate) enum Ending {
    /// Confirmed and fulfilled.
    HandedOver,
    /// Confirmed and fulfilled, these units first.
    HandedOverInTwo {
        first: Vec<OrderLine>,
    },
    /// These units are released, the rest is confirmed and fulfilled.
    PartlyReleased {
        dropped: Vec<OrderLine>,
    },
    Released,
    LeftToExpire,
}

impl Plan {
    /// `sku_prefix` keeps this run's SKUs apart from those of any other.
    pub(crate) fn new(
        dataset: &Dataset,
        sku_prefix: &str,
        choices: Choices,
        shard_of: impl Fn(&str) -> u32,
    ) -> Plan {
        let mut random = StdRng::seed_from_u64(choices.seed);
        let mut positions = Positions::new(sku_prefix);
        let mut plan = Plan {
            stores: Vec::new(),
            positions: Vec::new(),
            orders: Vec::new(),
            baskets_abandoned: 0,
            baskets_by_shards: BTreeMap::new(),
        };
        for basket in &dataset.baskets {
            let fate = Fate::draw(choices, &mut random);
            plan.baskets_abandoned +=
                u64::from(matches!(fate, Fate::Released | Fate::LeftToExpire));
            let mut shards = BTreeSet::new();
            for lines in positions.orders(basket) {
                let skus = lines.iter().map(|line| &positions.list[line.position].sku);
                shards.extend(skus.map(|sku| shard_of(sku)));
                let ending = fate.of_order(&lines);
                plan.orders.push(Order { lines, ending });
            }
            *plan.baskets_by_shards.entry(shards.len()).or_default() += 1;
        }
        for position in &mut positions.list {
            position.opening += random.random_range(0..=SURPLUS_UNITS_MAX);
        }
        plan.positions = positions.list;
        plan.stores = plan.positions.iter().map(|p| p.location.clone()).collect();
        plan.stores.sort_unstable();
        plan.stores.dedup();
        plan
    }
}

/// How all orders of a basket end.
#[derive(Clone, Copy)]
enum Fate {
    HandedOver,
    HandedOverInTwo,
    PartlyReleased,
    Released,
    LeftToExpire,
}

impl Fate {
    /// Draws the same number of times whatever comes of it.
    fn draw(choices: Choices, random: &mut StdRng) -> Fate {
        let abandoned = random.random_ratio(choices.abandon_percent, 100);
        let in_parts = random.random_ratio(choices.partial_percent, 100);
        let heads = random.random_ratio(1, 2);
        match (abandoned, in_parts, heads) {
            (true, _, true) => Fate::LeftToExpire,
            (true, _, false) => Fate::Released,
            (false, true, true) => Fate::HandedOverInTwo,
            (false, true, false) => Fate::PartlyReleased,
            (false, false, _) => Fate::HandedOver,
        }
    }

    /// An order of one unit has no part, so it is handed over whole.
    fn of_order(self, lines: &[OrderLine]) -> Ending {
        match (self, part_of(lines)) {
            (Fate::Released, _) => Ending::Released,
            (Fate::LeftToExpire, _) => Ending::LeftToExpire,
            (Fate::HandedOverInTwo, Some(first)) => Ending::HandedOverInTwo { first },
            (Fate::PartlyReleased, Some(dropped)) => Ending::PartlyReleased { dropped },
            _ => Ending::HandedOver,
        }
    }
}

/// About half of an order, never all of it: half of each line, or the first line where all lines
/// are of one unit. Nothing of a single unit.
fn part_of(lines: &[OrderLine]) -> Option<Vec<OrderLine>> {
    let halves: Vec<OrderLine> = lines
        .iter()
        .filter(|line| line.quantity > 1)
        .map(|line| OrderLine {
            quantity: line.quantity / 2,
            ..*line
        })
        .collect();
    match (halves.is_empty(), lines) {
        (false, _) => Some(halves),
        (true, [first, _, ..]) => Some(vec![*first]),
        (true, _) => None,
    }
}

/// Positions by product and store, numbered as they are met.
pub(crate) struct Positions<'a> {
    sku_prefix: &'a str,
    index: HashMap<(u64, u32), usize>,
    pub(crate) list: Vec<Position>,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(sku_prefix: &'a str) -> Self {
        Positions {
            sku_prefix,
            index: HashMap::new(),
            list: Vec::new(),
        }
    }

    /// A basket's lines, by as many as a reservation takes. They count as opening stock.
    pub(crate) fn orders(&mut self, basket: &Basket) -> Vec<Vec<OrderLine>> {
        let mut lines = Vec::with_capacity(basket.lines.len());
        for line in &basket.lines {
            let position = self.position(line.product, basket.store);
            self.list[position].opening += line.quantity;
            lines.push(OrderLine {
                position,
                quantity: line.quantity,
            });
        }
        let orders = lines.chunks(ORDER_LINES_MAX);
        orders.map(<[_]>::to_vec).collect()
    }

    fn position(&mut self, product: u64, store: u32) -> usize {
        *self.index.entry((product, store)).or_insert_with(|| {
            self.list.push(Position {
                sku: format!("{}.{product}", self.sku_prefix),
                location: format!("store-{store}"),
                opening: 0,
            });
            self.list.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::BasketLine;
    use super::*;

    const CHOICES: Choices = Choices {
        seed: 7,
        abandon_percent: 20,
        partial_percent: 30,
    };

    /// 400 baskets of 1 to 12 lines over 9 products in 3 stores.
    fn dataset() -> Dataset {
        let mut random = StdRng::seed_from_u64(1);
        let baskets = (0..400)
            .map(|_| Basket {
                store: random.random_range(1..=3),
                second_of_day: 0,
                lines: (1..=random.random_range(1..=12))
                    .map(|product| BasketLine {
                        product,
                        quantity: random.random_range(1..=4),
                    })
                    .collect(),
            })
            .collect();
        Dataset {
            baskets,
            lines_skipped: 0,
        }
    }

    fn shard_of(sku: &str) -> u32 {
        u32::from(sku.as_bytes()[sku.len() - 1]) % 4
    }

    #[test]
    fn every_basket_is_one_order_with_all_its_lines() {
        let dataset = dataset();
        let plan = Plan::new(&dataset, "r1", CHOICES, shard_of);
        assert_eq!(plan.orders.len(), dataset.baskets.len());
        let mut by_shards: BTreeMap<usize, u64> = BTreeMap::new();
        for (basket, order) in dataset.baskets.iter().zip(&plan.orders) {
            assert_eq!(order.lines.len(), basket.lines.len());
            let mut shards = BTreeSet::new();
            for (line, expected) in order.lines.iter().zip(&basket.lines) {
                let position = &plan.positions[line.position];
                assert_eq!(position.location, format!("store-{}", basket.store));
                assert_eq!(position.sku, format!("r1.{}", expected.product));
                assert_eq!(line.quantity, expected.quantity);
                shards.insert(shard_of(&position.sku));
            }
            *by_shards.entry(shards.len()).or_default() += 1;
        }
        assert_eq!(plan.baskets_by_shards, by_shards);
        assert!(by_shards.len() == 4, "{by_shards:?}");
    }

    #[test]
    fn opening_stock_covers_all_that_is_ever_asked_for() {
        let plan = Plan::new(&dataset(), "r1", CHOICES, shard_of);
        let mut asked = vec![0; plan.positions.len()];
        for line in plan.orders.iter().flat_map(|order| &order.lines) {
            asked[line.position] += line.quantity;
        }
        let surplus: Vec<i64> = plan
            .positions
            .iter()
            .zip(&asked)
            .map(|(p, asked)| p.opening - asked)
            .collect();
        assert!(
            surplus.iter().all(|s| (0..=SURPLUS_UNITS_MAX).contains(s)),
            "{surplus:?}"
        );
        assert!(surplus.iter().any(|s| *s > 0), "nobody has a surplus");
    }

    #[test]
    fn a_basket_of_more_lines_than_an_order_takes_is_more_than_one_order() {
        let lines = (1..=300)
            .map(|product| BasketLine {
                product,
                quantity: 1,
            })
            .collect();
        let dataset = Dataset {
            baskets: vec![Basket {
                store: 1,
                second_of_day: 0,
                lines,
            }],
            lines_skipped: 0,
        };
        let plan = Plan::new(&dataset, "r1", CHOICES, |_| 0);
        let sizes: Vec<usize> = plan.orders.iter().map(|order| order.lines.len()).collect();
        assert_eq!(sizes, [256, 44]);
    }

    #[test]
    fn a_part_is_never_nothing_and_never_all() {
        let order = |quantities: &[i64]| -> Vec<OrderLine> {
            let line = |(position, quantity): (usize, &i64)| OrderLine {
                position,
                quantity: *quantity,
            };
            quantities.iter().enumerate().map(line).collect()
        };
        assert_eq!(part_of(&order(&[1])), None);
        assert_eq!(part_of(&order(&[1, 1, 1])), Some(order(&[1])));
        assert_eq!(part_of(&order(&[5, 1])), Some(order(&[2])));
        assert_eq!(part_of(&order(&[3])), Some(order(&[1])));
    }

    #[test]
    fn the_shares_are_about_what_was_asked_and_the_seed_decides() {
        let endings = |choices| -> Vec<String> {
            let plan = Plan::new(&dataset(), "r1", choices, shard_of);
            plan.orders
                .iter()
                .map(|order| format!("{:?}", order.ending))
                .collect()
        };
        let first = endings(CHOICES);
        assert_eq!(first, endings(CHOICES));
        assert_ne!(first, endings(Choices { seed: 8, ..CHOICES }));

        let share = |wanted: &str| {
            first
                .iter()
                .filter(|ending| ending.starts_with(wanted))
                .count()
                * 100
                / first.len()
        };
        assert!(
            (5..=15).contains(&share("Released")),
            "{}",
            share("Released")
        );
        assert!(
            (5..=15).contains(&share("LeftToExpire")),
            "{}",
            share("LeftToExpire")
        );
        assert!(share("HandedOverInTwo") > 3 && share("PartlyReleased") > 3);
        assert_eq!(
            endings(Choices {
                abandon_percent: 100,
                ..CHOICES
            })
            .iter()
            .filter(|e| e.starts_with("Handed"))
            .count(),
            0
        );
    }

    #[test]
    fn another_prefix_spreads_baskets_differently_and_changes_nothing_else() {
        // Like a hash: other SKUs share a shard under another prefix.
        let shard_of = |sku: &str| {
            let sum: u32 = sku.bytes().map(u32::from).sum();
            ((sum * sum) >> 3) % 4
        };
        let plan = |prefix| Plan::new(&dataset(), prefix, CHOICES, shard_of);
        let (first, second) = (plan("r1"), plan("r22"));
        assert_ne!(first.baskets_by_shards, second.baskets_by_shards);
        assert_eq!(first.orders.len(), second.orders.len());
        assert_eq!(first.baskets_abandoned, second.baskets_abandoned);
        let opening = |plan: &Plan| plan.positions.iter().map(|p| p.opening).collect::<Vec<_>>();
        assert_eq!(opening(&first), opening(&second));
    }
}
