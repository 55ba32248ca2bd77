//! Policies are never refused for want of stock; what they endanger is said.

use crate::interpreter::check;

#[test]
fn a_policy_changes_what_it_names_and_keeps_the_rest() {
    check(
        "receive MUG@A=9
         policy MUG@A safety 2                   -> safety 2 backorder 0 available 7
         ledger                                  -> Policy MUG@A by web
         policy MUG@A backorder 3                -> safety 2 backorder 3 available 7
         policy MUG@A safety 0                   -> safety 0 backorder 3 available 9
         policy MUG@A                            -> safety 0 backorder 3 available 9",
    );
}

#[test]
fn a_sku_exists_from_its_first_policy() {
    check(
        "sale MUG@A=1                            -> refused: line 0 unknown sku
         policy MUG@A backorder 1                -> safety 0 backorder 1 available 0
         reserve r1 MUG@A=1                      -> r1 held 15m: MUG@A 1 open
         sale MUG@B=1                            -> recorded, MUG@B available -1 short by 1 \
         endangers nobody
         counts                                  -> skus 1 positions 2 open 1 ended 0 requests 2",
    );
}

#[test]
fn safety_stock_above_what_is_free_endangers_the_newest() {
    check(
        "receive MUG@A=5
         reserve r1 MUG@A=1
         reserve r2 MUG@A=1
         reserve r3 MUG@A=1
         policy MUG@A safety 2                   -> safety 2 backorder 0 available 0
         ledger                                  -> Policy MUG@A by web
         policy MUG@A safety 4                   -> safety 4 backorder 0 available -2, MUG@A \
         available -2 short by 2 endangers r3 r2
         ledger                                  -> Policy MUG@A by web, MUG@A available -2 short \
         by 2 endangers r3 r2
         policy MUG@A safety 3                   -> safety 3 backorder 0 available -1
         // Still too low, but no lower than it was: nothing new to say.
         ledger                                  -> Policy MUG@A by web",
    );
}

#[test]
fn a_lower_backorder_limit_endangers_the_newest() {
    check(
        "policy MUG@A backorder 3
         reserve r1 MUG@A=2
         reserve r2 MUG@A=1
         policy MUG@A backorder 1                -> safety 0 backorder 1 available -3, MUG@A \
         available -3 short by 2 endangers r2 r1
         ledger                                  -> Policy MUG@A by web, MUG@A available -3 short \
         by 2 endangers r2 r1",
    );
}

#[test]
fn a_policy_outside_any_range_is_refused() {
    check(
        "receive MUG@A=1
         policy MUG@A safety -1                  -> refused: line 0 counter out of range
         policy MUG@A backorder -1               -> refused: line 0 counter out of range
         policy MUG@A safety 9223372036854775807 -> refused: line 0 counter out of range
         policy MUG@A backorder 9223372036854775807 -> refused: line 0 counter out of range
         policy PEN@A safety -9223372036854775808 -> refused: line 0 counter out of range
         show PEN@A                              -> nothing
         show MUG@A                              -> on_hand 1 reserved 0 available 1",
    );
}
