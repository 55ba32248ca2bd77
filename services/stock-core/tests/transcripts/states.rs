//! Which command is allowed in which state.

use crate::interpreter::check;

#[test]
fn a_held_reservation_can_be_all_but_fulfilled() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1
         fulfill r1                              -> refused: it is held
         extend r1 ttl 20m                       -> r1 held 20m: MUG@A 1 open
         amend r1 MUG@A=2                        -> r1 held 20m: MUG@A 2 open
         release r1 MUG@A=1                      -> r1 held 20m: MUG@A 1 open 1 released
         confirm r1                              -> r1 confirmed: MUG@A 1 open 1 released",
    );
}

#[test]
fn a_confirmed_reservation_can_only_be_settled() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=3
         confirm r1                              -> r1 confirmed: MUG@A 3 open
         confirm r1                              -> refused: it is confirmed
         amend r1 MUG@A=1                        -> refused: it is confirmed
         extend r1 ttl 1h                        -> refused: nothing to extend
         fulfill r1 MUG@A=1                      -> r1 confirmed: MUG@A 2 open 1 fulfilled
         release r1 MUG@A=1                      -> r1 confirmed: MUG@A 1 open 1 fulfilled 1 \
         released
         fulfill r1                              -> r1 fulfilled: MUG@A 2 fulfilled 1 released",
    );
}

#[test]
fn nothing_happens_to_a_fulfilled_reservation() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1
         confirm r1
         fulfill r1                              -> r1 fulfilled: MUG@A 1 fulfilled
         confirm r1                              -> refused: it is fulfilled
         release r1                              -> refused: it is fulfilled
         fulfill r1                              -> refused: it is fulfilled
         extend r1 ttl 1m                        -> refused: it is fulfilled
         amend r1 MUG@A=1                        -> refused: it is fulfilled
         +7d
         show MUG@A                              -> on_hand 8 reserved 0 available 8",
    );
}

#[test]
fn nothing_happens_to_a_released_reservation() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1
         release r1                              -> r1 released: MUG@A 1 released
         confirm r1                              -> refused: it is released
         release r1                              -> refused: it is released
         fulfill r1                              -> refused: it is released
         extend r1 ttl 1m                        -> refused: it is released
         amend r1 MUG@A=1                        -> refused: it is released
         +15m
         get r1                                  -> r1 released: MUG@A 1 released",
    );
}

#[test]
fn nothing_happens_to_an_expired_reservation() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1
         +15m
         confirm r1                              -> refused: it is expired
         release r1                              -> refused: it is expired
         fulfill r1                              -> refused: it is expired
         extend r1 ttl 1m                        -> refused: it is expired
         amend r1 MUG@A=1                        -> refused: it is expired
         show MUG@A                              -> on_hand 9 reserved 0 available 9",
    );
}

#[test]
fn nothing_happens_to_a_reservation_that_never_was() {
    check(
        "receive MUG@A=9
         confirm r1                              -> refused: unknown reservation
         release r1                              -> refused: unknown reservation
         fulfill r1                              -> refused: unknown reservation
         extend r1 ttl 1m                        -> refused: unknown reservation
         amend r1 MUG@A=1                        -> refused: unknown reservation
         show MUG@A                              -> on_hand 9 reserved 0 available 9",
    );
}

#[test]
fn an_ended_reservation_is_remembered_for_a_day() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1
         release r1
         +24h
         confirm r1                              -> refused: it is released
         counts                                  -> skus 1 positions 1 open 0 ended 1 requests 1
         +1ms
         get r1                                  -> nothing
         confirm r1                              -> refused: unknown reservation
         counts                                  -> skus 1 positions 1 open 0 ended 0 requests 2",
    );
}
