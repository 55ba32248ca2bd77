//! A replica that is written down and brought back, again and again.

use stock_core::{FrozenState, RestoreError, Shard, ShardRestorer, StateRestorer};

use crate::SECRET;

/// The bytes of a state: the head and every bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) head: Vec<u8>,
    pub(crate) buckets: Vec<Vec<u8>>,
}

impl Written {
    pub(crate) fn of(frozen: &FrozenState) -> Self {
        let bytes = |bucket| frozen.bucket_bytes(bucket).unwrap();
        Self {
            head: frozen.head_bytes().to_vec(),
            buckets: (0..frozen.buckets()).map(bytes).collect(),
        }
    }

    /// The buckets come backwards: their order is none of the restorer's business.
    pub(crate) fn restore(&self) -> Result<Shard, RestoreError> {
        let mut restorer = ShardRestorer::new(&self.head)?;
        for (number, bytes) in self.buckets.iter().enumerate().rev() {
            restorer.bucket(number, bytes)?;
        }
        restorer.finish()
    }
}

/// The replica, and what was frozen at its last restart.
pub(crate) struct Restarted {
    pub(crate) shard: Shard,
    before: Option<(FrozenState, Written, u128)>,
}

impl Restarted {
    pub(crate) fn new() -> Self {
        Self {
            shard: Shard::new(SECRET),
            before: None,
        }
    }

    /// Goes on from its own bytes; by then what was frozen before must still be what it was.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        if let Some((mut frozen, written, hash)) = self.before.take() {
            for (number, bytes) in written.buckets.iter().enumerate() {
                if frozen.take_bucket(number).as_ref() != Some(bytes) {
                    return Err(format!("bucket {number} has changed since it was frozen"));
                }
                if frozen.take_bucket(number).is_some() {
                    return Err(format!("bucket {number} is taken twice"));
                }
            }
            if frozen.hash() != hash {
                return Err("the hash changed when the buckets were taken".to_string());
            }
        }
        let written = Written::of(&self.shard.freeze());
        let restored = written.restore().map_err(|error| error.to_string())?;
        let counts = self.shard.counts();
        if restored.counts() != counts || restored.next_expiry() != self.shard.next_expiry() {
            return Err(format!("{:?} instead of {counts:?}", restored.counts()));
        }
        self.shard = restored;
        let frozen = self.shard.freeze();
        if Written::of(&frozen) != written {
            return Err("what was restored has other bytes".to_string());
        }
        let hash = frozen.hash();
        self.before = Some((frozen, written, hash));
        Ok(())
    }
}
