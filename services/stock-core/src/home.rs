//! What home keeps of a basket over several shards beside the reservation itself.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{ReservationId, Stamp};
use crate::memory::RequestKey;
use crate::outcome::Prepared;
use crate::reservation::{Reservation, ReservationLines, State};
use crate::sku::Sku;

/// The participants of a reservation, and how far each has followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Stock shards of the cluster.
    pub(crate) shards: u32,
    /// Counts what home has decided of units; 0: nothing yet.
    pub(crate) version: u32,
    /// When the edge asked for what was prepared last: a participant may hold a part for a while
    /// after it.
    pub(crate) asked_at: Stamp,
    /// By their numbers.
    pub(crate) participants: SmallVec<[Participant; 4]>,
    /// What is not decided yet.
    pub(crate) undecided: Option<Box<Undecided>>,
}

/// A shard that has, or may have, a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Participant {
    pub(crate) shard: u32,
    /// It has acknowledged this version.
    pub(crate) followed: u32,
}

/// The next version, of which home has yet to learn whether every part is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undecided {
    pub(crate) since: Stamp,
    /// Whose answer it will be.
    pub(crate) request: RequestKey,
    /// Those who were asked to hold something.
    pub(crate) asked: SmallVec<[u32; 4]>,
    /// A participant has asked since, or has lost something: home itself tells what it decides.
    pub(crate) is_to_be_told: bool,
    /// What an amendment makes of the reservation; none: it is being reserved.
    pub(crate) amendment: Option<Amendment>,
}

/// A reservation as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Amendment {
    pub(crate) lines: ReservationLines,
    pub(crate) expires_at: Option<Stamp>,
    /// What home holds for it meanwhile beyond what is open: of each position the larger of what it
    /// had and will have.
    pub(crate) extras: ReservationLines,
}

/// Which SKUs of a reservation are home's own: all of them, if it does not reach over shards.
pub(crate) fn own_lines(id: &ReservationId, shards: Option<u32>) -> impl Fn(&Sku) -> bool + use<> {
    let home = id.shard();
    move |sku| shards.is_none_or(|shards| sku.shard(shards) == home)
}

/// Bytes that a spread takes, about...
const BYTES: usize = 96;
/// ...each of its participants, in the spread and among those who are owed something...
const PARTICIPANT_BYTES: usize = 64;
/// ...what is undecided...
const UNDECIDED_BYTES: usize = 160;
/// ...and a line of an amendment, or the names of one that is not home's own.
const LINE_BYTES: usize = 96;

impl Spread {
    pub(crate) fn new(shards: u32) -> Self {
        Self {
            shards,
            version: 0,
            asked_at: Stamp(0),
            participants: SmallVec::new(),
            undecided: None,
        }
    }

    /// Whether a SKU's stock is in the reservation's home.
    pub(crate) fn is_home(&self, id: &ReservationId, sku: &Sku) -> bool {
        sku.shard(self.shards) == id.shard()
    }

    /// Whether somebody has yet to be told what was decided, or it is not decided.
    pub(crate) fn owes(&self) -> bool {
        self.undecided.is_some() || self.owed().next().is_some()
    }

    /// Who has yet to be told, which is nobody before it is decided.
    pub(crate) fn owed(&self) -> impl Iterator<Item = u32> {
        let version = match self.undecided {
            Some(_) => 0,
            None => self.version,
        };
        let behind = move |it: &&Participant| it.followed < version;
        self.participants.iter().filter(behind).map(|it| it.shard)
    }

    /// Takes shards in that may come to have a part. What was decided so far is nothing to them.
    pub(crate) fn join(&mut self, shards: impl Iterator<Item = u32>) {
        let followed = self.version;
        for shard in shards {
            let places = self
                .participants
                .binary_search_by_key(&shard, |it| it.shard);
            if let Err(at) = places {
                let participant = Participant { shard, followed };
                self.participants.insert(at, participant);
            }
        }
    }

    /// What participants have is what home has decided.
    pub(crate) fn all_have_followed(&mut self) {
        for participant in &mut self.participants {
            participant.followed = self.version;
        }
    }

    /// These participants are told what is decided, though they may have followed. Says whether
    /// there are any.
    pub(crate) fn tell_anew(&mut self, is_meant: impl Fn(u32) -> bool) -> bool {
        let mut are_any = false;
        for participant in &mut self.participants {
            if is_meant(participant.shard) {
                participant.followed = 0;
                are_any = true;
            }
        }
        if let Some(undecided) = &mut self.undecided {
            undecided.is_to_be_told |= are_any;
        }
        are_any
    }

    /// What is undecided, for whoever is to bring it to its end.
    pub(crate) fn prepared(&self, reservation: &Arc<Reservation>) -> Option<Prepared> {
        let undecided = self.undecided.as_ref()?;
        // It may have ended meanwhile; what was asked for had its outcome before.
        let reservation = match &undecided.amendment {
            None if reservation.state.is_open() => Arc::clone(reservation),
            None => Arc::new(reservation.as_held()),
            Some(amendment) => Arc::new(amendment.made_of(reservation)),
        };
        Some(Prepared {
            reservation,
            version: self.version + 1,
            asked_at: self.asked_at,
            shards: self.shards,
            asked: undecided.asked.to_vec(),
        })
    }

    pub(crate) fn bytes(&self, lines: usize) -> usize {
        let undecided = self.undecided.as_ref().map_or(0, |undecided| {
            let amendment = undecided.amendment.as_ref();
            let lines = amendment.map_or(0, |it| it.lines.len() + it.extras.len());
            UNDECIDED_BYTES + LINE_BYTES * lines
        });
        BYTES + PARTICIPANT_BYTES * self.participants.len() + undecided + LINE_BYTES * lines
    }
}

impl Amendment {
    /// The reservation as the amendment makes it.
    pub(crate) fn made_of(&self, reservation: &Reservation) -> Reservation {
        Reservation {
            state: State::Held,
            lines: self.lines.clone(),
            expires_at: self.expires_at,
            ..reservation.clone()
        }
    }
}
