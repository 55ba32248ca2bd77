//! Bringing a state back from its canonical bytes.

mod catalog;
mod shard;

pub use catalog::CatalogRestorer;
pub use shard::ShardRestorer;

use crate::codec::{OrderHead, Read, Reader};
use crate::error::{Part, RestoreError};
use crate::ids::Stamp;
use crate::order::{Disorder, Order, Place};

/// Makes a state from its canonical bytes: first the head, then every bucket once, in any order.
///
/// ```text
/// let mut restorer = ShardRestorer::new(head)?;
/// for (number, bytes) in buckets {
///     restorer.bucket(number, bytes)?;
/// }
/// let shard = restorer.finish()?;
/// ```
///
/// Total, like `apply`: bytes from anywhere give an error at worst. What comes back writes the very
/// bytes it was read from. After an error the restorer is of no use.
pub trait StateRestorer: Sized {
    /// What is made.
    type State;

    /// Reads the head.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Unreadable`], also for another version or another kind of state.
    fn new(head: &[u8]) -> Result<Self, RestoreError>;

    /// How many buckets the state needs, numbered from 0.
    fn buckets(&self) -> usize;

    /// Reads one bucket.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Unreadable`], or a bucket that does not exist or was there before.
    fn bucket(&mut self, number: usize, bytes: &[u8]) -> Result<(), RestoreError>;

    /// Puts the buckets together.
    ///
    /// # Errors
    ///
    /// A bucket is missing, or the parts contradict each other.
    fn finish(self) -> Result<Self::State, RestoreError>;
}

/// Reads a part to its end. `now` is the latest stamp that may be in it.
fn read_part<T>(
    part: Part,
    bytes: &[u8],
    now: Stamp,
    read: impl FnOnce(&mut Reader<'_>) -> Read<T>,
) -> Result<T, RestoreError> {
    let mut reader = Reader::of_state(bytes, now);
    let result = read(&mut reader).and_then(|made| reader.end().map(|()| made));
    result.map_err(|flaw| RestoreError::Unreadable {
        part,
        at: reader.position(),
        flaw,
    })
}

/// Which buckets were given.
#[derive(Debug)]
struct Given {
    buckets: Box<[bool]>,
}

impl Given {
    fn none_of(buckets: usize) -> Self {
        Self {
            buckets: vec![false; buckets].into(),
        }
    }

    fn take(&mut self, bucket: usize) -> Result<(), RestoreError> {
        match self.buckets.get_mut(bucket) {
            None => Err(RestoreError::NoSuchBucket { bucket }),
            Some(true) => Err(RestoreError::BucketTwice { bucket }),
            Some(given) => {
                *given = true;
                Ok(())
            }
        }
    }

    fn check(&self) -> Result<(), RestoreError> {
        match self.buckets.iter().position(|given| !given) {
            Some(bucket) => Err(RestoreError::BucketMissing { bucket }),
            None => Ok(()),
        }
    }
}

fn check_count(what: &'static str, head: u64, buckets: usize) -> Result<(), RestoreError> {
    let buckets = buckets as u64;
    match head == buckets {
        true => Ok(()),
        false => Err(RestoreError::CountDiffers {
            what,
            head,
            buckets,
        }),
    }
}

fn restored_order<K>(
    what: &'static str,
    head: OrderHead,
    records: Vec<(Place, K)>,
) -> Result<Order<K>, RestoreError> {
    check_count(what, head.len, records.len())?;
    Order::restore(records, head.next).map_err(|disorder| broken_order(what, disorder))
}

fn broken_order(what: &'static str, disorder: Disorder) -> RestoreError {
    RestoreError::OrderBroken {
        what,
        sequence: disorder.sequence,
    }
}
