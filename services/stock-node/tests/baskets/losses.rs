//! Groups that go on without what they had lost, when others have not lost it.

use stock_core::{Outcome, Refusal, ReservationId, State};

use super::town::{Town, Way, holds_part, line, lines};
use super::{FREE, held, short};

const BASKET: [(u32, i64); 3] = [(3, 1), (0, 2), (7, 4)];
/// What it takes of each shard.
const TAKEN: [i64; 8] = [2, 0, 0, 1, 0, 0, 0, 4];

/// Holds it, and waits until everybody has heard of that.
fn hold_basket(town: &mut Town) -> ReservationId {
    let id = held(&town.reserve(&lines(&BASKET))).id;
    town.wait_ms(100);
    id
}

#[test]
fn a_shard_that_lost_its_part_holds_it_again_before_it_holds_anything_for_others() {
    let mut town = Town::with_stock(5);
    let before = town.copy_of(7);
    let id = hold_basket(&mut town);
    town.go_on_from(7, before);
    assert_eq!(town.position(7).reserved, 0);
    // Four of its five units are somebody's.
    let alone = town.reserve(&lines(&[(7, 2)]));
    assert_eq!(alone, Outcome::Refused(Refusal::Reconciling));
    let shared = town.reserve(&lines(&[(1, 1), (7, 2)]));
    assert_eq!(shared, Outcome::Refused(Refusal::Reconciling));
    town.wait_ms(1_000);
    assert!(!town.is_reconciling(7) && town.is_quiet());
    assert_eq!(town.reserved(), TAKEN);
    assert_eq!(short(&town.reserve(&lines(&[(7, 2)]))), [7]);
    town.confirm(id);
    town.fulfill(id, &[]);
    town.wait_ms(100);
    assert_eq!(town.reserved(), FREE);
    assert_eq!(town.position(7).on_hand, 1);
}

#[test]
fn what_left_a_shard_that_has_lost_that_leaves_it_again() {
    let mut town = Town::with_stock(5);
    let before = town.copy_of(7);
    let id = held(&town.reserve(&lines(&BASKET))).id;
    let as_held = town.copy_of(7);
    town.confirm(id);
    town.fulfill(id, &[line(7, 3), line(0, 1)]);
    town.wait_ms(100);
    // Of the second it has heard before.
    for copy in [before, as_held] {
        town.go_on_from(7, copy);
        town.wait_ms(1_000);
        let position = town.position(7);
        assert_eq!((position.on_hand, position.reserved), (2, 1));
    }
    town.fulfill(id, &[]);
    town.wait_ms(100);
    assert_eq!(town.position(7).on_hand, 1);
    assert_eq!(town.reserved(), FREE);
}

#[test]
fn a_part_of_what_has_ended_follows_though_its_shard_has_forgotten_that_it_did() {
    let mut town = Town::with_stock(5);
    let id = hold_basket(&mut town);
    let as_held = town.copy_of(7);
    town.confirm(id);
    town.fulfill(id, &[]);
    town.wait_ms(100);
    assert_eq!(town.reservation(id).unwrap().state, State::Fulfilled);
    town.go_on_from(7, as_held);
    assert_eq!(town.reserved(), [0, 0, 0, 0, 0, 0, 0, 4]);
    town.wait_ms(1_000);
    let position = town.position(7);
    assert_eq!((position.on_hand, position.reserved), (1, 0));
    assert!(town.is_quiet());
}

#[test]
fn what_home_has_lost_is_held_by_nobody() {
    let mut town = Town::with_stock(5);
    let before = town.copy_of(3);
    hold_basket(&mut town);
    town.go_on_from(3, before);
    town.wait_ms(1_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    assert!(town.is_quiet() && !town.is_reconciling(3));
    held(&town.reserve(&lines(&[(3, 5), (0, 5), (7, 5)])));
}

#[test]
fn what_is_open_once_more_at_home_is_held_by_all_and_can_end_once_more() {
    let mut town = Town::with_stock(5);
    let id = hold_basket(&mut town);
    for _ in 0..3 {
        let as_held = town.copy_of(3);
        town.release(id);
        town.wait_ms(100);
        assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
        town.go_on_from(3, as_held);
        town.wait_ms(1_000);
        assert_eq!(town.reserved(), TAKEN);
    }
    town.confirm(id);
    town.fulfill(id, &[]);
    town.wait_ms(100);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    assert_eq!(town.position(7).on_hand, 1);
}

#[test]
fn an_amendment_that_home_has_lost_is_taken_back_everywhere() {
    let mut town = Town::with_stock(5);
    let id = hold_basket(&mut town);
    let before = town.copy_of(3);
    held(&town.amend(id, &lines(&[(3, 1), (7, 1), (5, 3)])));
    town.wait_ms(100);
    assert_eq!(town.reserved(), [0, 0, 0, 1, 0, 3, 0, 1]);
    town.go_on_from(3, before);
    town.wait_ms(1_000);
    assert_eq!(town.reserved(), TAKEN);
    assert!(town.is_quiet());
}

#[test]
fn what_home_has_not_decided_in_what_is_left_of_it_comes_to_an_end() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    let prepared = |town: &mut Town| {
        let ended = town.coordinate(command.clone(), |_| Way::Arrives).unwrap();
        held(&ended.said.unwrap());
        ended.afterwards
    };
    let afterwards = prepared(&mut town);
    let undecided = town.copy_of(3);
    town.say(afterwards);
    town.wait_ms(100);
    assert!(town.is_quiet(), "everybody was told");
    town.go_on_from(3, undecided);
    // Home finds out after a second, and is asked again by its participants after five.
    town.wait_ms(7_000);
    assert!(town.is_quiet() && !town.is_reconciling(3));
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    let retry = town.coordinate(command, |_| Way::Arrives).unwrap();
    let said = retry.said.unwrap();
    assert_eq!(said, Outcome::Refused(Refusal::NotHeldInTime));
}

#[test]
fn groups_that_have_all_lost_something_wait_for_no_one_in_vain() {
    let mut town = Town::with_stock(5);
    let first = hold_basket(&mut town);
    let copies: Vec<_> = (0..8).map(|shard| town.copy_of(shard)).collect();
    held(&town.reserve(&lines(&[(0, 1), (3, 1), (7, 1)])));
    town.wait_ms(100);
    for (shard, copy) in (0..).zip(copies) {
        town.go_on_from(shard, copy);
    }
    town.away = vec![7];
    town.wait_ms(5_000);
    assert!(town.is_reconciling(0), "shard 7 may have something here");
    town.away.clear();
    town.wait_ms(10_000);
    assert!((0..8).all(|shard| !town.is_reconciling(shard)));
    assert_eq!(town.reserved(), TAKEN);
    town.release(first);
    town.wait_ms(100);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}

#[test]
fn a_part_that_came_too_late_by_a_clock_that_was_ahead_is_too_late_for_good() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&BASKET), true);
    // Its parts are on their way twice.
    town.coordinate(command, |tell| match holds_part(tell) {
        true => Way::Late,
        false => Way::Arrives,
    });
    let twice: Vec<_> = town.late.iter().cloned().collect();
    town.wall_ahead_ms = 70_000;
    let early = town.arrive_late();
    town.wall_ahead_ms = 0;
    town.late.extend(twice);
    assert_eq!(town.arrive_late(), early);
    assert_eq!(town.reserved(), [0, 0, 0, 1, 0, 0, 0, 0], "home's own");
    town.wait_ms(3_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}
