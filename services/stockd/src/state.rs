//! What the log of a group makes: a shard's stock, or what the whole cluster shares.

use stock_core::{
    Catalog, CatalogRestorer, FrozenState, RestoreError, Shard, ShardRestorer, StateRestorer,
};

use crate::worker::event::GroupId;

/// The state machine of a group.
#[derive(Debug)]
pub enum State {
    /// Of a stock shard.
    Stock(Box<Shard>),
    /// Of group 0.
    Catalog(Box<Catalog>),
}

impl State {
    /// As it is before the first entry.
    pub fn new(group: GroupId) -> Self {
        match group.shard() {
            Some(_) => Self::Stock(Box::default()),
            None => Self::Catalog(Box::default()),
        }
    }

    /// As it is now, to be written down by somebody else. Takes microseconds, whatever the size.
    pub fn freeze(&self) -> FrozenState {
        match self {
            Self::Stock(shard) => shard.freeze(),
            Self::Catalog(catalog) => catalog.freeze(),
        }
    }
}

/// Brings back the state of a group from its head and its buckets, in their order.
pub struct Restoring {
    restorer: Restorer,
    buckets: usize,
}

enum Restorer {
    Stock(ShardRestorer),
    Catalog(CatalogRestorer),
}

impl Restoring {
    /// From the head.
    pub fn new(group: GroupId, head: &[u8]) -> Result<Self, RestoreError> {
        Ok(Self {
            restorer: match group.shard() {
                Some(_) => Restorer::Stock(ShardRestorer::new(head)?),
                None => Restorer::Catalog(CatalogRestorer::new(head)?),
            },
            buckets: 0,
        })
    }

    /// Takes the next bucket.
    pub fn bucket(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let number = self.buckets;
        self.buckets += 1;
        match &mut self.restorer {
            Restorer::Stock(restorer) => restorer.bucket(number, bytes),
            Restorer::Catalog(restorer) => restorer.bucket(number, bytes),
        }
    }

    /// The state.
    pub fn finish(self) -> Result<State, RestoreError> {
        Ok(match self.restorer {
            Restorer::Stock(restorer) => State::Stock(Box::new(restorer.finish()?)),
            Restorer::Catalog(restorer) => State::Catalog(Box::new(restorer.finish()?)),
        })
    }
}
