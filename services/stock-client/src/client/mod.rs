//! The client: one method for each call of `stock.v1`, by families.

mod opening;
mod reservations;
mod stock;

use std::sync::Arc;

use stock_proto::stock::v1::{Consistency, ReadOptions};
use tokio::time::Instant;

#[cfg(doc)]
use crate::error::Error;
use crate::options::Options;
use crate::pool::Pool;

/// A client of one cluster. Clones share its connections and are cheap; one is enough for a
/// program.
///
/// Every method fails with [`Error::Status`] where a node refuses the call, with [`Error::Timeout`]
/// where none has answered it in time, and with [`Error::TooManyCalls`] where too many are under
/// way; of a change, [`Error::request_ids`] then tells the ids to repeat it with. It must be used
/// inside a tokio runtime. It may be dropped at any moment.
///
/// What a call is refused with stands at each, as variants of
/// [`ErrorReason`](crate::v1::ErrorReason): those `after repeats` are such as the client tries
/// again, so that they are seen as the reason of an [`Error::Timeout`]. Any call may be refused
/// with `FieldInvalid`, and with what the network, a node or a version is the reason for; any
/// change that has a request id with `RequestReused`, `RequestTooOld` and `RequestFromFuture`, and
/// after repeats with `RequestMemoryFull`.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
    options: Arc<Options>,
}

impl Client {
    pub(crate) fn of(pool: Arc<Pool>, options: Options) -> Self {
        let options = Arc::new(options);
        Self { pool, options }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.call
    }
}

fn consistency(read: Option<&ReadOptions>) -> Consistency {
    read.map_or(Consistency::Unspecified, ReadOptions::consistency)
}
