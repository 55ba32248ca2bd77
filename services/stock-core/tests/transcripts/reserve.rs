//! All of a basket is held, or nothing.

use crate::interpreter::check;

#[test]
fn a_hold_sets_units_aside_until_it_expires() {
    check(
        "receive MUG@A=10                        -> recorded
         reserve r1 MUG@A=4                      -> r1 held 15m: MUG@A 4 open
         ledger                                  -> Reserved MUG@A reserved +4 of r1 by web
         show MUG@A                              -> on_hand 10 reserved 4 available 6
         reserve r2 MUG@A=7                      -> short MUG@A requested 7 available 6 reservable 6
         ledger                                  -> nothing
         +15m
         ledger                                  -> Expired MUG@A reserved -4 of r1 by web
         show MUG@A                              -> on_hand 10 reserved 0 available 10
         get r1                                  -> r1 expired: MUG@A 4 expired",
    );
}

#[test]
fn the_last_unit_is_held_once() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1                      -> r1 held 15m: MUG@A 1 open
         & reserve r2 MUG@A=1 by app             -> short MUG@A requested 1 available 0 reservable 0
         release r1                              -> r1 released: MUG@A 1 released
         & reserve r2 MUG@A=1 by app             -> r2 held 15m by app: MUG@A 1 open
         ledger                                  -> Reserved MUG@A reserved +1 of r2 by app",
    );
}

#[test]
fn one_short_line_holds_nothing_and_every_short_line_is_named() {
    check(
        "receive MUG@A=5 PEN@A=1 PEN@B=3
         reserve r1 MUG@A=5 PEN@A=2 PEN@B=4      -> short PEN@A requested 2 available 1 \
         reservable 1, PEN@B requested 4 available 3 reservable 3
         get r1                                  -> nothing
         show MUG@A                              -> on_hand 5 reserved 0 available 5
         reserve r2 MUG@A=5 PEN@A=1 PEN@B=3      -> r2 held 15m: MUG@A 5 open, PEN@A 1 open, \
         PEN@B 3 open
         ledger                                  -> Reserved MUG@A reserved +5 of r2 by web; \
         Reserved PEN@A reserved +1 of r2 by web; Reserved PEN@B reserved +3 of r2 by web
         counts                                  -> skus 2 positions 3 open 1 ended 0 requests 2",
    );
}

#[test]
fn two_lines_of_one_sku_are_summed_before_the_check() {
    check(
        "receive MUG@A=10 PEN@A=1
         reserve r1 MUG@A=6 PEN@A=1 MUG@A=6      -> short MUG@A requested 12 available 10 \
         reservable 10
         reserve r2 MUG@A=4 PEN@A=1 MUG@A=6      -> r2 held 15m: MUG@A 10 open, PEN@A 1 open
         ledger                                  -> Reserved MUG@A reserved +10 of r2 by web; \
         Reserved PEN@A reserved +1 of r2 by web
         show MUG@A                              -> on_hand 10 reserved 10 available 0",
    );
}

#[test]
fn an_unknown_sku_is_no_shortage() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 MUGG@A=1             -> refused: line 1 unknown sku
         reserve r1 MUG@A=2 MUGG@A=1             -> refused: line 1 unknown sku
         reserve r1 MUG@B=1                      -> short MUG@B requested 1 available 0 reservable 0
         show MUG@B                              -> nothing
         show MUG@A                              -> on_hand 1 reserved 0 available 1",
    );
}

#[test]
fn safety_stock_is_sold_by_nobody() {
    check(
        "receive MUG@A=5
         policy MUG@A safety 2                   -> safety 2 backorder 0 available 3
         reserve r1 MUG@A=4                      -> short MUG@A requested 4 available 3 reservable 3
         reserve r2 MUG@A=3                      -> r2 held 15m: MUG@A 3 open
         show MUG@A                              -> on_hand 5 reserved 3 available 0",
    );
}

#[test]
fn a_backorder_limit_is_how_far_available_may_go_below_zero() {
    check(
        "receive MUG@A=2
         policy MUG@A backorder 3                -> safety 0 backorder 3 available 2
         reserve r1 MUG@A=6                      -> short MUG@A requested 6 available 2 reservable 5
         reserve r2 MUG@A=4                      -> r2 held 15m: MUG@A 4 open
         show MUG@A                              -> on_hand 2 reserved 4 available -2
         reserve r3 MUG@A=2                      -> short MUG@A requested 2 available -2 \
         reservable 1
         reserve r4 MUG@A=1                      -> r4 held 15m: MUG@A 1 open",
    );
}

#[test]
fn nothing_can_be_reserved_where_more_is_promised_than_is_there() {
    check(
        "receive MUG@A=2
         reserve r1 MUG@A=2
         sale MUG@A=2                            -> recorded, MUG@A available -2 short by 2 \
         endangers r1
         reserve r2 MUG@A=1                      -> short MUG@A requested 1 available -2 \
         reservable 0",
    );
}

#[test]
fn the_longest_hold_lasts_seven_days() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 7d               -> r1 held 7d: MUG@A 1 open
         due                                     -> in 7d",
    );
}

#[test]
fn an_id_that_is_taken_is_refused_even_after_its_reservation_ended() {
    check(
        "receive MUG@A=2
         reserve r1 MUG@A=1
         reserve r2 MUG@A=1 id r1                -> refused: reservation id taken
         release r1
         reserve r2 MUG@A=1 id r1                -> refused: reservation id taken
         show MUG@A                              -> on_hand 2 reserved 0 available 2",
    );
}

#[test]
fn a_reserve_whose_id_was_taken_goes_through_under_another() {
    check(
        "receive MUG@A=2
         reserve r1 MUG@A=1
         reserve r2 MUG@A=1 id r1 #q             -> refused: reservation id taken
         reserve r2 MUG@A=1 #q                   -> r2 held 15m: MUG@A 1 open
         reserve r2 MUG@A=1 #q                   -> r2 held 15m: MUG@A 1 open
         show MUG@A                              -> on_hand 2 reserved 2 available 0",
    );
}
