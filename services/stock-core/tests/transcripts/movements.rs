//! Facts are recorded once and never refused for want of stock.

use crate::interpreter::check;

#[test]
fn receipts_sales_and_adjustments_change_what_is_on_hand() {
    check(
        "receive MUG@A=10 doc D1                 -> recorded
         ledger                                  -> Receipt MUG@A on_hand +10 of D1/1 by web
         sale MUG@A=3 doc S1 by till             -> recorded
         ledger                                  -> Sale MUG@A on_hand -3 of S1/1 by till
         adjust MUG@A=-2 doc C1 reason broken    -> recorded
         ledger                                  -> Adjustment MUG@A on_hand -2 of C1/1 by web \
         since broken
         adjust MUG@A=4 reason found             -> recorded
         show MUG@A                              -> on_hand 9 reserved 0 available 9",
    );
}

#[test]
fn a_line_of_a_document_counts_once() {
    check(
        "receive MUG@A=10 PEN@A=1 doc D1         -> recorded; recorded
         receive MUG@A=10 PEN@A=1 doc D1 by app from web -> already recorded; already recorded
         ledger                                  -> nothing
         receive MUG@A=10 PEN@A=1 INK@A=1 doc D1 -> already recorded; already recorded; recorded
         show MUG@A                              -> on_hand 10 reserved 0 available 10",
    );
}

#[test]
fn a_line_with_another_content_is_refused() {
    check(
        "receive MUG@A=10 doc D1                 -> recorded
         receive MUG@A=11 PEN@A=1 doc D1         -> refused: document reused; recorded
         receive MUG@A=10 doc D1 occurred 1m ago -> refused: document reused
         adjust MUG@A=1 doc C1 reason found      -> recorded
         adjust MUG@A=1 doc C1 reason broken     -> refused: document reused
         show MUG@A                              -> on_hand 11 reserved 0 available 11",
    );
}

#[test]
fn a_line_is_known_by_what_it_is_about_and_by_who_reports_it() {
    check(
        "receive MUG@A=10 doc D1                 -> recorded
         // The number of a line is used again within a document, and that of a receipt by another
         // till.
         receive PEN@A=10 doc D1                 -> recorded
         receive MUG@B=10 doc D1                 -> recorded
         sale MUG@A=1 doc R1 from till-1         -> recorded
         sale MUG@A=1 doc R1 from till-2         -> recorded
         ledger                                  -> Sale MUG@A on_hand -1 of R1/1 from till-2 by web
         sale MUG@A=1 doc R1 by till-2           -> already recorded
         show MUG@A                              -> on_hand 8 reserved 0 available 8",
    );
}

#[test]
fn what_was_amiss_is_said_again() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=5
         sale MUG@A=1 doc S1                     -> recorded, MUG@A available -1 short by 1 \
         endangers r1
         receive MUG@A=9
         sale MUG@A=1 doc S1                     -> already recorded, MUG@A available -1 short by \
         1 endangers r1",
    );
}

#[test]
fn the_endangered_are_found_at_their_position_and_by_when_they_were_held() {
    check(
        "receive MUG@A=5 MUG@B=2000
         reserve here MUG@A=4 ttl 7d
         +1ms
         reserve newest MUG@A=1 ttl 7d
         // However many there are elsewhere.
         reserve r1..r1001 MUG@B=1               -> each held 15m: MUG@B 1 open
         adjust MUG@A=-5 reason fire             -> recorded, MUG@A available -5 short by 5 \
         endangers newest here",
    );
}

#[test]
fn the_endangered_are_named_once_by_a_command() {
    check(
        "receive MUG@A=3 PEN@A=3
         reserve r1 MUG@A=1 PEN@A=3
         reserve r2 MUG@A=2
         sale MUG@A=1 MUG@A=1 MUG@A=1 PEN@A=1    -> recorded, MUG@A available -1 short by 1 \
         endangers r2; recorded, MUG@A available -2 short by 2 endangers nobody; recorded, MUG@A \
         available -3 short by 3 endangers r1; recorded, PEN@A available -1 short by 1 endangers r1
         sale MUG@A=1                            -> recorded, MUG@A available -4 short by 4 \
         endangers r2 r1",
    );
}

#[test]
fn documents_of_different_kinds_may_share_a_name() {
    check(
        "receive MUG@A=10 doc D1                 -> recorded
         sale MUG@A=1 doc D1                     -> recorded
         adjust MUG@A=1 doc D1                   -> recorded",
    );
}

#[test]
fn each_line_stands_or_falls_by_itself() {
    check(
        "receive MUG@A=1
         sale MUG@A=1 MUGG@A=1 MUG@B=1 doc S1    -> recorded; refused: line 1 unknown sku; \
         recorded, MUG@B available -1 short by 1 endangers nobody
         // A line that was refused was not recorded: once the SKU is known, it counts.
         receive MUGG@A=5
         sale MUG@A=1 MUGG@A=1 MUG@B=1 doc S1    -> already recorded; recorded; already recorded, \
         MUG@B available -1 short by 1 endangers nobody
         show MUGG@A                             -> on_hand 4 reserved 0 available 4",
    );
}

#[test]
fn a_sku_exists_from_its_first_receipt() {
    check(
        "sale MUG@A=1                            -> refused: line 0 unknown sku
         adjust MUG@A=1                          -> refused: line 0 unknown sku
         show MUG@A                              -> nothing
         receive MUG@A=1                         -> recorded
         adjust MUG@B=2                          -> recorded
         counts                                  -> skus 1 positions 2 open 0 ended 0 requests 0",
    );
}

#[test]
fn a_sale_below_what_is_reserved_names_the_newest_reservations() {
    check(
        "receive MUG@A=10 MUG@B=1 PEN@A=9
         reserve r1 MUG@A=4
         reserve r2 MUG@A=3
         reserve other MUG@B=1 PEN@A=1
         reserve r3 MUG@A=2
         sale MUG@A=1                            -> recorded
         sale MUG@A=2                            -> recorded, MUG@A available -2 short by 2 \
         endangers r3
         sale MUG@A=1                            -> recorded, MUG@A available -3 short by 3 \
         endangers r3 r2
         ledger                                  -> Sale MUG@A on_hand -1 of unnamed-12/1 by web, \
         MUG@A available -3 short by 3 endangers r3 r2
         adjust MUG@A=-7                         -> recorded, MUG@A available -10 short by 10 \
         endangers r3 r2 r1
         // What makes it better is no news.
         receive MUG@A=1                         -> recorded
         show MUG@A                              -> on_hand 0 reserved 9 available -9",
    );
}

#[test]
fn a_discrepancy_begins_below_the_backorder_limit() {
    check(
        "policy MUG@A backorder 2
         sale MUG@A=2                            -> recorded
         sale MUG@A=1                            -> recorded, MUG@A available -3 short by 1 \
         endangers nobody",
    );
}

#[test]
fn only_open_units_are_endangered() {
    check(
        "receive MUG@A=10 PEN@A=10
         reserve old MUG@A=1 ttl 7d
         reserve partly MUG@A=3 PEN@A=1 ttl 7d
         reserve away MUG@A=1 ttl 7d
         reserve gone MUG@A=1
         reserve sold MUG@A=1
         reserve late MUG@A=1 ttl 1m
         release partly MUG=3
         amend away PEN@A=1
         release gone
         confirm sold
         fulfill sold
         +1m
         sale MUG@A=9                            -> recorded, MUG@A available -1 short by 1 \
         endangers old",
    );
}

// The search for the endangered looks at a thousand holders: whoever holds nothing any more must
// not be among them.

#[test]
fn released_reservations_do_not_hide_the_endangered() {
    check(
        "receive MUG@A=1100 PEN@A=1100
         reserve old MUG@A=9 ttl 7d
         reserve r1..r500 MUG@A=1                -> each held 15m: MUG@A 1 open
         release r1..r500                        -> each released: MUG@A 1 released
         reserve s1..s501 MUG@A=1 PEN@A=1        -> each held 15m: MUG@A 1 open, PEN@A 1 open
         release s1..s501 MUG=1                  -> each held 15m: MUG@A 1 released, PEN@A 1 open
         sale MUG@A=1092                         -> recorded, MUG@A available -1 short by 1 \
         endangers old",
    );
}

#[test]
fn fulfilled_reservations_do_not_hide_the_endangered() {
    check(
        "receive MUG@A=1100
         reserve old MUG@A=9 ttl 7d
         reserve r1..r1001 MUG@A=1               -> each held 15m: MUG@A 1 open
         confirm r1..r1001                       -> each confirmed: MUG@A 1 open
         fulfill r1..r1001                       -> each fulfilled: MUG@A 1 fulfilled
         sale MUG@A=91                           -> recorded, MUG@A available -1 short by 1 \
         endangers old",
    );
}

#[test]
fn expired_reservations_do_not_hide_the_endangered() {
    check(
        "receive MUG@A=1100
         reserve old MUG@A=9 ttl 7d
         reserve r1..r1001 MUG@A=1 ttl 1s        -> each held 1s: MUG@A 1 open
         +1s
         +0s
         sale MUG@A=1092                         -> recorded, MUG@A available -1 short by 1 \
         endangers old",
    );
}

#[test]
fn amended_reservations_do_not_hide_the_endangered() {
    check(
        "receive MUG@A=1100 PEN@A=1100
         reserve old MUG@A=9 ttl 7d
         reserve r1..r1001 MUG@A=1               -> each held 15m: MUG@A 1 open
         amend r1..r1001 PEN@A=1                 -> each held 15m: PEN@A 1 open
         sale MUG@A=1092                         -> recorded, MUG@A available -1 short by 1 \
         endangers old",
    );
}

#[test]
fn at_most_a_hundred_reservations_are_named() {
    check(
        "receive MUG@A=101
         reserve r0 MUG@A=1
         reserve r1..r3 MUG@A=1                  -> each held 15m: MUG@A 1 open
         reserve s1..s97 MUG@A=1                 -> each held 15m: MUG@A 1 open
         adjust MUG@A=-101 reason fire           -> recorded, MUG@A available -101 short by 101 \
         endangers s97 s96 s95 s94 s93 s92 s91 s90 s89 s88 s87 s86 s85 s84 s83 s82 s81 s80 s79 \
         s78 s77 s76 s75 s74 s73 s72 s71 s70 s69 s68 s67 s66 s65 s64 s63 s62 s61 s60 s59 s58 s57 \
         s56 s55 s54 s53 s52 s51 s50 s49 s48 s47 s46 s45 s44 s43 s42 s41 s40 s39 s38 s37 s36 s35 \
         s34 s33 s32 s31 s30 s29 s28 s27 s26 s25 s24 s23 s22 s21 s20 s19 s18 s17 s16 s15 s14 s13 \
         s12 s11 s10 s9 s8 s7 s6 s5 s4 s3 s2 s1 r3 r2 r1",
    );
}

#[test]
fn a_movement_tells_when_it_happened() {
    check(
        "receive MUG@A=10
         +1h
         sale MUG@A=1 occurred 40m ago           -> recorded
         ledger                                  -> Sale MUG@A on_hand -1 of unnamed-2/1 by web \
         40m ago
         sale MUG@A=1 occurred 1m ahead          -> recorded
         // Its clock ran ahead: the ledger never says later than the stamp.
         ledger                                  -> Sale MUG@A on_hand -1 of unnamed-3/1 by web
         sale MUG@A=1 occurred 60001ms ahead     -> recorded 60001ms ahead
         sale MUG@A=1 occurred 24h ahead         -> recorded 1d ahead
         ledger                                  -> Sale MUG@A on_hand -1 of unnamed-5/1 by web
         sale MUG@A=1 occurred 86400001ms ahead  -> refused: occurred in the future
         show MUG@A                              -> on_hand 6 reserved 0 available 6",
    );
}

#[test]
fn a_document_is_remembered_for_thirty_days_and_refused_after_that() {
    check(
        "receive MUG@A=10
         +1h
         sale MUG@A=1 doc S1 occurred at 30m     -> recorded
         +30d
         sale MUG@A=1 doc S1 occurred at 30m     -> already recorded
         +1ms
         sale MUG@A=1 doc S1 occurred at 30m     -> refused: document too old, horizon 3600001ms
         sale MUG@A=1 doc S2 occurred at 30m     -> refused: document too old, horizon 3600001ms
         sale MUG@A=1 doc S3 occurred at 60m     -> refused: document too old, horizon 3600001ms
         sale MUG@A=1 doc S3 occurred at 3600001ms -> recorded
         show MUG@A                              -> on_hand 8 reserved 0 available 8",
    );
}

#[test]
fn a_forgotten_document_whose_clock_ran_ahead_does_not_count_twice() {
    check(
        "receive MUG@A=10
         sale MUG@A=1 doc S1 occurred at 50s     -> recorded
         +30d
         +1ms
         // To two minutes, since so much is kept of it.
         sale MUG@A=1 doc S1 occurred at 50s     -> refused: document too old, horizon 120001ms
         show MUG@A                              -> on_hand 9 reserved 0 available 9",
    );
}

#[test]
fn a_counter_stays_in_its_range() {
    check(
        "receive MUG@A=1000000000000000 doc D1   -> recorded
         receive MUG@A=1                         -> refused: line 0 counter out of range
         receive MUG@B=1000000000000001          -> refused: line 0 counter out of range
         receive MUG@A=9223372036854775807       -> refused: line 0 counter out of range
         show MUG@B                              -> nothing
         receive PEN@A=9223372036854775807       -> refused: line 0 counter out of range
         counts                                  -> skus 1 positions 1 open 0 ended 0 requests 0
         adjust MUG@A=-9223372036854775808       -> refused: line 0 counter out of range
         adjust MUG@B=-9223372036854775808       -> refused: line 0 counter out of range
         sale MUG@A=1                            -> recorded
         receive MUG@A=1                         -> recorded
         show MUG@A                              -> on_hand 1000000000000000 reserved 0 available \
         1000000000000000",
    );
}
