//! Policies: how much of what is there may be sold.

use crate::apply::movements::Named;
use crate::command::SetPolicy;
use crate::ids::{At, Principal};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::limits::COUNTER_MAX;
use crate::outcome::{Outcome, Policy, Refusal};
use crate::shard::Shard;

impl Shard {
    /// Never refused for want of stock: where less may be sold than has been, that is a
    /// discrepancy.
    pub(crate) fn set_policy(
        &mut self,
        at: At,
        principal: &Principal,
        policy: &SetPolicy,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let (sku, location) = (&policy.sku, &policy.location);
        let in_range = |units: Option<i64>| units.is_none_or(|n| (0..=COUNTER_MAX).contains(&n));
        if !in_range(policy.safety_stock) || !in_range(policy.backorder_limit) {
            return Outcome::Refused(Refusal::CounterOutOfRange { line: 0 });
        }
        let exists = self
            .shelves
            .stock(sku)
            .and_then(|stock| stock.position(location))
            .is_some();
        if !exists && let Err(refusal) = self.new_position(sku, location) {
            return Outcome::Refused(refusal);
        }
        let short_before = self.short_by(sku, location);
        let Some(position) = self
            .shelves
            .stock_mut(sku)
            .and_then(|s| s.position_mut(location))
        else {
            return Outcome::Refused(Refusal::UnknownSku { line: 0 });
        };
        position.safety_stock = policy.safety_stock.unwrap_or(position.safety_stock);
        position.backorder_limit = policy.backorder_limit.unwrap_or(position.backorder_limit);
        let mut answer = Policy {
            safety_stock: position.safety_stock,
            backorder_limit: position.backorder_limit,
            available: position.available(),
            discrepancy: None,
        };
        let discrepancy = self.discrepancy((sku, location), 0, short_before, &mut Named::default());
        answer.discrepancy.clone_from(&discrepancy);
        let entry = LedgerEntry {
            kind: EntryKind::Policy,
            sku: sku.clone(),
            location: location.clone(),
            on_hand_delta: 0,
            reserved_delta: 0,
            source: Source::Policy,
            principal: principal.clone(),
            stamp: at.stamp(),
            occurred_at: at.stamp(),
            reason: None,
            discrepancy,
        };
        self.shelves.post(entry, ledger);
        Outcome::Policy(answer)
    }
}
