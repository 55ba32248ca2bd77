//! Baskets over several shards, as a shop and its customers see them: whatever is lost, late or
//! said twice, a basket is held whole or not at all, and every retry is told the same.

mod crowded;
mod left_behind;
mod losses;
mod told;
mod town;

use stock_core::{
    Action, BasketOutcome, Operation, Outcome, Refusal, Reservation, ReservationId, State,
};
use stock_node::answer::Failure;
use stock_node::basket::{Coordinator, Then};
use town::{SHARDS, ToShard, Town, Way, holds_part, line, lines};

fn held(outcome: &Outcome) -> &Reservation {
    match outcome {
        Outcome::Reservation(reservation) => reservation,
        other => panic!("not held: {other:?}"),
    }
}

/// The shards whose first SKU is short.
fn short(outcome: &Outcome) -> Vec<u32> {
    match outcome {
        Outcome::Shortage(shortage) => {
            let lines = shortage.lines.iter();
            lines.map(|line| line.sku.shard(SHARDS)).collect()
        }
        other => panic!("not short: {other:?}"),
    }
}

const FREE: [i64; 8] = [0; 8];

#[test]
fn a_basket_over_five_shards_is_held_in_one_round_and_everybody_is_told() {
    let mut town = Town::with_stock(5);
    let basket = lines(&[(3, 1), (0, 2), (7, 1), (5, 1), (1, 3)]);
    let outcome = town.reserve(&basket);
    let reservation = held(&outcome);
    assert_eq!(reservation.id.shard(), 3);
    let order = reservation.lines.iter().map(|line| &line.sku);
    assert!(
        order.eq(basket.iter().map(|line| &line.sku)),
        "as its caller wrote it"
    );
    assert_eq!(town.reserved(), [2, 3, 0, 1, 0, 1, 0, 1]);
    town.wait_ms(100);
    assert!(town.is_quiet());
    assert_eq!(town.parts(), 4);
}

#[test]
fn a_shortage_anywhere_holds_nothing_and_names_every_line_that_is_short() {
    let mut town = Town::with_stock(5);
    let outcome = town.reserve(&lines(&[(2, 1), (4, 9), (6, 1), (0, 8)]));
    assert_eq!(short(&outcome), [4, 0]);
    assert_eq!(town.reserved(), FREE);
    assert!(town.is_quiet());
    let outcome = town.reserve(&lines(&[(2, 9), (4, 9), (6, 1)]));
    assert_eq!(short(&outcome), [2, 4], "at home as well");
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}

#[test]
fn of_a_bundle_with_parts_in_three_shards_the_scarcest_decides_for_ten_buyers() {
    let mut town = Town::with_stock(10);
    // The frame of the bed, its mattress and its lamp: two lamps are left.
    let taken = town.reserve(&[line(6, 8)]);
    assert!(matches!(
        taken,
        Outcome::Prepared(_) | Outcome::Reservation(_)
    ));
    let bundle = lines(&[(1, 1), (4, 1), (6, 1)]);
    let outcomes: Vec<Outcome> = (0..10).map(|_| town.reserve(&bundle)).collect();
    let is_held = |outcome: &&Outcome| matches!(outcome, Outcome::Reservation(_));
    assert_eq!(outcomes.iter().filter(is_held).count(), 2);
    let others = outcomes.iter().filter(|outcome| !is_held(outcome));
    let named: Vec<Vec<u32>> = others.map(short).collect();
    assert_eq!(named, vec![vec![6]; 8]);
    assert_eq!(town.reserved(), [0, 2, 0, 0, 2, 0, 10, 0]);
}

#[test]
fn one_sku_on_two_lines_needs_the_sum_of_both_wherever_it_lives() {
    let mut town = Town::with_stock(5);
    let twice = [line(1, 1), line(4, 3), line(4, 3)];
    let outcome = town.reserve(&twice);
    let Outcome::Shortage(shortage) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(shortage.lines.len(), 1);
    assert_eq!(
        (shortage.lines[0].requested, shortage.lines[0].reservable),
        (6, 5)
    );
    let outcome = town.reserve(&[line(1, 1), line(4, 3), line(4, 2)]);
    assert_eq!(held(&outcome).lines[1].open, 5);
    assert_eq!(town.reserved(), [0, 1, 0, 0, 5, 0, 0, 0]);
}

#[test]
fn what_an_edge_left_behind_is_found_out_by_homes_leader() {
    // Whichever of the four commands an edge gets out before it dies.
    let basket = lines(&[(2, 1), (3, 1), (4, 1), (5, 1)]);
    for arrived in 0..16_u32 {
        let mut town = Town::with_stock(5);
        let request = town.request();
        let command = town.reserve_command(request, &basket, true);
        let way = |tell: &town::ToShard| match arrived >> (tell.shard - 2) & 1 {
            1 => Way::AnswerLost,
            _ => Way::Lost,
        };
        assert_eq!(town.coordinate(command, way), None);
        town.wait_ms(4_000);
        assert!(town.is_quiet(), "{arrived:04b}");
        let all = [0, 0, 1, 1, 1, 1, 0, 0];
        let expected = if arrived == 15 { all } else { FREE };
        assert_eq!(town.reserved(), expected, "{arrived:04b}");
        // Whoever repeats it is told so; if home never heard of it, it is held now.
        let again = town.reserve_command(request, &basket, true);
        let ended = town.coordinate(again, |_| Way::Arrives).unwrap();
        town.say(ended.afterwards);
        let said = ended.said.unwrap();
        town.wait_ms(4_000);
        match arrived == 15 || arrived & 1 == 0 {
            true => {
                held(&said);
                assert_eq!(town.reserved(), all, "{arrived:04b}");
            }
            false => {
                assert_eq!(said, Outcome::Refused(Refusal::NotHeldInTime));
                assert_eq!(town.reserved(), FREE, "{arrived:04b}");
            }
        }
    }
}

#[test]
fn a_part_that_comes_after_it_was_asked_for_is_never_held() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let basket = lines(&[(2, 1), (3, 1)]);
    let command = town.reserve_command(request, &basket, true);
    let way = |tell: &town::ToShard| match holds_part(tell) {
        true => Way::Late,
        false => Way::AnswerLost,
    };
    town.coordinate(command, way);
    town.wait_ms(2_000);
    assert_eq!((town.reserved(), town.tombstones()), (FREE.into(), 1));
    town.arrive_late();
    assert_eq!(town.reserved(), FREE);
    // And when the tombstone is forgotten it is too late anyway.
    town.wait_ms(70_000);
    assert_eq!(town.tombstones(), 0);
    let request = town.request();
    let command = town.reserve_command(request, &basket, true);
    town.coordinate(command, |tell| match holds_part(tell) {
        true => Way::Late,
        false => Way::Lost,
    });
    town.wait_ms(61_000);
    town.arrive_late();
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}

#[test]
fn a_retry_at_another_node_finishes_what_the_first_began() {
    let mut town = Town::with_stock(1);
    let request = town.request();
    let basket = lines(&[(2, 1), (3, 1), (4, 1)]);
    let command = town.reserve_command(request, &basket, true);
    let id = ReservationId::clone(reserved_as(&command));
    // Home and one part are held, the other never heard of it.
    let way = |tell: &town::ToShard| match tell.shard {
        4 => Way::Lost,
        _ => Way::AnswerLost,
    };
    assert_eq!(town.coordinate(command, way), None);
    let again = town.reserve_command(request, &basket, true);
    let ended = town.coordinate(again, |_| Way::Arrives).unwrap();
    assert_eq!(held(&ended.said.unwrap()).id, id);
    town.say(ended.afterwards);
    town.wait_ms(100);
    assert_eq!(
        (town.reserved(), town.parts()),
        (vec![0, 0, 1, 1, 1, 0, 0, 0], 2)
    );
}

fn reserved_as(command: &stock_core::Command) -> &ReservationId {
    match &command.action {
        stock_core::Action::Request(_, stock_core::Operation::Reserve(reserve)) => &reserve.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_baskets_that_take_each_other_the_last_unit_the_first_waits_for_the_other() {
    let mut town = Town::with_stock(1);
    let (one, other) = (lines(&[(2, 1), (5, 1)]), lines(&[(5, 1), (2, 1)]));
    let requests = [town.request(), town.request()];
    let first = [
        town.reserve_command(requests[0], &one, false),
        town.reserve_command(requests[1], &other, false),
    ];
    // Each gets its home before the other gets there.
    let [mut a, mut b] = first.map(|command| Coordinator::new(command).unwrap());
    let said = [town.tell(a.1.remove(0)), town.tell(b.1.remove(0))];
    a.0.answered(2, said[0].clone());
    b.0.answered(5, said[1].clone());
    let said = [town.tell(a.1.remove(0)), town.tell(b.1.remove(0))];
    let Then::TellLater(_, mut again) = a.0.answered(5, said[0].clone()) else {
        panic!("it is first, and waits");
    };
    // It came later: it asks at once whether the first is still in its way, and then for good.
    let mut then = b.0.answered(2, said[1].clone());
    for _ in 0..2 {
        let Then::TellLater(0, mut at_once) = then else {
            panic!("it waits for nobody");
        };
        then = b.0.answered(2, town.tell(at_once.remove(0)));
    }
    let Then::End(ended) = then else {
        panic!("all have answered");
    };
    assert_eq!(short(&ended.said.unwrap()), [2]);
    town.say(ended.afterwards);
    let said = town.tell(again.remove(0));
    let Then::End(ended) = a.0.answered(5, said) else {
        panic!("all have answered");
    };
    held(&ended.said.unwrap());
    town.say(ended.afterwards);
    assert_eq!(town.reserved(), [0, 0, 1, 0, 0, 1, 0, 0]);
    // Whoever repeats his request is told what he was told.
    let again = town.reserve_command(requests[1], &other, false);
    let ended = town.coordinate(again, |_| Way::Arrives).unwrap();
    assert_eq!(short(&ended.said.unwrap()), [2]);
}

#[test]
fn a_shard_that_is_away_leaves_a_basket_undecided_and_the_retry_decides() {
    let mut town = Town::with_stock(5);
    town.away.push(4);
    let request = town.request();
    let basket = lines(&[(2, 1), (4, 1), (6, 1)]);
    let command = town.reserve_command(request, &basket, true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    assert!(ended.said.is_err() && ended.afterwards.is_empty());
    town.wait_ms(10_000);
    assert_eq!(town.reserved(), [0, 0, 1, 0, 0, 0, 1, 0]);
    town.away.clear();
    let again = town.reserve_command(request, &basket, true);
    let ended = town.coordinate(again, |_| Way::Arrives).unwrap();
    held(&ended.said.unwrap());
    town.wait_ms(3_000);
    assert_eq!(town.reserved(), [0, 0, 1, 0, 1, 0, 1, 0]);
    assert!(town.is_quiet());
}

#[test]
fn nobody_asks_again_and_everything_goes_back_when_the_shard_returns() {
    let mut town = Town::with_stock(5);
    town.away.push(4);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(2, 1), (4, 1), (6, 1)]), true);
    town.coordinate(command, |_| Way::Arrives).unwrap();
    town.wait_ms(20_000);
    town.away.clear();
    town.wait_ms(10_000);
    assert_eq!(town.reserved(), FREE);
    assert!(town.is_quiet());
}

#[test]
fn where_somebody_is_silent_home_says_what_was_short() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let basket = lines(&[(2, 1), (4, 9), (6, 1)]);
    let command = town.reserve_command(request, &basket, true);
    let (mut edge, first) = Coordinator::new(command.clone()).unwrap();
    for tell in first.into_iter().filter(|tell| tell.shard != 6) {
        let shard = tell.shard;
        assert_eq!(edge.answered(shard, town.tell(tell)), Then::Wait);
    }
    // Cluster time leaps ahead: by now the short shard has forgotten that it was.
    town.now = town.now.plus_ms(120_000);
    town.wait_ms(10_000);
    let not_in_time = Outcome::Refused(Refusal::NotHeldInTime);
    assert_eq!(town.apply(2, command), not_in_time);
    let mut next = edge.answered(6, Err(Failure::OutcomeUnknown));
    let said = loop {
        match next {
            Then::Tell(mut tell) => {
                let tell = tell.pop().unwrap();
                let shard = tell.shard;
                next = edge.answered(shard, town.tell(tell));
            }
            Then::End(ended) => break ended.said,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said, Ok(not_in_time));
}

#[test]
fn what_was_short_stays_known_though_the_basket_ends_before_all_have_answered() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(2, 1), (4, 9), (6, 1)]), true);
    let to_6_alone_is_lost = |tell: &ToShard| match tell.shard {
        6 => Way::Lost,
        _ => Way::Arrives,
    };
    town.away.push(6);
    assert_eq!(town.coordinate(command.clone(), to_6_alone_is_lost), None);
    // Longer than participants remember what they refused.
    town.wait_ms(100_000);
    let Action::Request(_, Operation::Reserve(reserve)) = &command.action else {
        panic!("a reserve");
    };
    town.release(reserve.id);
    town.wait_ms(10_000);
    town.away.clear();
    town.wait_ms(10_000);
    assert!(town.is_quiet());
    assert_eq!(short(&town.apply(2, command)), [4]);
}

#[test]
fn what_ends_undecided_is_free_wherever_a_shard_answers() {
    let mut town = Town::with_stock(5);
    town.away.push(4);
    let request = town.request();
    let basket = lines(&[(2, 1), (4, 1), (6, 1)]);
    let command = town.reserve_command(request, &basket, true);
    town.coordinate(command, |_| Way::Arrives).unwrap();
    town.wait_ms(10_000);
    assert_eq!(town.reserved(), [0, 0, 1, 0, 0, 0, 1, 0]);
    town.wait_ms(1_000_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 1));
    assert!(!town.is_quiet(), "home still has to find out");
    town.away.clear();
    town.wait_ms(10_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    assert!(town.is_quiet());
}

#[test]
fn what_ended_undecided_was_held_if_every_part_was() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let basket = lines(&[(2, 1), (4, 1), (6, 1)]);
    let command = town.reserve_command(request, &basket, true);
    let told = town.coordinate(command, |_| Way::Arrives).unwrap();
    let told = held(&told.said.unwrap()).id;
    // Its edge dies before it says so to home, and then a participant is away.
    town.away.push(4);
    town.wait_ms(1_000_000);
    town.change_leaders();
    town.wait_ms(10_000);
    assert_eq!(town.reserved(), [0, 0, 0, 0, 1, 0, 0, 0]);
    town.away.clear();
    town.wait_ms(10_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    assert!(town.is_quiet());
    assert_eq!(town.reservation(told).unwrap().state, State::Expired);
}

#[test]
fn its_whole_life_reaches_every_part_though_leaders_change_in_the_middle() {
    let mut town = Town::with_stock(5);
    let outcome = town.reserve(&lines(&[(1, 2), (3, 2), (5, 2)]));
    let id = held(&outcome).id;
    town.change_leaders();
    assert_eq!(held(&town.confirm(id)).state, State::Confirmed);
    let fulfill = stock_core::Operation::Fulfill(stock_core::Fulfill {
        id,
        lines: vec![stock_core::PartialLine {
            sku: town::sku(3, 0),
            location: None,
            quantity: stock_core::Quantity::new(1).unwrap(),
        }],
    });
    town.away.push(3);
    held(&town.change(id, fulfill));
    town.wait_ms(1_000);
    // Understated, never overstated: the unit has gone, and its shard does not know it yet.
    assert_eq!(
        (town.position(3).on_hand, town.position(3).reserved),
        (5, 2)
    );
    town.away.clear();
    town.change_leaders();
    town.wait_ms(6_000);
    assert_eq!(
        (town.position(3).on_hand, town.position(3).reserved),
        (4, 1)
    );
    assert_eq!(held(&town.release(id)).state, State::Released);
    town.wait_ms(100);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
    assert!(town.is_quiet());
    assert_eq!(town.reservation(id).unwrap().lines[1].fulfilled, 1);
}

#[test]
fn a_hold_over_shards_expires_by_homes_clock_alone() {
    let mut town = Town::with_stock(5);
    let outcome = town.reserve(&lines(&[(1, 2), (3, 2)]));
    let id = held(&outcome).id;
    town.wait_ms(100);
    town.away.push(1);
    town.wait_ms(1_000_000);
    // Nobody but home knows whether it was extended.
    assert_eq!(town.reserved(), [0, 2, 0, 2, 0, 0, 0, 0]);
    town.away.clear();
    town.wait_ms(6_000);
    assert_eq!(town.reserved(), FREE);
    assert_eq!(town.reservation(id).unwrap().state, State::Expired);
}

#[test]
fn an_amendment_moves_lines_to_other_shards_and_frees_nothing_before_it_holds() {
    let mut town = Town::with_stock(5);
    let outcome = town.reserve(&lines(&[(1, 2), (3, 5)]));
    let id = held(&outcome).id;
    // The shop's other goods: more at home, less there, and a shard that had nothing.
    let outcome = town.amend(id, &lines(&[(1, 4), (3, 1), (6, 2)]));
    assert_eq!(held(&outcome).lines.len(), 3);
    town.wait_ms(200);
    assert_eq!(town.reserved(), [0, 4, 0, 1, 0, 0, 2, 0]);
    // Refused, it leaves all as it was.
    let outcome = town.amend(id, &lines(&[(1, 1), (3, 1), (6, 9)]));
    assert_eq!(short(&outcome), [6]);
    town.wait_ms(200);
    assert_eq!(town.reserved(), [0, 4, 0, 1, 0, 0, 2, 0]);
    // Everybody but a newcomer leaves.
    let outcome = town.amend(id, &lines(&[(7, 3)]));
    held(&outcome);
    town.wait_ms(200);
    assert_eq!(town.reserved(), [0, 0, 0, 0, 0, 0, 0, 3]);
    assert!(town.is_quiet());
    town.release(id);
    town.wait_ms(200);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}

#[test]
fn a_hold_that_expires_while_it_is_amended_stays_over_and_frees_everything() {
    let mut town = Town::with_stock(5);
    let outcome = town.reserve(&lines(&[(1, 2), (3, 2)]));
    let id = held(&outcome).id;
    town.wait_ms(899_000);
    let request = town.request();
    let amend = stock_core::Operation::Amend(stock_core::Amend {
        id,
        lines: lines(&[(1, 4), (3, 3), (6, 1)]),
        ttl_ms: Some(900_000),
        over: Some(Box::new(stock_core::Over {
            shards: SHARDS,
            asked_at: town.now,
            is_last_try: true,
        })),
    });
    let asked = stock_core::Request::of(request, &amend);
    let command = town::command(stock_core::Action::Request(asked, amend));
    // It is prepared at home and held by one of two participants when its edge dies.
    let way = |tell: &town::ToShard| match tell.shard {
        6 => Way::Lost,
        _ => Way::AnswerLost,
    };
    town.coordinate(command, |tell| match tell.shard {
        1 => Way::Arrives,
        _ => way(tell),
    });
    town.wait_ms(5_000);
    assert_eq!(town.reservation(id).unwrap().state, State::Expired);
    assert_eq!(town.reserved(), FREE);
    assert!(town.is_quiet());
}

#[test]
fn a_line_of_an_unknown_sku_in_another_shard_is_named_by_its_number() {
    let mut town = Town::with_stock(5);
    let mut basket = lines(&[(1, 1), (3, 1), (3, 1), (5, 1)]);
    basket[2].sku = town::sku(3, 1);
    let outcome = town.reserve(&basket);
    assert_eq!(outcome, Outcome::Refused(Refusal::UnknownSku { line: 2 }));
    town.wait_ms(3_000);
    assert_eq!((town.reserved(), town.parts()), (FREE.into(), 0));
}

#[test]
fn the_ledgers_of_all_shards_add_up_to_what_their_counters_say() {
    let mut town = Town::with_stock(50);
    for n in 0..40_u32 {
        let basket = lines(&[(n % 8, 1), ((n * 3 + 1) % 8, 2), ((n * 5 + 2) % 8, 1)]);
        if let Outcome::Reservation(reservation) = town.reserve(&basket)
            && n % 3 == 0
        {
            town.release(reservation.id);
        }
    }
    town.wait_ms(1_000);
    for shard in 0..SHARDS {
        let entries = town.ledger.iter().filter(|(of, _)| *of == shard);
        let (mut on_hand, mut reserved) = (0, 0);
        for (_, entry) in entries {
            on_hand += entry.on_hand_delta;
            reserved += entry.reserved_delta;
        }
        let position = town.position(shard);
        assert_eq!((position.on_hand, position.reserved), (on_hand, reserved));
    }
}

#[test]
fn an_errand_that_nobody_answers_is_given_up_and_run_again() {
    let mut town = Town::with_stock(10);
    town.deaf = vec![0];
    let id = held(&town.reserve(&lines(&[(0, 2), (5, 2)]))).id;
    town.release(id);
    town.wait_ms(1_000);
    assert!(!town.is_quiet(), "home's errand was lost");
    town.deaf.clear();
    town.wait_ms(15_000);
    assert!(town.is_quiet());
    assert_eq!(town.reserved(), FREE);
}

#[test]
fn what_was_said_of_an_earlier_version_decides_nothing_of_a_later_one() {
    let mut town = Town::with_stock(5);
    let request = town.request();
    let command = town.reserve_command(request, &lines(&[(3, 1), (0, 1)]), true);
    let ended = town.coordinate(command, |_| Way::Arrives).unwrap();
    let id = held(&ended.said.unwrap()).id;
    // Home's leader asks whether the part is held, and hears late that it is.
    town.now = town.now.plus_ms(1_100);
    let probe = town.errands_of(3).remove(0);
    let errand = (probe.to, probe.sent_ms);
    let said = town.carry_out(probe);
    assert_eq!(said, [Outcome::Basket(BasketOutcome::Held)]);
    town.say(ended.afterwards);
    // Meanwhile more is asked for, and the participant does not hear of it.
    let amend = town.amend_command(id, &lines(&[(3, 1), (0, 4)]));
    town.coordinate(amend, |tell| match holds_part(tell) {
        true => Way::Lost,
        false => Way::Arrives,
    });
    town.now = town.now.plus_ms(1_100);
    town.errands_of(3);
    town.errand_answered(3, errand, Ok(said));
    assert_eq!(town.reservation(id).unwrap().lines[1].open, 1);
    town.wait_ms(3_000);
    assert_eq!(town.reservation(id).unwrap().lines[1].open, 1);
    assert_eq!(town.reserved(), [1, 0, 0, 1, 0, 0, 0, 0]);
    assert!(town.is_quiet());
}
