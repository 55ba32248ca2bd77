//! Release and fulfil, whole and in part.

use crate::interpreter::check;

#[test]
fn a_release_gives_units_back_and_a_fulfilment_takes_them_out() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=2
         release r1                              -> r1 released: MUG@A 2 released
         ledger                                  -> Released MUG@A reserved -2 of r1 by web
         show MUG@A                              -> on_hand 5 reserved 0 available 5
         reserve r2 MUG@A=2
         confirm r2
         fulfill r2 by till                      -> r2 fulfilled: MUG@A 2 fulfilled
         ledger                                  -> Fulfilled MUG@A on_hand -2 reserved -2 of r2 \
         by till
         show MUG@A                              -> on_hand 3 reserved 0 available 3",
    );
}

#[test]
fn the_rest_of_a_partial_release_stays_held() {
    check(
        "receive MUG@A=9 PEN@A=9
         reserve r1 MUG@A=3 PEN@A=2
         release r1 MUG=1                        -> r1 held 15m: MUG@A 2 open 1 released, PEN@A 2 \
         open
         release r1 MUG=2                        -> r1 held 15m: MUG@A 3 released, PEN@A 2 open
         show MUG@A                              -> on_hand 9 reserved 0 available 9
         release r1                              -> r1 released: MUG@A 3 released, PEN@A 2 released
         ledger                                  -> Released PEN@A reserved -2 of r1 by web",
    );
}

#[test]
fn the_last_unit_decides_how_a_reservation_ends() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=2
         confirm r1
         fulfill r1 MUG=1
         release r1                              -> r1 released: MUG@A 1 fulfilled 1 released
         reserve r2 MUG@A=2
         confirm r2
         release r2 MUG=1
         fulfill r2                              -> r2 fulfilled: MUG@A 1 fulfilled 1 released
         show MUG@A                              -> on_hand 7 reserved 0 available 7",
    );
}

#[test]
fn more_than_is_open_is_refused_whole() {
    check(
        "receive MUG@A=9 PEN@A=9
         reserve r1 MUG@A=3 PEN@A=2
         release r1 PEN=1 MUG=4                  -> refused: line 1 exceeds 3 open
         release r1 MUG=2 MUG=2                  -> refused: line 1 exceeds 3 open
         get r1                                  -> r1 held 15m: MUG@A 3 open, PEN@A 2 open
         release r1 MUG=1 MUG=2                  -> r1 held 15m: MUG@A 3 released, PEN@A 2 open
         release r1 MUG=1                        -> refused: line 0 exceeds 0 open
         confirm r1
         fulfill r1 PEN=3                        -> refused: line 0 exceeds 2 open
         show PEN@A                              -> on_hand 9 reserved 2 available 7",
    );
}

#[test]
fn a_line_that_is_not_in_the_reservation_is_refused() {
    check(
        "receive MUG@A=9 MUG@B=9 PEN@A=9
         reserve r1 MUG@A=3
         release r1 MUG@A=1 PEN=1                -> refused: line 1 not in reservation
         release r1 MUG@B=1                      -> refused: line 0 not in reservation
         get r1                                  -> r1 held 15m: MUG@A 3 open",
    );
}

#[test]
fn a_line_without_a_location_must_mean_one_place() {
    check(
        "receive MUG@A=9 MUG@B=9 PEN@A=9
         reserve r1 MUG@A=3 MUG@B=2 PEN@A=1
         release r1 PEN=1 MUG=1                  -> refused: line 1 ambiguous
         release r1 PEN=1 MUG@B=1                -> r1 held 15m: MUG@A 3 open, MUG@B 1 open 1 \
         released, PEN@A 1 released
         release r1 MUG@B=1                      -> r1 held 15m: MUG@A 3 open, MUG@B 2 released, \
         PEN@A 1 released
         // The place that has nothing open any more still counts: what a line means does not
         // change.
         release r1 MUG=1                        -> refused: line 0 ambiguous",
    );
}

#[test]
fn a_fulfilment_may_take_on_hand_below_zero() {
    check(
        "policy MUG@A backorder 2                -> safety 0 backorder 2 available 0
         reserve r1 MUG@A=2
         confirm r1
         fulfill r1                              -> r1 fulfilled: MUG@A 2 fulfilled
         show MUG@A                              -> on_hand -2 reserved 0 available -2",
    );
}

#[test]
fn a_fulfilment_does_not_take_on_hand_out_of_its_range() {
    check(
        "receive MUG@A=1 PEN@A=1
         reserve r1 PEN@A=1 MUG@A=1
         confirm r1
         adjust MUG@A=-1000000000000001          -> recorded, MUG@A available -1000000000000001 \
         short by 1000000000000001 endangers r1
         fulfill r1                              -> refused: line 1 counter out of range
         get r1                                  -> r1 confirmed: PEN@A 1 open, MUG@A 1 open
         show PEN@A                              -> on_hand 1 reserved 1 available 0
         fulfill r1 PEN=1                        -> r1 confirmed: PEN@A 1 fulfilled, MUG@A 1 open",
    );
}
