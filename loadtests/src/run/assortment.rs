//! What is drawn: baskets of SKUs that are wanted more or less.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};

use super::profile::Stock;
use stock_tally::{OrderLine, Position};

/// SKUs by their popularity, over all and in each shard.
pub(crate) struct Assortment {
    shard_of: Vec<u32>,
    by_shard: Vec<Vec<usize>>,
    popularity: Popularity,
    popularity_by_shard: Vec<Popularity>,
}

/// Draws ranks, of which 0 is drawn most often.
struct Popularity(Option<Zipf<f64>>);

impl Popularity {
    fn new(ranks: usize, exponent: f64) -> Popularity {
        Popularity(Zipf::new(ranks as f64, exponent).ok())
    }

    fn draw(&self, random: &mut StdRng) -> usize {
        // Of nothing, the first: nobody draws from a shard without SKUs.
        self.0.map_or(0, |zipf| zipf.sample(random) as usize - 1)
    }
}

/// All SKUs of a profile, at one location. The first is the most popular.
pub(crate) fn positions(stock: &Stock, run_name: &str) -> Vec<Position> {
    let position = |number| Position {
        sku: format!("{run_name}.{number}"),
        location: "loadtest".to_owned(),
        opening: stock.units_per_sku,
    };
    (0..stock.skus).map(position).collect()
}

impl Assortment {
    pub(crate) fn new(
        positions: &[Position],
        popularity: f64,
        shards: u32,
        shard_of: impl Fn(&str) -> u32,
    ) -> Assortment {
        let shard_of: Vec<u32> = positions.iter().map(|p| shard_of(&p.sku)).collect();
        let mut by_shard = vec![Vec::new(); shards as usize];
        for (position, shard) in shard_of.iter().enumerate() {
            by_shard[*shard as usize].push(position);
        }
        let of_shard = |skus: &Vec<usize>| Popularity::new(skus.len(), popularity);
        Assortment {
            popularity: Popularity::new(positions.len(), popularity),
            popularity_by_shard: by_shard.iter().map(of_shard).collect(),
            shard_of,
            by_shard,
        }
    }

    /// From 1 to so many lines of one unit, all in one shard.
    pub(crate) fn basket(&self, lines_max: u32, random: &mut StdRng) -> Vec<OrderLine> {
        let first = self.popularity.draw(random);
        let shard = self.shard_of[first] as usize;
        let more = random.random_range(0..lines_max);
        let mut lines = vec![OrderLine {
            position: first,
            quantity: 1,
        }];
        for _ in 0..more {
            let rank = self.popularity_by_shard[shard].draw(random);
            lines.push(OrderLine {
                position: self.by_shard[shard][rank],
                quantity: 1,
            });
        }
        lines
    }

    /// So many positions to look at, in any shards.
    pub(crate) fn glances(&self, count: u32, random: &mut StdRng) -> Vec<usize> {
        (0..count).map(|_| self.popularity.draw(random)).collect()
    }

    /// Lines of a delivery, all SKUs alike.
    pub(crate) fn delivery(
        &self,
        lines: u32,
        units: RangeInclusive<i64>,
        random: &mut StdRng,
    ) -> Vec<OrderLine> {
        let skus = self.shard_of.len();
        let line = |_| OrderLine {
            position: random.random_range(0..skus),
            quantity: random.random_range(units.clone()),
        };
        (0..lines).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn assortment(popularity: f64) -> Assortment {
        let stock = Stock {
            skus: 100,
            units_per_sku: 1,
            popularity,
        };
        let positions = positions(&stock, "r1");
        Assortment::new(&positions, popularity, 4, |sku| sku.len() as u32 % 4)
    }

    #[test]
    fn a_basket_is_in_one_shard() {
        let assortment = assortment(0.9);
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..1_000 {
            let basket = assortment.basket(5, &mut random);
            assert!((1..=5).contains(&basket.len()));
            let shard = |line: &OrderLine| assortment.shard_of[line.position];
            assert!(basket.iter().all(|line| shard(line) == shard(&basket[0])));
        }
    }

    #[test]
    fn the_exponent_says_how_popular_the_first_is() {
        let share_of_first = |popularity| {
            let assortment = assortment(popularity);
            let mut random = StdRng::seed_from_u64(1);
            let drawn = assortment.glances(10_000, &mut random);
            drawn.iter().filter(|position| **position == 0).count()
        };
        assert!(
            (50..150).contains(&share_of_first(0.0)),
            "{}",
            share_of_first(0.0)
        );
        assert!(share_of_first(1.0) > 1_500, "{}", share_of_first(1.0));
    }
}
