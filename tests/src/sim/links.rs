//! Connections between nodes: they are made, they break, and both ends notice in their own time.

use stock_wire::cluster::v1 as cluster;

use super::disk::Ending;
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Happening, World};

/// Between two attempts to connect.
const REDIAL_AFTER_US: u64 = 100_000;

impl World {
    /// A node is gone: its connections break.
    pub(crate) fn lose_peers(&mut self, node: u64, ending: Ending) {
        for peer in self.nodes().into_iter().filter(|peer| *peer != node) {
            // Who is killed hangs up; who has no power says nothing.
            let noticed_after_us = match ending {
                Ending::Killed => self.pace.between(100, 5_000),
                Ending::PowerCut => self.pace.between(200_000, 3 * SECOND_US),
            };
            self.break_connection(
                Way {
                    from: node,
                    to: peer,
                },
                noticed_after_us,
            );
        }
    }

    /// A connection breaks, which both ends notice by themselves; then they connect again.
    pub(crate) fn break_connection(&mut self, way: Way, noticed_within_us: u64) {
        let Some(connection) = self.network.disconnect(way) else {
            return;
        };
        for (node, peer) in [(way.from, way.to), (way.to, way.from)] {
            let after_us = self.pace.between(100, noticed_within_us.max(200));
            let down = Happening::Down {
                node,
                peer,
                connection,
            };
            self.after(after_us, down);
        }
        let dialling = Way {
            from: way.from.max(way.to),
            to: way.from.min(way.to),
        };
        self.after(REDIAL_AFTER_US, Happening::Dial(dialling));
    }

    /// Two nodes connect, or will try again.
    pub(crate) fn dial(&mut self, way: Way) {
        if self.network.is_connected(way) {
            return;
        }
        let runs = |node: u64| {
            self.machines.get(&node).is_some_and(|machine| {
                machine.running.is_some() && machine.paused_until_us <= self.now_us
            })
        };
        let delays = [self.pace.between(100, 5_000), self.pace.between(100, 5_000)];
        let from_us = self.now_us + delays[0].max(delays[1]);
        let is_welcome = runs(way.from)
            && runs(way.to)
            && self.network.is_free(way)
            && self.network.is_free(way.back())
            && self.finds(way)
            && self.introduce(way);
        let connection = match is_welcome {
            true => self.network.connect(way, from_us),
            false => None,
        };
        let Some(connection) = connection else {
            let after_us = REDIAL_AFTER_US + self.pace.between(0, 10_000);
            self.after(after_us, Happening::Dial(way));
            self.be_dialled(way.back());
            return;
        };
        let ends = [(way.from, way.to), (way.to, way.from)];
        for ((node, peer), after_us) in ends.into_iter().zip(delays) {
            let up = Happening::Up {
                node,
                peer,
                connection,
            };
            self.after(after_us, up);
        }
    }

    /// Two nodes introduce themselves, as `stockd/src/peers/mod.rs` has them do. Whoever is refused
    /// acts upon it.
    pub(crate) fn introduce(&mut self, way: Way) -> bool {
        let hello = |world: &Self, node: u64| {
            let running = world.machines.get(&node)?.running.as_ref()?;
            Some(running.introductions.hello(cluster::Purpose::Frames))
        };
        let judge = |world: &Self, judge: u64, hello: &cluster::Hello| {
            let running = world.machines.get(&judge)?.running.as_ref()?;
            running.introductions.judge(hello, None).err()
        };
        let part = |world: &mut Self, node: u64| {
            let running = world.machines.get(&node).and_then(|it| it.running.as_ref());
            let overtaken = running.map(|running| running.introductions.overtaken());
            for peer in overtaken.into_iter().flatten() {
                world.break_connection(
                    Way {
                        from: node,
                        to: peer,
                    },
                    1_000,
                );
            }
        };
        let (Some(dials), Some(is_dialled)) = (hello(self, way.from), hello(self, way.to)) else {
            return false;
        };
        if let Some(refusal) = judge(self, way.to, &dials) {
            self.refused(way.from, way.to, &refusal);
            return false;
        }
        if let Some(refusal) = judge(self, way.from, &is_dialled) {
            self.refused(way.to, way.from, &refusal);
            return false;
        }
        part(self, way.from);
        part(self, way.to);
        self.is_at(way.from, way.to);
        self.is_at(way.to, way.from);
        true
    }

    /// A node that joins connects to everybody.
    pub(crate) fn dial_all(&mut self, node: u64) {
        for peer in self.nodes().into_iter().filter(|peer| *peer != node) {
            let way = Way {
                from: node.max(peer),
                to: node.min(peer),
            };
            let after_us = self.pace.between(0, REDIAL_AFTER_US);
            self.after(after_us, Happening::Dial(way));
        }
    }
}
