//! What the log of a group makes: a shard's stock, or what the whole cluster shares.

use stock_cluster::{GroupId, Registry};
use stock_core::{
    Catalog, CatalogRestorer, FrozenState, Moment, RestoreError, Secret, Shard, ShardRestorer,
    StateRestorer,
};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// The state machine of a group.
#[derive(Debug)]
pub enum State {
    /// Of a stock shard.
    Stock(Box<Shard>),
    /// Of group 0.
    Meta(Box<Meta>),
}

/// What group 0 replicates.
#[derive(Debug)]
pub struct Meta {
    /// The locations.
    pub catalog: Catalog,
    /// The nodes, and what belongs where.
    pub registry: Registry,
}

/// A state as it was at one moment, to be written down while the state itself goes on: some
/// sections of bytes, in their order.
#[derive(Debug)]
pub struct Frozen {
    /// Group 0 only: its first section.
    registry: Option<Vec<u8>>,
    state: FrozenState,
    next: usize,
    has_head: bool,
}

/// Sections are no state of this version.
#[derive(Debug, Error)]
pub enum SectionError {
    /// Of stock, or of the catalog.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// Of the registry.
    #[error(transparent)]
    Registry(#[from] stock_cluster::RestoreError),
    /// There are fewer than there must be.
    #[error("the beginning of the state is missing")]
    Beginning,
}

impl State {
    /// As it is before the first entry, in a cluster with this secret.
    pub fn new(group: GroupId, secret: Secret) -> Self {
        match group.shard() {
            Some(_) => Self::Stock(Box::new(Shard::new(secret))),
            None => Self::Meta(Box::new(Meta {
                catalog: Catalog::new(secret),
                registry: Registry::default(),
            })),
        }
    }

    /// What the last entry applied says of time.
    pub fn moment(&self) -> Moment {
        match self {
            Self::Stock(shard) => shard.moment(),
            Self::Meta(meta) => meta.catalog.moment(),
        }
    }

    /// As it is now. Takes microseconds, whatever the size of a shard.
    pub fn freeze(&self) -> Frozen {
        let (registry, state) = match self {
            Self::Stock(shard) => (None, shard.freeze()),
            Self::Meta(meta) => (Some(meta.registry.freeze()), meta.catalog.freeze()),
        };
        Frozen {
            registry,
            state,
            next: 0,
            has_head: true,
        }
    }
}

impl Frozen {
    /// The next section, which is then given back: what changes meanwhile need not be copied in
    /// memory.
    pub fn next_section(&mut self) -> Option<Vec<u8>> {
        if let Some(registry) = self.registry.take() {
            return Some(registry);
        }
        if std::mem::take(&mut self.has_head) {
            return Some(self.state.head_bytes().to_vec());
        }
        let section = self.state.take_bucket(self.next)?;
        self.next += 1;
        Some(section)
    }
}

impl Frozen {
    /// One hash over all of it, equal on all replicas that have applied the same log, and the low
    /// half of each section's hash: of the registry, where there is one, and of every bucket.
    pub fn hash(&mut self) -> (u128, Vec<u64>) {
        let mut sections = Vec::new();
        let registry = self.registry.take().map(|registry| xxh3_128(&registry));
        sections.extend(registry.map(|hash| hash as u64));
        for bucket in 0..self.state.buckets() {
            // Given back as soon as it is hashed.
            self.state.take_bucket(bucket);
            sections.push(self.state.bucket_hash(bucket).unwrap_or(0) as u64);
        }
        let state = self.state.hash();
        let whole = registry.map_or(state, |registry| {
            xxh3_128(&[registry.to_le_bytes(), state.to_le_bytes()].concat())
        });
        (whole, sections)
    }
}

/// Brings back the state of a group from its sections.
pub struct Restoring {
    group: GroupId,
    registry: Option<Registry>,
    restorer: Option<Restorer>,
    buckets: usize,
}

enum Restorer {
    Stock(Box<ShardRestorer>),
    Catalog(Box<CatalogRestorer>),
}

impl Restoring {
    /// Of a group.
    pub fn new(group: GroupId) -> Self {
        Self {
            group,
            registry: None,
            restorer: None,
            buckets: 0,
        }
    }

    /// Takes the next section.
    pub fn section(&mut self, bytes: &[u8]) -> Result<(), SectionError> {
        if self.group == GroupId::META && self.registry.is_none() {
            self.registry = Some(Registry::restore(bytes)?);
            return Ok(());
        }
        let Some(restorer) = &mut self.restorer else {
            self.restorer = Some(match self.group.shard() {
                Some(_) => Restorer::Stock(Box::new(ShardRestorer::new(bytes)?)),
                None => Restorer::Catalog(Box::new(CatalogRestorer::new(bytes)?)),
            });
            return Ok(());
        };
        let number = self.buckets;
        self.buckets += 1;
        match restorer {
            Restorer::Stock(restorer) => restorer.bucket(number, bytes)?,
            Restorer::Catalog(restorer) => restorer.bucket(number, bytes)?,
        }
        Ok(())
    }

    /// The state.
    pub fn finish(self) -> Result<State, SectionError> {
        Ok(match self.restorer.ok_or(SectionError::Beginning)? {
            Restorer::Stock(restorer) => State::Stock(Box::new(restorer.finish()?)),
            Restorer::Catalog(restorer) => State::Meta(Box::new(Meta {
                catalog: restorer.finish()?,
                registry: self.registry.ok_or(SectionError::Beginning)?,
            })),
        })
    }
}
