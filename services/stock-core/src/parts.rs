//! The parts of reservations whose home is another shard, and what will never be one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::basket::{Follow, HeldBasket};
use crate::buckets::Buckets;
use crate::ids::{Moment, Principal, ReservationId, Secret, Stamp};
use crate::limits::{ASKED_WITHIN_MS, FORGOTTEN_PER_ENTRY_MAX};
use crate::outcome::NotHeld;
use crate::reservation::ReservationLines;
use crate::timeline::Timeline;

/// What a shard knows of reservations that are at home elsewhere, and of those that would have been
/// at home here.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) buckets: Buckets<ReservationId, PartRecord, Timeline<ReservationId, PartRecord>>,
    /// When home is asked about each part: follows from the parts.
    pub(crate) asks: BTreeSet<(Stamp, ReservationId)>,
    /// When each tombstone has had its time: follows from them.
    pub(crate) ends: BTreeSet<(Stamp, ReservationId)>,
    pub(crate) held: usize,
    pub(crate) held_bytes: usize,
    pub(crate) tombstone_bytes: usize,
    pub(crate) tombstone_bytes_max: usize,
}

/// What is known of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartRecord {
    /// Lines of it are held here.
    Held(Arc<Part>),
    /// None are, nor will be.
    Tombstone(Box<Tombstone>),
}

/// The lines of a reservation that a participant holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: ReservationId,
    /// For whom.
    pub(crate) principal: Principal,
    /// When it was first held.
    pub(crate) created_at: Stamp,
    /// Until a while after this something of it may be held.
    pub(crate) asked_at: Stamp,
    /// What home has told of.
    pub(crate) told: u32,
    /// The latest version that something was held for. Home has decided it once it has told so
    /// much.
    pub(crate) held: u32,
    /// When home is asked what became of it.
    pub(crate) ask_at: Stamp,
    /// The latest version that is not held, and why.
    pub(crate) refused: Option<Box<(u32, NotHeld)>>,
    pub(crate) lines: ReservationLines,
}

/// That a part of these versions will never be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// This one, and all before.
    pub(crate) version: u32,
    /// From then on every attempt to hold it comes too late anyway.
    pub(crate) until: Stamp,
    /// Why the latest of them is not; none: home has decided it, or never will.
    pub(crate) why: Option<NotHeld>,
}

/// What a part takes, about, with its places among those of its bucket and those to be asked
/// about...
const BYTES: usize = 192;
/// ...each of its lines, with its place among the holders of its position...
const LINE_BYTES: usize = 72;
/// ...a tombstone...
const TOMBSTONE_BYTES: usize = 144;
/// ...and a line that it says was short.
const SHORT_LINE_BYTES: usize = 64;

impl PartRecord {
    /// What is held, if anything is.
    pub(crate) fn part(&self) -> Option<&Arc<Part>> {
        match self {
            Self::Held(part) => Some(part),
            Self::Tombstone(_) => None,
        }
    }
}

impl Part {
    /// Whether home has yet to tell what becomes of it.
    pub(crate) fn is_undecided(&self) -> bool {
        self.told < self.held
    }

    /// Whether home tells of a new version, and nothing changes by it.
    pub(crate) fn is_as_told(&self, follow: &Follow) -> bool {
        follow.version > self.told
            && follow.version >= self.held
            && self.refused.is_none()
            && self.lines[..] == follow.lines[..]
    }

    /// The version that was refused, and why.
    pub(crate) fn refused(&self) -> Option<(u32, &NotHeld)> {
        self.refused.as_ref().map(|refused| (refused.0, &refused.1))
    }

    pub(crate) fn bytes(&self) -> usize {
        let refused = self.refused();
        let refused = refused.map_or(0, |(_, why)| TOMBSTONE_BYTES + why.bytes());
        BYTES + LINE_BYTES * self.lines.len() + refused
    }
}

impl Tombstone {
    /// The version that was refused, and why.
    pub(crate) fn refused(&self) -> Option<(u32, &NotHeld)> {
        self.why.as_ref().map(|why| (self.version, why))
    }

    pub(crate) fn bytes(&self) -> usize {
        TOMBSTONE_BYTES + self.why.as_ref().map_or(0, NotHeld::bytes)
    }
}

impl NotHeld {
    /// Beyond its own size.
    fn bytes(&self) -> usize {
        match self {
            Self::Short(shortage) => SHORT_LINE_BYTES * shortage.lines.len(),
            Self::Refused(_) | Self::Gone => 0,
        }
    }
}

/// The end of the time in which something that was asked for at `asked_at` may be held.
pub(crate) fn over_at(asked_at: Stamp) -> Stamp {
    asked_at.plus_ms(ASKED_WITHIN_MS)
}

/// Whether it is too late to hold what was asked for at `asked_at`. Judged by the later of cluster
/// time and the wall clocks: it is too late no later than a tombstone, which goes by cluster time
/// alone, is forgotten. Since wall clocks may go back, it is so for good only by cluster time.
pub(crate) fn is_too_late(asked_at: Stamp, now: Moment) -> bool {
    now.latest() > over_at(asked_at)
}

/// Whether it is too soon: what the edge takes for the time is not to be believed.
pub(crate) fn is_too_soon(asked_at: Stamp, now: Moment) -> bool {
    asked_at > now.latest().plus_ms(ASKED_WITHIN_MS)
}

impl Parts {
    pub(crate) fn new(secret: Secret, buckets: usize, tombstone_bytes_max: usize) -> Self {
        Self {
            buckets: Buckets::new(secret, buckets),
            asks: BTreeSet::new(),
            ends: BTreeSet::new(),
            held: 0,
            held_bytes: 0,
            tombstone_bytes: 0,
            tombstone_bytes_max,
        }
    }

    pub(crate) fn get(&self, id: &ReservationId) -> Option<&PartRecord> {
        self.buckets.get(id)
    }

    pub(crate) fn part(&self, id: &ReservationId) -> Option<&Arc<Part>> {
        self.get(id).and_then(PartRecord::part)
    }

    pub(crate) fn tombstone(&self, id: &ReservationId) -> Option<&Tombstone> {
        match self.get(id) {
            Some(PartRecord::Tombstone(tombstone)) => Some(tombstone),
            Some(PartRecord::Held(_)) | None => None,
        }
    }

    /// Whether no more tombstones find room, for what may as well be asked for later.
    pub(crate) fn is_full(&self) -> bool {
        self.tombstone_bytes >= self.tombstone_bytes_max
    }

    /// Keeps a part of which nothing was known.
    pub(crate) fn add(&mut self, part: Part) {
        self.held += 1;
        self.held_bytes += part.bytes();
        self.asks.insert((part.ask_at, part.id));
        let id = part.id;
        self.buckets.insert(id, PartRecord::Held(Arc::new(part)));
    }

    /// Keeps a part in place of whatever was known.
    pub(crate) fn put(&mut self, part: Part) {
        let Some(PartRecord::Held(known)) = self.buckets.get_mut(&part.id) else {
            self.remove(&part.id);
            return self.add(part);
        };
        self.held_bytes = self.held_bytes - known.bytes() + part.bytes();
        if known.ask_at != part.ask_at {
            self.asks.remove(&(known.ask_at, part.id));
            self.asks.insert((part.ask_at, part.id));
        }
        *known = Arc::new(part);
    }

    /// Keeps a tombstone in place of whatever was known, for as long as it is needed.
    pub(crate) fn bury(&mut self, id: ReservationId, tombstone: Tombstone, now: Stamp) {
        self.remove(&id);
        if tombstone.until < now {
            return;
        }
        self.tombstone_bytes += tombstone.bytes();
        self.ends.insert((tombstone.until, id));
        self.buckets
            .insert(id, PartRecord::Tombstone(Box::new(tombstone)));
    }

    /// A basket is held, this part of it included. What is held for a version that came later is
    /// asked about as before.
    pub(crate) fn all_held(&mut self, basket: &HeldBasket) {
        let HeldBasket {
            id,
            version,
            ask_at,
        } = *basket;
        let Some(PartRecord::Held(part)) = self.buckets.get_mut(&id) else {
            return;
        };
        // What was freed had ended before it was decided: home itself tells of that.
        let is_freed = part.lines.iter().all(|line| line.open == 0);
        if version <= part.told || version > part.held || is_freed {
            return;
        }
        let is_latest = version == part.held;
        if is_latest && part.ask_at != ask_at {
            self.asks.remove(&(part.ask_at, id));
            self.asks.insert((ask_at, id));
        }
        let before = part.bytes();
        let part = Arc::make_mut(part);
        part.told = version;
        if is_latest {
            part.ask_at = ask_at;
        }
        if part.refused().is_some_and(|it| it.0 <= version) {
            part.refused = None;
        }
        self.held_bytes = self.held_bytes - before + part.bytes();
    }

    /// Home has told of this version, in which nothing changes but when it is asked next.
    pub(crate) fn told(&mut self, id: &ReservationId, version: u32, ask_at: Stamp) {
        let Some(PartRecord::Held(part)) = self.buckets.get_mut(id) else {
            return;
        };
        if part.ask_at != ask_at {
            self.asks.remove(&(part.ask_at, *id));
            self.asks.insert((ask_at, *id));
        }
        let part = Arc::make_mut(part);
        (part.told, part.held, part.ask_at) = (version, version, ask_at);
    }

    /// Homes are asked about every part of theirs, and as soon as may be.
    pub(crate) fn ask_all(&mut self, is_home: impl Fn(u32) -> bool, now: Stamp) {
        let asks = self.asks.iter();
        let later = asks.filter(|(at, id)| *at > now && is_home(id.shard()));
        let later: Vec<(Stamp, ReservationId)> = later.copied().collect();
        for (at, id) in later {
            if let Some(PartRecord::Held(part)) = self.buckets.get_mut(&id) {
                self.asks.remove(&(at, id));
                self.asks.insert((now, id));
                Arc::make_mut(part).ask_at = now;
            }
        }
    }

    fn remove(&mut self, id: &ReservationId) {
        match self.buckets.get(id) {
            None => return,
            Some(PartRecord::Held(part)) => {
                self.held -= 1;
                self.held_bytes -= part.bytes();
                self.asks.remove(&(part.ask_at, *id));
            }
            Some(PartRecord::Tombstone(tombstone)) => {
                self.tombstone_bytes -= tombstone.bytes();
                self.ends.remove(&(tombstone.until, *id));
            }
        }
        self.buckets.remove(id);
    }

    /// Forgets tombstones that have had their time.
    pub(crate) fn forget(&mut self, now: Stamp) {
        for _ in 0..FORGOTTEN_PER_ENTRY_MAX {
            match self.ends.first() {
                Some(&(until, id)) if until < now => self.remove(&id),
                _ => break,
            }
        }
    }
}
