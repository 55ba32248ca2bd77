//! The counters of every position, and the functions that change them.

use crate::buckets::Buckets;
use crate::ids::{Location, ReservationId, Secret, Stamp};
use crate::ledger::LedgerEntry;
use crate::reservation::ReservationLine;
use crate::sku::{Named, Sku, SkuName};
use crate::stock::Stock;

#[derive(Debug, Clone)]
pub(crate) struct Shelves {
    pub(crate) buckets: Buckets<Sku, Stock>,
    pub(crate) skus: usize,
    pub(crate) positions: usize,
    positions_max: usize,
}

impl Shelves {
    pub(crate) fn new(secret: Secret, buckets: usize, positions_max: usize) -> Self {
        Self {
            buckets: Buckets::new(secret, buckets),
            skus: 0,
            positions: 0,
            positions_max,
        }
    }

    pub(crate) fn skus(&self) -> usize {
        self.skus
    }

    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    pub(crate) fn is_full(&self) -> bool {
        self.positions >= self.positions_max
    }

    pub(crate) fn stock(&self, sku: &Sku) -> Option<&Stock> {
        self.buckets.get(sku)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Sku, &Stock)> {
        self.buckets.iter()
    }

    /// As [`Self::stock`], with the copy of the SKU that is kept, so that others may share it.
    pub(crate) fn shared_sku(&self, sku: &Sku) -> Option<(&Sku, &Stock)> {
        self.buckets.bucket_of(sku).get_key_value(sku)
    }

    /// The copy of a SKU that is kept, by its name.
    pub(crate) fn sku_named(&self, text: &str) -> Option<&Sku> {
        let name = SkuName::new(text);
        let bucket = self
            .buckets
            .by(|secret, buckets| name.bucket(secret, buckets));
        let (sku, _) = bucket.get_key_value(&name as &dyn Named)?;
        Some(sku)
    }

    pub(crate) fn stock_mut(&mut self, sku: &Sku) -> Option<&mut Stock> {
        self.buckets.get_mut(sku)
    }

    /// Makes the position if there is none.
    pub(crate) fn open_position(&mut self, sku: &Sku, location: &Location) {
        let entry = self.buckets.of(sku).entry(sku.clone());
        let stock = entry.or_insert_with(|| {
            self.skus += 1;
            Stock::default()
        });
        let (_, made) = stock.position_or_new(location);
        self.positions += usize::from(made);
    }

    /// Changes a position's counters by the entry's deltas and writes the entry down: no counter
    /// ever differs from the sum of its ledger. The caller has seen that the position exists.
    pub(crate) fn post(&mut self, entry: LedgerEntry, ledger: &mut Vec<LedgerEntry>) {
        let position = self
            .stock_mut(&entry.sku)
            .and_then(|stock| stock.position_mut(&entry.location));
        if let Some(position) = position {
            position.on_hand += entry.on_hand_delta;
            position.reserved += entry.reserved_delta;
            ledger.push(entry);
        }
    }

    /// As [`Self::post`], of units that a reservation comes to hold, and holds from now on.
    pub(crate) fn post_held(
        &mut self,
        entry: LedgerEntry,
        id: ReservationId,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        let Some(stock) = self.stock_mut(&entry.sku) else {
            return;
        };
        if let Some(position) = stock.position_mut(&entry.location) {
            position.on_hand += entry.on_hand_delta;
            position.reserved += entry.reserved_delta;
            stock.holders.add(&entry.location, entry.stamp, id);
            ledger.push(entry);
        }
    }

    /// Lets a line share the names that are kept.
    pub(crate) fn share_names(&self, line: &mut ReservationLine) {
        if let Some((sku, stock)) = self.shared_sku(&line.sku) {
            line.sku = sku.clone();
            if let Some(position) = stock.position(&line.location) {
                line.location = position.location.clone();
            }
        }
    }

    /// Takes note that a reservation, held then, has open units there.
    pub(crate) fn add_holder(
        &mut self,
        (sku, location): (&Sku, &Location),
        held_at: Stamp,
        id: ReservationId,
    ) {
        if let Some(stock) = self.stock_mut(sku) {
            stock.holders.add(location, held_at, id);
        }
    }

    /// Takes note that it has none there any more.
    pub(crate) fn remove_holder(
        &mut self,
        (sku, location): (&Sku, &Location),
        held_at: Stamp,
        id: ReservationId,
    ) {
        if let Some(stock) = self.stock_mut(sku) {
            stock.holders.remove(location, held_at, id);
        }
    }
}
