//! Where the ledger is found while it can be used.

use std::sync::{Arc, PoisonError, RwLock};

use stock_storage::Ledger;

/// The ledger, except while it is being opened again. Whoever reads takes it for a moment only:
/// nobody can open it while somebody holds it.
#[derive(Debug, Clone)]
pub struct OpenLedger(Arc<RwLock<Option<Ledger>>>);

impl OpenLedger {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self(Arc::new(RwLock::new(Some(ledger))))
    }

    /// The ledger, if it can be used.
    pub fn ledger(&self) -> Option<Ledger> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn put(&self, ledger: Ledger) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(ledger);
    }

    pub(super) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
