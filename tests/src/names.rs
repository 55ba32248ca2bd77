//! Names that no other test uses, so that tests can share a cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use stock_client::shard_of_sku;
use uuid::Uuid;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A name that begins with `prefix` and was never given out before in this process.
pub fn fresh(prefix: &str) -> String {
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A fresh SKU that lives in this shard.
pub fn sku_in(shard: u32, shards: u32, prefix: &str) -> String {
    loop {
        let sku = fresh(prefix);
        if shard_of_sku(&sku, shards) == shard {
            return sku;
        }
    }
}

/// A new request id, made now.
pub fn request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A new request id whose maker believed that it was this many milliseconds after 1970.
pub fn request_id_made_at(unix_ms: u64) -> String {
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &rand::random())
        .into_uuid()
        .to_string()
}
