//! A basket whose edge died in the middle is in the way of others until it is found out: they wait
//! a little for that, if nothing else is short.

use std::collections::VecDeque;

use stock_core::RequestId;
use stock_node::basket::{Coordinator, Ended, Then};

use super::town::{ToShard, Town, Way, lines};
use super::{held, short};

/// The participant holds the last unit for it, and home has never heard of it.
fn leave_behind(town: &mut Town) {
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(2, 1), (4, 1)]), true);
    let to_home_is_lost = |tell: &ToShard| match tell.shard {
        2 => Way::Lost,
        _ => Way::AnswerLost,
    };
    assert_eq!(town.coordinate(command, to_home_is_lost), None);
    assert_eq!(town.reserved()[4], 1);
}

/// A basket of which nothing is lost on the way.
fn reserve(town: &mut Town, request: RequestId, units: &[(u32, i64)]) -> Ended {
    let command = town.reserve_command(request, &lines(units), false);
    town.coordinate(command, |_| Way::Arrives).unwrap()
}

#[test]
fn the_last_unit_is_waited_for_while_a_basket_that_was_left_behind_holds_it() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    // The participant asks home after two seconds, and is told that there is no such basket.
    town.wait_ms(1_400);
    let request = town.request();
    let ended = reserve(&mut town, request, &[(3, 1), (4, 1)]);
    held(&ended.said.unwrap());
}

#[test]
fn the_last_unit_at_home_is_waited_for_as_well() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    town.wait_ms(1_400);
    let request = town.request();
    let ended = reserve(&mut town, request, &[(4, 1), (3, 1)]);
    held(&ended.said.unwrap());
}

#[test]
fn a_retry_does_not_take_its_own_first_attempt_for_a_shortage() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    // At once, while home has no leader: it answers when it has one again.
    town.wait_ms(10);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(2, 1), (4, 1)]), false);
    let (mut edge, first) = Coordinator::new(command).unwrap();
    let mut tell: VecDeque<ToShard> = first.into_iter().collect();
    tell.rotate_left(1);
    town.away.push(2);
    let ended = loop {
        let next = tell.pop_front().unwrap();
        if next.shard == 2 && !town.away.is_empty() {
            town.wait_ms(1_500);
            town.away.clear();
        }
        let shard = next.shard;
        match edge.answered(shard, town.tell(next)) {
            Then::Wait => {}
            Then::Tell(more) => tell.extend(more),
            Then::TellLater(ms, more) => {
                town.wait_ms(ms);
                tell.extend(more);
            }
            Then::End(ended) => break ended,
        }
    };
    held(&ended.said.unwrap());
}

#[test]
fn of_young_ones_the_earlier_goes_first_and_nobody_waits_for_it() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    town.wait_ms(10);
    let request = town.request();
    let began = town.now;
    let ended = reserve(&mut town, request, &[(3, 1), (4, 1)]);
    assert_eq!(short(&ended.said.unwrap()), [4]);
    assert_eq!(town.now, began);
}

#[test]
fn nobody_waits_who_is_short_of_something_else() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    town.wait_ms(1_400);
    // It is told of every line, whether or not it is short of that for good.
    let baskets = [
        (vec![(3, 2), (4, 1)], vec![3, 4]),
        (vec![(4, 1), (3, 2)], vec![4, 3]),
        (vec![(5, 1), (4, 2)], vec![4]),
        (vec![(5, 1), (4, 1), (3, 2)], vec![4, 3]),
    ];
    for (basket, all_short) in baskets {
        let request = town.request();
        let began = town.now;
        let ended = reserve(&mut town, request, &basket);
        let shortage = ended.said.unwrap();
        assert_eq!(town.now, began, "{basket:?}");
        assert_eq!(short(&shortage), all_short, "{basket:?}");
        // Whoever repeats it is told the same.
        town.say(ended.afterwards);
        let again = reserve(&mut town, request, &basket);
        assert_eq!(short(&again.said.unwrap()), short(&shortage));
    }
}

#[test]
fn whoever_has_waited_long_enough_is_told_that_it_is_short() {
    let mut town = Town::with_stock(1);
    leave_behind(&mut town);
    // Nobody can say what has become of it.
    town.away.push(2);
    town.wait_ms(1_400);
    let request = town.request();
    let began = town.now;
    let ended = reserve(&mut town, request, &[(3, 1), (4, 1)]);
    assert_eq!(short(&ended.said.unwrap()), [4]);
    assert!(
        town.now < began.plus_ms(1_000),
        "before it is found out itself"
    );
}
