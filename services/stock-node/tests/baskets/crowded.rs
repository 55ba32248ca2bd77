//! A shard is away for long, and more baskets wait for it than are seen to at once: they stand in
//! nobody's way.

use stock_core::State;

use super::town::{Town, Way, lines};
use super::{FREE, held};

/// More than a leader finds out at once.
const CROWD: usize = 700;
/// More than a leader looks at, at once, of those that it may ask about.
const LARGE_CROWD: usize = 5_000;
const TTL_MS: u64 = 900_000;
const LONG_MS: u64 = 30_000;

/// Baskets of which nobody knows whether the shard that is away holds its part.
fn wait_for_4(town: &mut Town) {
    town.away.push(4);
    for _ in 0..CROWD {
        let request = town.request();
        let command = town.reserve_command(request, &lines(&[(2, 1), (4, 1), (6, 1)]), true);
        town.coordinate(command, |_| Way::Arrives);
    }
}

#[test]
fn all_that_ends_undecided_is_free_however_many_wait_for_a_shard() {
    let mut town = Town::with_stock(1_000);
    wait_for_4(&mut town);
    let crowd = CROWD as i64;
    assert_eq!(town.reserved(), [0, 0, crowd, 0, 0, 0, crowd, 0]);
    town.now = town.now.plus_ms(TTL_MS);
    town.wait_ms(LONG_MS);
    assert_eq!(town.reserved(), FREE);
    town.away.clear();
    town.wait_ms(LONG_MS);
    assert!(town.is_quiet() && town.parts() == 0);
}

#[test]
fn what_an_edge_left_behind_is_found_out_however_many_wait_for_a_shard() {
    let mut town = Town::with_stock(1_000);
    wait_for_4(&mut town);
    town.wait_ms(LONG_MS);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(2, 1), (6, 1)]), true);
    let told = town.coordinate(command, |_| Way::Arrives).unwrap();
    let id = held(&told.said.unwrap()).id;
    town.wait_ms(LONG_MS);
    assert!(!town.is_undecided(id));
    assert_eq!(town.reservation(id).unwrap().state, State::Held);
}

#[test]
fn a_home_is_asked_however_many_parts_wait_for_another() {
    let mut town = Town::with_stock(LARGE_CROWD as i64 + 1);
    for _ in 0..LARGE_CROWD {
        held(&town.reserve(&lines(&[(2, 1), (4, 1)])));
    }
    town.away.push(2);
    town.now = town.now.plus_ms(2 * TTL_MS);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(6, 1), (4, 1)]), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    // Home has decided, and does not tell.
    town.say_first(ended.afterwards);
    town.now = town.now.plus_ms(LONG_MS);
    let is_asked = |town: &mut Town| town.errands_of(4).iter().any(|errand| errand.to == 6);
    assert!((0..100).any(|_| is_asked(&mut town)));
}
