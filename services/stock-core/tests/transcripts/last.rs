//! How long reservations last: expiry, confirm and extend.

use crate::interpreter::check;

#[test]
fn a_hold_expires_at_its_stamp_and_not_before() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 60s
         due                                     -> in 1m
         +59999ms
         get r1                                  -> r1 held 1ms: MUG@A 1 open
         +1ms
         get r1                                  -> r1 expired: MUG@A 1 expired
         due                                     -> never",
    );
}

#[test]
fn expiry_comes_before_the_commands_of_its_entry() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 60s
         +60s
         & reserve r2 MUG@A=1                    -> r2 held 15m: MUG@A 1 open",
    );
}

#[test]
fn a_confirm_wins_against_expiry_where_it_stands_first_in_the_log() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 60s
         +59999ms
         & confirm r1                            -> r1 confirmed: MUG@A 1 open
         ledger                                  -> Confirmed MUG@A of r1 by web
         due                                     -> never
         +7d
         show MUG@A                              -> on_hand 1 reserved 1 available 0",
    );
}

#[test]
fn a_confirm_loses_against_expiry_where_it_stands_last_in_the_log() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 60s
         +60s
         & confirm r1                            -> refused: it is expired
         show MUG@A                              -> on_hand 1 reserved 0 available 1",
    );
}

#[test]
fn holds_expire_in_the_order_of_their_time_then_of_their_id() {
    check(
        "receive MUG@A=9
         reserve r1 MUG@A=1 ttl 3m by app
         reserve r2 MUG@A=2 ttl 2m
         reserve r3 MUG@A=3 ttl 2m
         +1h
         ledger                                  -> Expired MUG@A reserved -2 of r2 by web; \
         Expired MUG@A reserved -3 of r3 by web; Expired MUG@A reserved -1 of r1 by app",
    );
}

#[test]
fn only_what_is_still_open_expires() {
    check(
        "receive MUG@A=9 PEN@A=9
         reserve r1 MUG@A=3 PEN@A=2
         release r1 MUG=1 PEN=2                  -> r1 held 15m: MUG@A 2 open 1 released, PEN@A 2 \
         released
         +15m
         ledger                                  -> Expired MUG@A reserved -2 of r1 by web
         get r1                                  -> r1 expired: MUG@A 1 released 2 expired, PEN@A \
         2 released",
    );
}

#[test]
fn a_crowd_of_due_holds_expires_bit_by_bit() {
    check(
        "receive MUG@A=2000
         reserve c1..c1100 MUG@A=1 ttl 60s       -> each held 1m: MUG@A 1 open
         +60s
         show MUG@A                              -> on_hand 2000 reserved 588 available 1412
         due                                     -> now
         +0s
         show MUG@A                              -> on_hand 2000 reserved 76 available 1924
         +0s
         show MUG@A                              -> on_hand 2000 reserved 0 available 2000
         due                                     -> never",
    );
}

#[test]
fn whoever_touches_a_due_hold_finds_it_expired() {
    // Each touch is an entry, which sweeps 512 more: five commands in one entry do not.
    check(
        "receive MUG@A=2000
         reserve c1..c520 MUG@A=1 ttl 60s        -> each held 1m: MUG@A 1 open
         +60s
         get c520                                -> c520 held 0ms: MUG@A 1 open
         & confirm c520                          -> refused: it is expired
         ledger                                  -> Expired MUG@A reserved -1 of c520 by web
         & release c519                          -> refused: it is expired
         & fulfill c518                          -> refused: it is expired
         & extend c517 ttl 1h                    -> refused: it is expired
         & amend c516 MUG@A=1                    -> refused: it is expired
         show MUG@A                              -> on_hand 2000 reserved 3 available 1997
         due                                     -> now
         +0s
         ledger                                  -> Expired MUG@A reserved -1 of c513 by web; \
         Expired MUG@A reserved -1 of c514 by web; Expired MUG@A reserved -1 of c515 by web
         due                                     -> never",
    );
}

#[test]
fn a_due_hold_that_nobody_touched_counts_as_reserved() {
    check(
        "receive MUG@A=513
         reserve c1..c513 MUG@A=1 ttl 60s        -> each held 1m: MUG@A 1 open
         +60s
         & reserve r1 MUG@A=513                  -> short MUG@A requested 513 available 512 \
         reservable 512
         reserve r1 MUG@A=513                    -> r1 held 15m: MUG@A 513 open",
    );
}

#[test]
fn a_confirmed_reservation_has_no_expiry() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1
         confirm r1                              -> r1 confirmed: MUG@A 1 open
         due                                     -> never",
    );
}

#[test]
fn a_pickup_deadline_ends_a_confirmed_reservation() {
    check(
        "receive MUG@A=3
         reserve r1 MUG@A=3
         confirm r1 pickup 2d                    -> r1 confirmed 2d: MUG@A 3 open
         due                                     -> in 2d
         fulfill r1 MUG=1                        -> r1 confirmed 2d: MUG@A 2 open 1 fulfilled
         +172799999ms
         get r1                                  -> r1 confirmed 1ms: MUG@A 2 open 1 fulfilled
         +1ms
         fulfill r1                              -> refused: it is expired
         get r1                                  -> r1 expired: MUG@A 1 fulfilled 2 expired
         show MUG@A                              -> on_hand 2 reserved 0 available 2",
    );
}

#[test]
fn a_pickup_deadline_can_be_extended() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1
         confirm r1 pickup 1h                    -> r1 confirmed 1h: MUG@A 1 open
         +59m
         extend r1 ttl 1d                        -> r1 confirmed 1d: MUG@A 1 open
         ledger                                  -> Extended MUG@A of r1 by web
         +1d
         get r1                                  -> r1 expired: MUG@A 1 expired",
    );
}

#[test]
fn an_extension_counts_from_now_and_never_shortens() {
    check(
        "receive MUG@A=1
         reserve r1 MUG@A=1 ttl 10m
         +4m
         extend r1 ttl 1m                        -> r1 held 6m: MUG@A 1 open
         extend r1 ttl 10m                       -> r1 held 10m: MUG@A 1 open
         due                                     -> in 10m
         +6m
         get r1                                  -> r1 held 4m: MUG@A 1 open
         +4m
         get r1                                  -> r1 expired: MUG@A 1 expired",
    );
}

#[test]
fn what_is_settled_never_expires_later() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=1 ttl 1m
         reserve r2 MUG@A=1 ttl 1m
         release r1
         confirm r2 pickup 1m
         fulfill r2                              -> r2 fulfilled: MUG@A 1 fulfilled
         due                                     -> never
         +1m
         ledger                                  -> nothing
         show MUG@A                              -> on_hand 4 reserved 0 available 4",
    );
}
