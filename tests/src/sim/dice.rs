//! Where chance comes from: one generator for each purpose, all from one seed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of chances. Streams of one seed are independent, so that what one part of the run draws
/// changes nothing for another.
pub(crate) struct Dice(SmallRng);

impl Dice {
    /// The stream of this seed for this purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(SmallRng::seed_from_u64(xxh3_64_with_seed(
            purpose.as_bytes(),
            seed,
        )))
    }

    /// The stream of this number.
    pub(crate) fn of(number: u64) -> Self {
        Self(SmallRng::seed_from_u64(number))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// `true` so many times out of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.0.random_range(0..1_000) < per_mille
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        match from.len() {
            0 => None,
            len => Some(&from[self.below(len)]),
        }
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// For what draws by itself.
    pub(crate) fn generator(&mut self) -> &mut SmallRng {
        &mut self.0
    }

    /// Mostly near `low`, seldom near `high`: how long things take.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        let most = match self.between(0, 99) {
            0..80 => span / 10,
            80..97 => span / 3,
            _ => span,
        };
        low + self.between(0, most)
    }
}
