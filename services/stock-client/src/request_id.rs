//! The ids by which changes are done once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{NoContext, Timestamp, Uuid};

/// A new request id, to be stored before the call that it is for: with it the call can be repeated
/// after a restart of the caller, and is done once.
///
/// It says when it was made, by this machine's clock; ids of more than a minute ahead of the
/// cluster's time, or ten minutes behind it, are refused (`RequestFromFuture`, `RequestTooOld`). So
/// it is made for its call, and not long before.
/// [`Client::new_request_id`](crate::Client::new_request_id) needs no clock that is right.
///
/// ```
/// let request_id = stock_client::new_request_id();
/// assert_eq!((request_id.len(), &request_id[14..15]), (36, "7"), "a UUID of version 7");
/// ```
pub fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// One that says that it was made then, a time since the Unix epoch.
pub(crate) fn made_at(time: Duration) -> String {
    let time = Timestamp::from_unix(NoContext, time.as_secs(), time.subsec_nanos());
    Uuid::new_v7(time).to_string()
}

/// No time is as late: the 48 bits of an id that say when it was made hold it, and it is beyond
/// the year 9999.
const SECONDS_MAX: u64 = 1 << 38;

/// The cluster's time, as nodes tell it and as it goes on meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClusterTime {
    /// Since the Unix epoch.
    pub(crate) told: Duration,
    /// When that was heard, since the client was opened.
    pub(crate) heard_at: Duration,
}

impl ClusterTime {
    /// As a node has told it, if it is a time at all.
    pub(crate) fn heard(told: prost_types::Timestamp, now: Duration) -> Option<Self> {
        let told = SystemTime::try_from(told).ok()?;
        let told = told.duration_since(UNIX_EPOCH).ok()?;
        let is_one = told.as_secs() < SECONDS_MAX;
        is_one.then_some(Self {
            told,
            heard_at: now,
        })
    }

    /// What it is now.
    pub(crate) fn at(self, now: Duration) -> Duration {
        self.told + now.saturating_sub(self.heard_at)
    }
}
