//! A request has its effect once, however often it is sent.

use crate::interpreter::check;

#[test]
fn a_reserve_sent_again_is_answered_again() {
    check(
        "receive MUG@A=10 PEN@A=3
         reserve r1 MUG@A=2 PEN@A=1 MUG@A=1 #q   -> r1 held 15m: MUG@A 3 open, PEN@A 1 open
         & reserve r1 MUG@A=2 PEN@A=1 MUG@A=1 #q -> r1 held 15m: MUG@A 3 open, PEN@A 1 open
         ledger                                  -> nothing
         +1m
         reserve r1 MUG@A=2 PEN@A=1 MUG@A=1 #q   -> r1 held 14m: MUG@A 3 open, PEN@A 1 open
         show MUG@A                              -> on_hand 10 reserved 3 available 7
         counts                                  -> skus 2 positions 2 open 1 ended 0 requests 1",
    );
}

#[test]
fn the_stored_answer_stays_when_the_reservation_moves_on() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=2 #q1                  -> r1 held 15m: MUG@A 2 open
         amend r1 MUG@A=4 #q2                    -> r1 held 15m: MUG@A 4 open
         extend r1 ttl 20m #q3                   -> r1 held 20m: MUG@A 4 open
         confirm r1 pickup 1h #q4                -> r1 confirmed 1h: MUG@A 4 open
         release r1 MUG=1 #q5                    -> r1 confirmed 1h: MUG@A 3 open 1 released
         fulfill r1 MUG=1 #q6                    -> r1 confirmed 1h: MUG@A 2 open 1 fulfilled 1 \
         released
         fulfill r1 #q7                          -> r1 fulfilled: MUG@A 3 fulfilled 1 released
         confirm r1 #q8                          -> refused: it is fulfilled
         reserve r1 MUG@A=2 #q1                  -> r1 held 15m: MUG@A 2 open
         amend r1 MUG@A=4 #q2                    -> r1 held 15m: MUG@A 4 open
         extend r1 ttl 20m #q3                   -> r1 held 20m: MUG@A 4 open
         confirm r1 pickup 1h #q4                -> r1 confirmed 1h: MUG@A 4 open
         release r1 MUG=1 #q5                    -> r1 confirmed 1h: MUG@A 3 open 1 released
         fulfill r1 MUG=1 #q6                    -> r1 confirmed 1h: MUG@A 2 open 1 fulfilled 1 \
         released
         fulfill r1 #q7                          -> r1 fulfilled: MUG@A 3 fulfilled 1 released
         confirm r1 #q8                          -> refused: it is fulfilled
         ledger                                  -> nothing
         show MUG@A                              -> on_hand 7 reserved 0 available 7",
    );
}

#[test]
fn a_refusal_is_an_answer_too() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=2 #q1                  -> short MUG@A requested 2 available 1 reservable 1
         reserve r1 PEN@A=1 #q2                  -> refused: line 0 unknown sku
         policy MUG@A safety 1 #q3               -> safety 1 backorder 0 available 0
         receive MUG@A=9 PEN@A=9
         policy MUG@A safety 0
         reserve r1 MUG@A=2 #q1                  -> short MUG@A requested 2 available 1 reservable 1
         reserve r1 PEN@A=1 #q2                  -> refused: line 0 unknown sku
         policy MUG@A safety 1 #q3               -> safety 1 backorder 0 available 0
         show MUG@A                              -> on_hand 10 reserved 0 available 10
         reserve r1 MUG@A=2                      -> r1 held 15m: MUG@A 2 open",
    );
}

#[test]
fn a_request_id_names_one_request() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=2 #q
         reserve r2 MUG@A=3 #q                   -> refused: request id reused
         confirm r1 #q                           -> refused: request id reused
         confirm r1 #c
         release r1 #c                           -> refused: request id reused
         fulfill r1 #c                           -> refused: request id reused
         policy MUG@A safety 1 #q                -> refused: request id reused
         reserve r1 MUG@A=2 #q                   -> r1 held 15m: MUG@A 2 open
         show MUG@A                              -> on_hand 10 reserved 2 available 8",
    );
}

#[test]
fn the_same_fields_of_another_kind_of_call_are_another_request() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=2
         extend r1 ttl 20m #q
         confirm r1 pickup 20m #q                -> refused: request id reused
         confirm r1
         release r1 MUG=1 #p
         fulfill r1 MUG=1 #p                     -> refused: request id reused
         amend r1 MUG@A=1 #p                     -> refused: request id reused
         get r1                                  -> r1 confirmed: MUG@A 1 open 1 released",
    );
}

#[test]
fn another_caller_may_have_the_same_request_id() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=2 #q
         reserve r2 MUG@A=3 #q by app            -> r2 held 15m by app: MUG@A 3 open
         reserve r1 MUG@A=2 #q                   -> r1 held 15m: MUG@A 2 open
         reserve r2 MUG@A=3 #q by app            -> r2 held 15m by app: MUG@A 3 open
         show MUG@A                              -> on_hand 10 reserved 5 available 5",
    );
}

#[test]
fn a_request_is_remembered_for_ten_minutes_and_refused_after_that() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=1 #q
         +10m
         reserve r1 MUG@A=1 #q                   -> r1 held 5m: MUG@A 1 open
         +1ms
         reserve r1 MUG@A=1 #q                   -> refused: request too old, horizon 1ms
         // What is refused unseen is not remembered.
         counts                                  -> skus 1 positions 1 open 1 ended 0 requests 0
         reserve r2 MUG@A=1 made 600001ms ago    -> refused: request too old, horizon 1ms
         reserve r2 MUG@A=1 made 10m ago         -> r2 held 15m: MUG@A 1 open
         show MUG@A                              -> on_hand 10 reserved 2 available 8",
    );
}

#[test]
fn an_old_id_is_good_while_nothing_has_been_forgotten() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=1 made 2d ago #q       -> r1 held 15m: MUG@A 1 open
         reserve r1 MUG@A=1 #q                   -> r1 held 15m: MUG@A 1 open",
    );
}

#[test]
fn an_id_from_the_future_is_refused() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=1 made 60001ms ahead #q -> refused: request from the future
         +1ms
         reserve r1 MUG@A=1 #q                   -> r1 held 15m: MUG@A 1 open
         reserve r2 MUG@A=1 made 60s ahead       -> r2 held 15m: MUG@A 1 open",
    );
}

#[test]
fn while_cluster_time_lags_behind_an_outage_callers_are_judged_by_the_wall_clocks() {
    check(
        "receive MUG@A=10
         reserve r0 MUG@A=1 #before              -> r0 held 15m: MUG@A 1 open
         lag 3h
         reserve r1 MUG@A=1 made 3h ahead #q     -> r1 held 15m: MUG@A 1 open
         reserve r2 MUG@A=1 made 10860001ms ahead -> refused: request from the future
         reserve r0 MUG@A=1 #before              -> r0 held 15m: MUG@A 1 open
         sale MUG@A=1 doc S1 occurred 3h ahead   -> recorded
         ledger                                  -> Sale MUG@A on_hand -1 of S1/1 by web 3h ahead
         sale MUG@A=1 occurred 10860001ms ahead  -> recorded 60001ms ahead
         sale MUG@A=1 occurred 97200001ms ahead  -> refused: occurred in the future
         +15m
         get r1                                  -> r1 expired: MUG@A 1 expired
         reserve r1 MUG@A=1 #q                   -> refused: request too old, horizon 10800001ms
         reserve r3 MUG@A=1 made 3h ahead        -> r3 held 15m: MUG@A 1 open
         lag 0s
         +30d
         sale MUG@A=1 doc S1 occurred at 3h      -> refused: document too old, horizon 10920001ms",
    );
}

#[test]
fn an_id_made_by_a_clock_that_ran_ahead_is_never_carried_out_twice() {
    check(
        "receive MUG@A=10
         reserve r1 MUG@A=1 made 60s ahead #q
         +601s
         reserve r1 MUG@A=1 #q                   -> refused: request too old, horizon 60001ms
         reserve r2 MUG@A=1                      -> r2 held 15m: MUG@A 1 open",
    );
}
