//! A basket over several shards: what its shards are told, and what they answer.
//!
//! *Home* is the shard that the reservation's id carries. It has the whole reservation, holds the
//! lines that are its own, and decides alone. Each other shard with lines of it, a *participant*,
//! has a *part*: its own lines, under the same id.
//!
//! ```text
//! to home          Reserve, Amend   over shards: own lines are held, all of them written down
//!                  Decide           every part is held, or one is not and never will be
//!                  Acknowledge      a participant has followed
//!                  Ask              what became of this?
//!                  Recovered        its group goes on without what it has lost
//!                  ToldAnew         another shard has told all that it had to
//! to all others    TellAnew         a group goes on without what it has lost: tell it, and ask it
//! to participants  HoldPart         hold these lines, for this version
//!                  AllHeld          so do all the others
//!                  Probe            is that held? if not, it never will be
//!                  Follow           what is open of each line now, as of a version
//! ```
//!
//! None of these has an effect when it comes a second time, or after what was said later. The
//! rules, and why they are right, are in ARCHITECTURE.md ("A basket over shards").

use crate::ids::{Location, Quantity, ReservationId, Stamp};
use crate::outcome::NotHeld;
use crate::reservation::ReservationLine;
use crate::sku::Sku;

/// So many units of one SKU at one location.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Line {
    pub sku: Sku,
    pub location: Location,
    pub quantity: Quantity,
}

/// What a reserve or an amendment needs to reach over shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Stock shards of the cluster: says whose a line is.
    pub shards: u32,
    /// When the edge asked, by cluster time as it knew it. Home and participants begin nothing that
    /// was asked for more than [`ASKED_WITHIN_MS`](crate::limits::ASKED_WITHIN_MS) ago.
    pub asked_at: Stamp,
    /// Whether a shortage stands though undecided baskets alone cause it. Otherwise it is not
    /// remembered, and is tried again.
    pub is_last_try: bool,
}

/// What shards tell each other of a basket that they share.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's type says it")]
pub enum BasketCommand {
    HoldPart(HoldPart),
    Probe(Probe),
    Follow(Follow),
    Decide(Decide),
    Acknowledge(Acknowledge),
    Ask(Ask),
    Recovered(Recovered),
    TellAnew(TellAnew),
    ToldAnew(ToldAnew),
    AllHeld(AllHeld),
}

/// Hold the lines of a participant, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldPart {
    /// Of this reservation.
    pub id: ReservationId,
    /// The version that home has not decided yet: 1 as the basket is reserved.
    pub version: u32,
    /// As home was told.
    pub asked_at: Stamp,
    /// Those of the basket that are the participant's, in the basket's order. Of a position of
    /// which it holds some already it holds the larger number until home has decided.
    pub lines: Vec<NumberedLine>,
    /// As of [`Over::is_last_try`].
    pub is_last_try: bool,
}

/// A line, and which of the basket's it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedLine {
    /// From 0.
    pub number: u32,
    /// What it says.
    pub line: Line,
}

/// Whether a part is held; from now on it never will be if it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Of this reservation.
    pub id: ReservationId,
    /// This is asked.
    pub question: Question,
    /// As home was told: until when a part might still be held.
    pub asked_at: Stamp,
}

/// What participants are asked about a reservation while home has not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Whether they hold their part as of this version.
    pub version: u32,
    /// At home it has ended before it was known whether it was held at all: nothing has left any
    /// shelf for it, and nothing will. Parts of it are known until home tells, and hold nothing.
    pub has_ended: bool,
}

/// What a part shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Of this reservation.
    pub id: ReservationId,
    /// Home had decided so much by then. What is as old, or older, than what the participant has
    /// heard changes nothing.
    pub version: u32,
    /// As home was told last: until when a part might still be held.
    pub asked_at: Stamp,
    /// Every line, with all that ever became of it.
    pub lines: Vec<ReservationLine>,
    /// When the participant asks next, if it hears nothing until then.
    pub ask_at: Stamp,
    /// Whether the part is made anew if it is not there, as after a group was recovered with
    /// losses.
    pub anew: bool,
}

impl Follow {
    /// That home never held it, and never will, as of a version.
    pub fn gone(id: ReservationId, version: u32, asked_at: Stamp) -> Self {
        Self {
            id,
            version,
            asked_at,
            lines: Vec::new(),
            ask_at: Stamp(0),
            anew: false,
        }
    }
}

/// What has become of what home prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decide {
    /// Of this reservation.
    pub id: ReservationId,
    /// The version that was prepared. One that is decided already stays as it is.
    pub version: u32,
    /// Every part is held; or one is not, which its shard has committed.
    pub decision: Decision,
}

/// See [`Decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Home and every part are committed as held.
    Held,
    /// A part was committed as not held. So says every retry from now on.
    NotHeld(NotHeld),
}

/// These baskets are held by all of their shards. So home has decided, and nothing of them has
/// changed by then: what a participant has for them is what it shall have. Whoever had home decide
/// passes that on, and nobody depends on it: a participant that is not told asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllHeld {
    /// Of which the shard has parts.
    pub baskets: Vec<HeldBasket>,
}

/// See [`AllHeld`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBasket {
    /// This reservation.
    pub id: ReservationId,
    /// As of this version.
    pub version: u32,
    /// When its participants ask next, if they hear nothing until then.
    pub ask_at: Stamp,
}

/// A participant has followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledge {
    /// Which.
    pub shard: u32,
    /// These reservations, up to these versions.
    pub followed: Vec<(ReservationId, u32)>,
}

/// What became of a reservation of which a participant has a part and has heard nothing for long.
/// Home tells it once more, and says at once what has ended; where home never heard of the
/// reservation it never will hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Of this reservation.
    pub id: ReservationId,
    /// The participant that asks.
    pub shard: u32,
    /// When its part was asked for.
    pub asked_at: Stamp,
}

/// The group of this shard goes on without what it has lost: the first that a recovery writes into
/// its log. Until every other shard has told what it has here, nothing of its stock is held for
/// anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// This shard.
    pub shard: u32,
    /// Stock shards of the cluster.
    pub shards: u32,
}

/// That group goes on without what it has lost: what is at home here is told to it once more, and
/// it is asked about every part whose home it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TellAnew {
    /// The group's recovery of this number.
    pub recovery: u32,
    /// Whose group it is.
    pub shard: u32,
}

/// Another shard has told everything again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldAnew {
    /// After the recovery of this number of the own group.
    pub recovery: u32,
    /// Which.
    pub shard: u32,
}
