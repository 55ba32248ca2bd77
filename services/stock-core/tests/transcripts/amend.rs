//! A basket is replaced in one step.

use crate::interpreter::check;

#[test]
fn her_own_units_never_stand_in_a_shoppers_way() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=5
         amend r1 MUG@A=5                        -> r1 held 15m: MUG@A 5 open
         ledger                                  -> nothing
         amend r1 MUG@A=3                        -> r1 held 15m: MUG@A 3 open
         ledger                                  -> Released MUG@A reserved -2 of r1 by web
         amend r1 MUG@A=5                        -> r1 held 15m: MUG@A 5 open
         ledger                                  -> Reserved MUG@A reserved +2 of r1 by web
         show MUG@A                              -> on_hand 5 reserved 5 available 0",
    );
}

#[test]
fn her_own_units_count_once() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=3
         amend r1 MUG@A=6                        -> short MUG@A requested 6 available 2 reservable 5
         amend r1 MUG@A=3 MUG@A=3                -> short MUG@A requested 6 available 2 reservable 5
         show MUG@A                              -> on_hand 5 reserved 3 available 2",
    );
}

#[test]
fn a_refused_amend_leaves_all_as_it_was() {
    check(
        "receive MUG@A=5 PEN@A=1
         reserve r1 MUG@A=5 ttl 10m
         +4m
         amend r1 PEN@A=2 MUG@A=1 ttl 1h         -> short PEN@A requested 2 available 1 reservable 1
         ledger                                  -> nothing
         amend r1 PEN@A=1 INK@A=1                -> refused: line 1 unknown sku
         amend r1 PEN@B=1                        -> short PEN@B requested 1 available 0 reservable 0
         get r1                                  -> r1 held 6m: MUG@A 5 open
         show PEN@A                              -> on_hand 1 reserved 0 available 1
         due                                     -> in 6m",
    );
}

#[test]
fn lines_come_go_and_move() {
    check(
        "receive MUG@A=5 MUG@B=5 PEN@A=5
         reserve r1 MUG@A=2 PEN@A=1
         amend r1 MUG@B=3 PEN@A=2                -> r1 held 15m: MUG@B 3 open, PEN@A 2 open
         ledger                                  -> Released MUG@A reserved -2 of r1 by web; \
         Reserved MUG@B reserved +3 of r1 by web; Reserved PEN@A reserved +1 of r1 by web
         show MUG@A                              -> on_hand 5 reserved 0 available 5
         amend r1 MUG@A=1                        -> r1 held 15m: MUG@A 1 open
         release r1 PEN=1                        -> refused: line 0 not in reservation
         release r1                              -> r1 released: MUG@A 1 released
         show PEN@A                              -> on_hand 5 reserved 0 available 5
         show MUG@B                              -> on_hand 5 reserved 0 available 5",
    );
}

#[test]
fn units_released_before_an_amend_are_not_held_by_it() {
    check(
        "receive MUG@A=5 PEN@A=5
         reserve r1 MUG@A=4 PEN@A=1
         release r1 MUG=3 PEN=1
         reserve r2 MUG@A=3
         amend r1 MUG@A=3                        -> short MUG@A requested 3 available 1 reservable 2
         amend r1 MUG@A=2 PEN@A=1                -> r1 held 15m: MUG@A 2 open, PEN@A 1 open
         ledger                                  -> Reserved MUG@A reserved +1 of r1 by web; \
         Reserved PEN@A reserved +1 of r1 by web",
    );
}

#[test]
fn an_amended_hold_keeps_its_expiry_unless_told() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=2 ttl 10m
         +4m
         amend r1 MUG@A=3                        -> r1 held 6m: MUG@A 3 open
         due                                     -> in 6m
         amend r1 MUG@A=3 ttl 1h                 -> r1 held 1h: MUG@A 3 open
         due                                     -> in 1h
         +1h
         get r1                                  -> r1 expired: MUG@A 3 expired
         show MUG@A                              -> on_hand 5 reserved 0 available 5",
    );
}

#[test]
fn less_may_be_held_even_where_too_much_is_promised() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=5
         sale MUG@A=4
         amend r1 MUG@A=5                        -> r1 held 15m: MUG@A 5 open
         amend r1 MUG@A=4                        -> r1 held 15m: MUG@A 4 open
         amend r1 MUG@A=5                        -> short MUG@A requested 5 available -3 \
         reservable 4",
    );
}
