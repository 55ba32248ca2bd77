//! What shards are told when those who asked have their answers. Nobody waits for it, and nothing
//! depends on it: what finds no room is found out by the shards' leaders.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stock_node::basket::ANSWERED_WITHIN_MS;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Commands of a node that are told afterwards, at one time.
const COMMANDS_MAX: usize = 16 * 1024;

/// They take their room for no longer than this.
const ANSWERED_WITHIN: Duration = Duration::from_millis(ANSWERED_WITHIN_MS);

/// Room for them.
pub(super) struct Afterwards(Arc<Semaphore>);

impl Default for Afterwards {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(COMMANDS_MAX)))
    }
}

impl Afterwards {
    /// Has so many commands told, if there is room.
    pub(super) fn tell(&self, commands: usize, tell: impl Future<Output = ()> + Send + 'static) {
        let room = Arc::clone(&self.0).try_acquire_many_owned(commands as u32);
        let Ok(room) = room else {
            metrics::counter!("stockd_baskets_left_to_leaders_total").increment(1);
            return;
        };
        tokio::spawn(async move {
            let _room = room;
            // What has no answer by then is left to the leaders, too.
            drop(timeout(ANSWERED_WITHIN, tell).await);
        });
    }
}
