//! What a shard answers. Every way a command can end has a name here.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::basket::{Follow, HeldBasket};
use crate::ids::{Location, ReservationId, Stamp};
use crate::reservation::{Reservation, State};
use crate::sku::Sku;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reservation as it is after the command.
    Reservation(Arc<Reservation>),
    /// The basket was not held; nothing changed.
    Shortage(Arc<Shortage>),
    /// Home has done its part of a basket over several shards. What becomes of it depends on the
    /// others, whom whoever asked has to ask.
    Prepared(Arc<Prepared>),
    /// Nothing changed: the reservation is being prepared by another request, whose outcome has to
    /// be found out first.
    Undecided(Arc<Prepared>),
    /// To what shards tell each other.
    Basket(BasketOutcome),
    /// The position's policy as it is now.
    Policy(Policy),
    /// A verdict for each line of a document, in order.
    Movements(Box<[LineVerdict]>),
    /// Nothing changed.
    Refused(Refusal),
}

/// Why a basket was not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Every line that is short.
    pub lines: Vec<ShortLine>,
    /// What is in its way.
    pub in_the_way: InTheWay,
}

/// What is in the way of a basket over several shards. Of two undecided ones in each other's way
/// one goes first. That is not looked for where a basket is in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InTheWay {
    /// There is not enough of something, whatever undecided baskets come to.
    Stock,
    /// Undecided ones with earlier ids: they go first.
    Earlier,
    /// Undecided ones with later ids, or such as were left behind: this one can wait for them.
    Later,
}

/// A line that is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortLine {
    /// Of this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// What the basket asks for there in all.
    pub requested: i64,
    /// On hand - reserved - safety stock.
    pub available: i64,
    /// What could have been held.
    pub reservable: i64,
}

/// A position's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Units that no channel may sell.
    pub safety_stock: i64,
    /// How far available may go below zero.
    pub backorder_limit: i64,
    /// What this leaves available.
    pub available: i64,
    /// Set when this took available too low.
    pub discrepancy: Option<Box<Discrepancy>>,
}

/// What became of a movement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineVerdict {
    /// It counts.
    Recorded {
        /// Set where it took available too low.
        discrepancy: Option<Box<Discrepancy>>,
        /// By how many milliseconds its `occurred_at` lay ahead of the clocks, where that was more
        /// than [`CLOCK_AHEAD_MS_MAX`](crate::limits::CLOCK_AHEAD_MS_MAX); else 0. It counts as
        /// having happened now.
        ahead_ms: u64,
    },
    /// It counted before; nothing changed.
    AlreadyRecorded {
        /// As it was said then.
        discrepancy: Option<Box<Discrepancy>>,
    },
    /// It does not count; nothing changed.
    Refused(Refusal),
}

/// A fact took available below what the policy allows: somebody may not get what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discrepancy {
    /// Of this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// What is available now.
    pub available: i64,
    /// How far that is below the backorder limit.
    pub short_by: i64,
    /// The reservations held last there whose open units cover `short_by`, newest first. Each is
    /// named once by a command; at most [`ENDANGERED_MAX`](crate::limits::ENDANGERED_MAX) of a
    /// position, and [`ENDANGERED_PER_CALL_MAX`](crate::limits::ENDANGERED_PER_CALL_MAX) in all.
    pub endangered: Vec<ReservationId>,
}

impl Discrepancy {
    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of::<ReservationId>() * self.endangered.len()
    }
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request id is older than what is remembered.
    RequestTooOld {
        /// What is remembered begins here.
        horizon: Stamp,
    },
    /// The time inside the request id lies too far ahead of cluster time.
    RequestFromFuture,
    /// The request id was used for another kind of call, or with another content.
    RequestReused,
    /// As many request ids are remembered as may be, and the oldest is too young to be forgotten.
    RequestMemoryFull,
    /// As many document lines are remembered as may be.
    DocumentMemoryFull,
    /// The movement happened before what is remembered of documents.
    DocumentTooOld {
        /// What is remembered begins here.
        horizon: Stamp,
    },
    /// The document's line was recorded with another content.
    DocumentReused,
    /// The movement claims to happen more than a day from now.
    OccurredInFuture,
    /// No receipt and no policy ever named this SKU.
    UnknownSku {
        /// The line that names it.
        line: u32,
    },
    /// There is no such reservation, or it ended too long ago to be remembered.
    UnknownReservation,
    /// The reservation is in a state that does not allow this.
    WrongState {
        /// The state it is in.
        state: State,
    },
    /// The reservation has no expiry that could be extended.
    NothingToExtend,
    /// The reservation has no such line.
    LineNotInReservation {
        /// The line of the command.
        line: u32,
    },
    /// The reservation has this SKU at several locations, and the line names none.
    LineAmbiguous {
        /// The line of the command.
        line: u32,
    },
    /// The line names more units than are open.
    LineExceedsOpen {
        /// The line of the command.
        line: u32,
        /// What is open.
        open: i64,
    },
    /// A counter would leave its range.
    CounterOutOfRange {
        /// The line of the command.
        line: u32,
    },
    /// The shard has as many open reservations as it may.
    TooManyReservations,
    /// The shard has as many positions as it may.
    TooManyPositions,
    /// The cluster has as many locations as it may.
    TooManyLocations,
    /// A reservation of this id exists; the edge makes another and tries again.
    ReservationIdTaken,
    /// More than [`ASKED_WITHIN_MS`](crate::limits::ASKED_WITHIN_MS) have passed since the edge
    /// asked for a basket over several shards, or another shard has found that it never came.
    TooLate,
    /// The shard lost something, and has yet to hear what others have there.
    Reconciling,
    /// Not all shards of the basket held their part in time, and none will.
    NotHeldInTime,
}

/// Why a part is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotHeld {
    /// Some of its lines are short.
    Short(Arc<Shortage>),
    /// It may not be held.
    Refused(Refusal),
    /// It was not held in time, or was given back before home had decided.
    Gone,
}

/// What a shard answers to what it is told of a basket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BasketOutcome {
    /// To [`HoldPart`] and [`Probe`]: the part is held for this version.
    Held,
    /// To them: it is not, and never will be.
    NotHeld(NotHeld),
    /// To them: home has decided this version, or one that came later.
    Over,
    /// To [`Follow`], [`Decide`], [`AllHeld`] and [`Acknowledge`]: it is done, or was before.
    Done,
    /// To [`Follow`]: there is no part that could follow.
    Missing,
    /// To [`Ask`]: home knows the reservation, and will tell.
    Known,
    /// To [`Ask`]: it has ended, or home never held it and never will. The part follows this.
    Ended(Box<Follow>),
    /// To [`TellAnew`]: there is more to tell. [`Self::Done`]: there is not.
    Telling,
    /// To [`Decide`]: the basket is held, which its participants have yet to be told.
    AllHeld(Box<ToBeTold>),
}

/// That a basket is held, and who has parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToBeTold {
    /// What there is to be told.
    pub basket: HeldBasket,
    /// Whom, by their numbers.
    pub participants: SmallVec<[u32; 4]>,
}

/// What home has prepared and not decided yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// As it will be if every part is held.
    pub reservation: Arc<Reservation>,
    /// Which version of it that is.
    pub version: u32,
    /// As home was told.
    pub asked_at: Stamp,
    /// Stock shards of the cluster, by which its lines are divided.
    pub shards: u32,
    /// The participants that have to hold more than they do.
    pub asked: Vec<u32>,
}
