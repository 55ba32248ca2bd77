//! The network between the nodes: one connection for each pair, as `stockd/src/peers` keeps it.
//!
//! By default a connection is TCP's: what arrives is in order and without holes, a way that is
//! blocked keeps what was sent until it is free again, and what is under way is lost only when the
//! connection breaks. A run may also lose, double and reorder frames inside a connection.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::dice::Dice;
use super::faults::{FaultKind, Occurrences};
use super::plan::Plan;

/// A connection between two nodes; each new one has a number of its own.
pub(crate) type ConnectionId = u64;

/// From one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Way {
    pub(crate) fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}

/// A frame that will arrive, if its connection stands then.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at_us: u64,
    pub(crate) way: Way,
    pub(crate) connection: ConnectionId,
    pub(crate) frame: Bytes,
}

#[derive(Default)]
struct WayState {
    is_blocked: bool,
    slower_by_us: u64,
    last_arrival_us: u64,
    /// What waits for a blocked way to be free.
    stalled: Vec<Bytes>,
}

/// All connections.
pub(crate) struct Network {
    delay_us: (u64, u64),
    loss_per_mille: u64,
    duplicate_per_mille: u64,
    reorder_per_mille: u64,
    connections: BTreeMap<(u64, u64), ConnectionId>,
    next_connection: ConnectionId,
    ways: BTreeMap<Way, WayState>,
    dice: Dice,
}

fn pair(way: Way) -> (u64, u64) {
    (way.from.min(way.to), way.from.max(way.to))
}

impl Network {
    pub(crate) fn new(plan: &Plan, dice: Dice) -> Self {
        Self {
            delay_us: plan.delay_us,
            loss_per_mille: plan.loss_per_mille,
            duplicate_per_mille: plan.duplicate_per_mille,
            reorder_per_mille: plan.reorder_per_mille,
            connections: BTreeMap::new(),
            next_connection: 1,
            ways: BTreeMap::new(),
            dice,
        }
    }

    /// Sends a frame over a connection. It is lost if another one has taken its place.
    pub(crate) fn send(
        &mut self,
        now_us: u64,
        way: Way,
        connection: ConnectionId,
        frame: Bytes,
        tally: &mut Occurrences,
    ) -> Vec<Arrival> {
        if self.connections.get(&pair(way)) != Some(&connection) {
            return Vec::new();
        }
        let state = self.ways.entry(way).or_default();
        if state.is_blocked {
            state.stalled.push(frame);
            return Vec::new();
        }
        if self.dice.chance(self.loss_per_mille) {
            tally.add(FaultKind::Loss.name());
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(now_us, way, connection, frame, tally)];
        if self.dice.chance(self.duplicate_per_mille) {
            tally.add(FaultKind::Duplicate.name());
            let frame = arrivals[0].frame.clone();
            arrivals.push(self.arrival(now_us, way, connection, frame, tally));
        }
        arrivals
    }

    /// Whether a frame that has come this far gets to the node; a blocked way keeps it.
    pub(crate) fn arrives(&mut self, arrival: &Arrival) -> bool {
        if self.connections.get(&pair(arrival.way)) != Some(&arrival.connection) {
            return false;
        }
        let state = self.ways.entry(arrival.way).or_default();
        if state.is_blocked {
            state.stalled.push(arrival.frame.clone());
        }
        !state.is_blocked
    }

    /// Makes a connection where none is and both ways are free. Nothing sent over it arrives before
    /// `from_us`.
    pub(crate) fn connect(&mut self, way: Way, from_us: u64) -> Option<ConnectionId> {
        if !self.is_free(way) || self.connections.contains_key(&pair(way)) {
            return None;
        }
        let connection = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(pair(way), connection);
        for way in [way, way.back()] {
            let state = self.ways.entry(way).or_default();
            state.last_arrival_us = from_us;
            state.stalled.clear();
        }
        Some(connection)
    }

    /// Breaks the connection of a pair, if there is one. What is under way is lost.
    pub(crate) fn disconnect(&mut self, way: Way) -> Option<ConnectionId> {
        for way in [way, way.back()] {
            if let Some(state) = self.ways.get_mut(&way) {
                state.stalled.clear();
            }
        }
        self.connections.remove(&pair(way))
    }

    /// Whether anything gets through, there and back.
    pub(crate) fn is_free(&self, way: Way) -> bool {
        let is_blocked = |way: &Way| self.ways.get(way).is_some_and(|state| state.is_blocked);
        ![way, way.back()].iter().any(is_blocked)
    }

    /// Whether a pair is connected.
    pub(crate) fn is_connected(&self, way: Way) -> bool {
        self.connections.contains_key(&pair(way))
    }

    /// Nothing gets through any more.
    pub(crate) fn block(&mut self, way: Way) {
        self.ways.entry(way).or_default().is_blocked = true;
    }

    /// A way is free again, and what it has kept goes on.
    pub(crate) fn free(&mut self, now_us: u64, way: Way, tally: &mut Occurrences) -> Vec<Arrival> {
        let state = self.ways.entry(way).or_default();
        state.is_blocked = false;
        let stalled = std::mem::take(&mut state.stalled);
        let Some(connection) = self.connections.get(&pair(way)).copied() else {
            return Vec::new();
        };
        stalled
            .into_iter()
            .map(|frame| self.arrival(now_us, way, connection, frame, tally))
            .collect()
    }

    /// Everything takes so much longer from here on.
    pub(crate) fn slow_down(&mut self, way: Way, by_us: u64) {
        self.ways.entry(way).or_default().slower_by_us = by_us;
    }

    /// Every way is free and as fast as it should be.
    pub(crate) fn heal(&mut self, now_us: u64, tally: &mut Occurrences) -> Vec<Arrival> {
        self.loss_per_mille = 0;
        self.duplicate_per_mille = 0;
        self.reorder_per_mille = 0;
        let ways: Vec<Way> = self.ways.keys().copied().collect();
        let mut arrivals = Vec::new();
        for way in ways {
            self.slow_down(way, 0);
            arrivals.extend(self.free(now_us, way, tally));
        }
        arrivals
    }

    fn arrival(
        &mut self,
        now_us: u64,
        way: Way,
        connection: ConnectionId,
        frame: Bytes,
        tally: &mut Occurrences,
    ) -> Arrival {
        let state = self.ways.entry(way).or_default();
        let delay_us = self.dice.skewed(self.delay_us.0, self.delay_us.1) + state.slower_by_us;
        let mut at_us = now_us + delay_us;
        if self.dice.chance(self.reorder_per_mille) {
            at_us += self.dice.between(0, 4 * self.delay_us.1);
            tally.add(FaultKind::Reorder.name());
        } else {
            at_us = at_us.max(state.last_arrival_us + 1);
            state.last_arrival_us = at_us;
        }
        Arrival {
            at_us,
            way,
            connection,
            frame,
        }
    }
}
