//! What home has decided, for the participants: whoever had it decide passes that on.

use std::collections::BTreeMap;

use stock_core::{AllHeld, BasketCommand, BasketOutcome, HeldBasket, Outcome};

use super::parts::{ITSELF, ToShard};

/// Baskets that a participant is told of with one command.
const BASKETS_MAX: usize = 1_024;

/// What participants are told of these answers of homes, with as few commands as may be.
pub fn passed_on<'a>(answers: impl Iterator<Item = &'a Outcome>) -> impl Iterator<Item = ToShard> {
    let mut held: BTreeMap<u32, Vec<HeldBasket>> = BTreeMap::new();
    for answer in answers {
        let Outcome::Basket(BasketOutcome::AllHeld(tell)) = answer else {
            continue;
        };
        for shard in &tell.participants {
            held.entry(*shard).or_default().push(tell.basket);
        }
    }
    held.into_iter().flat_map(|(shard, mut baskets)| {
        let mut tell = Vec::new();
        while !baskets.is_empty() {
            let rest = baskets.split_off(baskets.len().min(BASKETS_MAX));
            let all_held = BasketCommand::AllHeld(AllHeld { baskets });
            tell.push(ToShard::new(shard, &ITSELF, all_held));
            baskets = rest;
        }
        tell
    })
}
