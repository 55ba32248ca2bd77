//! What callers call their reservations, so that they find them again.

use std::sync::Arc;

use crate::ids::Channel;
use crate::text::OrderReference;

/// At least one of them is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The caller's own name for it; several reservations may have the same.
    pub order_reference: Option<OrderReference>,
    /// Where it comes from: the web shop, an app, a marketplace.
    pub channel: Option<Channel>,
}

/// With what allocators need, and a place among the order references.
const BYTES: usize = 144;

impl Labels {
    /// None, where neither is there.
    pub fn new(
        order_reference: Option<OrderReference>,
        channel: Option<Channel>,
    ) -> Option<Arc<Self>> {
        let is_any = order_reference.is_some() || channel.is_some();
        let labels = Self {
            order_reference,
            channel,
        };
        is_any.then(|| Arc::new(labels))
    }

    /// The order reference as it is written; empty where there is none.
    pub(crate) fn reference_text(&self) -> &str {
        self.order_reference.as_ref().map_or("", |it| it.as_str())
    }

    /// The channel, likewise.
    pub(crate) fn channel_text(&self) -> &str {
        self.channel.as_ref().map_or("", |it| it.as_str())
    }

    /// Bytes of memory that they take, about. Channels are few, and shared.
    pub(crate) fn bytes(&self) -> usize {
        BYTES + self.reference_text().len()
    }
}
