//! That a basket is held is passed on to its participants by whoever had home decide, and nobody
//! depends on it.

use stock_core::State;

use super::town::{Town, Way, lines};
use super::{FREE, held};

const BASKET: [(u32, i64); 3] = [(3, 1), (0, 2), (7, 4)];
const TAKEN: [i64; 8] = [2, 0, 0, 1, 0, 0, 0, 4];

/// Longer than participants wait before they ask.
const LONG_MS: u64 = 10_000;

#[test]
fn who_is_told_that_a_basket_is_held_has_nothing_to_ask_and_home_owes_nothing() {
    let mut town = Town::with_stock(5);
    held(&town.reserve(&lines(&BASKET)));
    assert!(town.is_quiet());
    town.now = town.now.plus_ms(LONG_MS);
    for shard in 0..8 {
        assert!(town.errands_of(shard).is_empty(), "of shard {shard}");
    }
    assert_eq!(town.reserved(), TAKEN);
}

#[test]
fn who_is_not_told_asks_home_and_is_told_then() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    let told = town.say_first(ended.afterwards);
    assert_eq!(told.len(), 2, "one command for each participant");
    town.now = town.now.plus_ms(LONG_MS);
    assert_eq!(town.errands_of(0).len(), 1);
    town.change_leaders();
    town.wait_ms(1_000);
    assert!(town.is_quiet());
    for shard in 0..8 {
        assert!(town.errands_of(shard).is_empty(), "of shard {shard}");
    }
    assert_eq!(town.reserved(), TAKEN);
}

#[test]
fn that_it_was_held_brings_nothing_back_of_what_has_ended_since() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    let told = town.say_first(ended.afterwards);
    let id = held(&ended.said.unwrap()).id;
    town.release(id);
    town.wait_ms(100);
    assert_eq!(town.reserved(), FREE);
    told.into_iter().for_each(|tell| drop(town.tell(tell)));
    town.wait_ms(LONG_MS);
    assert_eq!(town.reserved(), FREE);
    assert!(town.is_quiet() && town.parts() == 0);
}

#[test]
fn what_ends_before_it_is_decided_is_not_said_to_be_held() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    let id = held(&ended.said.unwrap()).id;
    town.release(id);
    assert_eq!(town.say_first(ended.afterwards), []);
    town.wait_ms(100);
    assert_eq!(town.reserved(), FREE);
}

#[test]
fn a_part_that_was_lost_before_the_basket_was_decided_is_made_again() {
    let mut town = Town::with_stock(5);
    let before = town.copy_of(7);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    let id = held(&ended.said.unwrap()).id;
    town.go_on_from(7, before);
    town.wait_ms(100);
    town.say(ended.afterwards);
    town.wait_ms(1_000);
    assert_eq!(town.reserved(), TAKEN);
    assert_eq!(town.reservation(id).unwrap().state, State::Held);
    assert!(town.is_quiet() && !town.is_reconciling(7));
}
