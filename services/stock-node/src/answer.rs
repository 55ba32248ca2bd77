//! What is asked of a group, and what comes of it.

use std::sync::Arc;

use smallvec::SmallVec;
use stock_cluster::RegistryOutcome;
use stock_core::{CatalogOutcome, Filter, Listed, Prepared, Reservation, ReservationId, Stamp};

/// How new a state must be for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As it is.
    Near,
    /// This index must be applied.
    AtLeast(u64),
    /// As new as any answer given before the question came.
    Linearizable {
        /// And this index must be applied, too.
        at_least: u64,
    },
}

impl Freshness {
    /// As new as any answer given before the question came, and no more than that.
    pub const LINEARIZABLE: Self = Self::Linearizable { at_least: 0 };

    /// The index that must be applied in any case.
    pub fn at_least(self) -> u64 {
        match self {
            Self::Near => 0,
            Self::AtLeast(index) | Self::Linearizable { at_least: index } => index,
        }
    }

    /// The same, and this index must be applied.
    #[must_use]
    pub fn and_at_least(self, index: u64) -> Self {
        match self {
            Self::Near if index == 0 => Self::Near,
            Self::Near => Self::AtLeast(index),
            Self::AtLeast(least) => Self::AtLeast(least.max(index)),
            Self::Linearizable { at_least } => Self::Linearizable {
                at_least: at_least.max(index),
            },
        }
    }
}

/// What a read asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Nothing but that the state is new enough: [`Answer::Reached`]. The read view then is, too.
    Reached,
    /// A reservation: [`Answer::Reservation`].
    Reservation(ReservationId),
    /// Some reservations of a shard: [`Answer::Listed`].
    List(Arc<Listing>),
}

/// Which reservations of a shard are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What is true of them.
    pub filter: Filter,
    /// Behind this one, or from the first on.
    pub after: Option<ReservationId>,
    /// At most so many are wanted.
    pub found_max: usize,
}

/// Reservations that are looked at for one question: other work of the loop waits for that, some
/// tens of microseconds.
pub const LOOKED_AT_MAX: usize = 512;

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// The commands were carried out.
    Outcomes(Applied),
    /// The state is new enough.
    Reached {
        /// What is applied.
        applied_index: u64,
    },
    /// The reservation, if it is known.
    Reservation {
        /// It.
        reservation: Option<Arc<Reservation>>,
        /// What is prepared of it, where it is open and something is not decided yet.
        undecided: Option<Arc<Prepared>>,
        /// What is applied.
        applied_index: u64,
        /// Cluster time now, as the replica that answers takes it to be.
        now: Stamp,
    },
    /// Reservations of a shard, as far as it was looked through.
    Listed {
        /// They, and whether there may be more.
        listed: Listed,
        /// What is applied.
        applied_index: u64,
        /// Cluster time now, as the replica that answers takes it to be.
        now: Stamp,
    },
    /// No answer.
    Failed(Failure),
}

/// What came of commands that travelled together.
#[derive(Debug)]
pub struct Applied {
    /// The index they were applied at.
    pub applied_index: u64,
    /// Cluster time then.
    pub stamp: Stamp,
    /// One for each command, in their order.
    pub outcomes: Outcomes,
}

impl Applied {
    /// What came of a command that travelled alone: without an outcome nobody knows.
    ///
    /// # Errors
    ///
    /// [`Failure::OutcomeUnknown`].
    pub fn only(self) -> Result<Outcome, Failure> {
        let first = self.outcomes.into_iter().next();
        first.ok_or(Failure::OutcomeUnknown)
    }
}

/// Most proposals are one command.
pub type Outcomes = SmallVec<[Outcome; 1]>;

/// How a command ended, in either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In a stock shard.
    Stock(stock_core::Outcome),
    /// In group 0: of the catalog.
    Catalog(CatalogOutcome),
    /// In group 0: of the registry.
    Registry(RegistryOutcome),
}

impl Outcome {
    /// What a stock shard says.
    ///
    /// # Errors
    ///
    /// [`Failure::OutcomeUnknown`] where it is not one that says it: whoever asks has asked another
    /// group than he means.
    pub fn of_stock(self) -> Result<stock_core::Outcome, Failure> {
        match self {
            Self::Stock(outcome) => Ok(outcome),
            Self::Catalog(_) | Self::Registry(_) => Err(Failure::OutcomeUnknown),
        }
    }

    /// What the catalog says.
    ///
    /// # Errors
    ///
    /// [`Failure::OutcomeUnknown`] where it is not the catalog that says it.
    pub fn of_catalog(self) -> Result<CatalogOutcome, Failure> {
        match self {
            Self::Catalog(outcome) => Ok(outcome),
            Self::Stock(_) | Self::Registry(_) => Err(Failure::OutcomeUnknown),
        }
    }
}

/// Why there is no answer. Except for `OutcomeUnknown` nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Another node leads the group, or none does yet.
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<u64>,
    },
    /// Too much waits already.
    Overloaded,
    /// The leader's disk is nearly full: what adds to it is refused, what only ends or keeps is
    /// not.
    DiskFull,
    /// The leader's memory is nearly used up, likewise.
    MemoryFull,
    /// Leadership changed on the way: the commands may or may not be carried out.
    OutcomeUnknown,
    /// The state did not become new enough in time.
    TooFarBehind,
}
