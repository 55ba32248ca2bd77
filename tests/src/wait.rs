//! Waiting for conditions, within bounds.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds what it looks for, and returns it. Panics when that takes longer than
/// `within`, with what `look` last said instead.
pub async fn until<T>(
    what: &str,
    within: Duration,
    look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let found = self::within(within, look).await;
    found.unwrap_or_else(|instead| panic!("{what}: not within {within:?}; at last: {instead}"))
}

/// Waits until `look` finds what it looks for, and returns it, or what it last said instead when
/// that takes longer than `within`.
pub async fn within<T>(
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(instead) if began.elapsed() > within => return Err(instead),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Awaits `work`, and panics when it takes longer than `within`: a test that hangs says nothing.
pub async fn finish<T>(what: &str, within: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(within, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not over within {within:?}"),
    }
}
