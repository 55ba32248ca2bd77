//! Makes up what shards tell each other of baskets: mostly what somebody could say of what there
//! is, too often, too late and in any order.

use std::sync::Arc;

use stock_core::limits::VERSIONS_PER_RECOVERY;
use stock_core::{
    Acknowledge, AllHeld, Ask, BasketCommand, Decide, Decision, Follow, HeldBasket, HoldPart,
    InTheWay, Line, NotHeld, NumberedLine, Probe, Quantity, Question, Recovered, Refusal,
    ReservationId, ReservationLine, ShortLine, Shortage, TellAnew, ToldAnew,
};

use crate::naive::Naive;
use crate::world::World;

/// Of the cluster.
pub(crate) const SHARDS: u32 = 2;
/// The one that the world is about: most of its SKUs belong there. It has stock of the others, too,
/// so that what is not to be touched would be seen.
pub(crate) const HOME: u32 = 1;
const AWAY: u32 = 0;

pub(crate) fn command(world: &mut World, naive: &Naive) -> BasketCommand {
    match world.between(0, 99) {
        0..30 => BasketCommand::HoldPart(hold_part(world, naive)),
        30..40 => {
            let (id, version) = part(world, naive);
            BasketCommand::Probe(Probe {
                id,
                question: Question {
                    version,
                    has_ended: world.between(0, 2) == 0,
                },
                asked_at: world.asked_at(),
            })
        }
        40..54 => BasketCommand::Follow(follow(world, naive)),
        54..60 => BasketCommand::AllHeld(all_held(world, naive)),
        60..78 => BasketCommand::Decide(decide(world, naive)),
        78..90 => acknowledge(world, naive),
        90 | 91 => BasketCommand::Recovered(Recovered {
            shard: HOME,
            shards: SHARDS,
        }),
        92 => BasketCommand::TellAnew(TellAnew {
            recovery: naive.losses.others.get(&AWAY).copied().unwrap_or(0)
                + world.between(0, 1) as u32,
            shard: AWAY,
        }),
        93..95 => BasketCommand::ToldAnew(ToldAnew {
            recovery: (naive.losses.own + 1).saturating_sub(world.between(1, 2) as u32),
            shard: AWAY,
        }),
        _ => {
            let known = naive.reservations.iter().map(|known| known.what.id);
            let known: Vec<ReservationId> = known.collect();
            let id = match world.chance(70) {
                true => world.pick(&known),
                false => None,
            };
            BasketCommand::Ask(Ask {
                id: id.unwrap_or_else(|| world.reservation_id()),
                shard: world.between(0, 1) as u32,
                asked_at: world.asked_at(),
            })
        }
    }
}

/// A part, or what was one or may become one, and a version of it.
fn part(world: &mut World, naive: &Naive) -> (ReservationId, u32) {
    let held = naive.parts.iter().map(|part| (part.id, part.held));
    let buried = naive.tombstones.iter().map(|it| (it.id, it.version));
    let known: Vec<(ReservationId, u32)> = held.chain(buried).collect();
    let known = match world.chance(65) {
        true => world.pick(&known),
        false => None,
    };
    let (id, version) = known.unwrap_or_else(|| {
        let low = world.reservation_id().as_bytes()[8..].to_vec();
        let random = low.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        // Edges' clocks differ: one that was asked for later may be the first of two.
        let made_at = world.now().minus_ms(world.between(0, 30_000));
        (ReservationId::compose(made_at, AWAY, random), 0)
    });
    let version = match world.between(0, 99) {
        0..55 => version.saturating_add(1),
        55..85 => version,
        85..95 => version.saturating_sub(1),
        _ => version.saturating_add(2),
    };
    (id, version.max(1))
}

fn hold_part(world: &mut World, naive: &Naive) -> HoldPart {
    let (id, version) = part(world, naive);
    let mut lines = world.basket();
    // What another part has is asked for most eagerly.
    let others = naive.parts.iter().flat_map(|part| part.lines.clone());
    let others: Vec<ReservationLine> = others.collect();
    if world.chance(88)
        && let Some(wanted) = world.pick(&others)
    {
        lines = vec![Line {
            sku: wanted.sku,
            location: wanted.location,
            quantity: Quantity::new(4).unwrap(),
        }];
    }
    let lines = lines.into_iter();
    HoldPart {
        id,
        version,
        asked_at: world.asked_at(),
        is_last_try: world.chance(8),
        lines: (2..)
            .step_by(3)
            .zip(lines)
            .map(|(number, line)| NumberedLine { number, line })
            .collect(),
    }
}

fn all_held(world: &mut World, naive: &Naive) -> AllHeld {
    let count = world.between(1, 3);
    let basket = |_| {
        let (id, version) = part(world, naive);
        HeldBasket {
            id,
            // What is held already, as a rule.
            version: version.saturating_sub(1).max(1),
            ask_at: world.now().plus_ms(world.between(0, 60_000)),
        }
    };
    let baskets = (0..count).map(basket).collect();
    AllHeld { baskets }
}

fn follow(world: &mut World, naive: &Naive) -> Follow {
    let (id, version) = part(world, naive);
    if world.chance(10) {
        return Follow::gone(id, VERSIONS_PER_RECOVERY - 1, world.asked_at());
    }
    let known = naive.parts.iter().find(|part| part.id == id);
    let mut lines: Vec<ReservationLine> = known.map_or(Vec::new(), |part| part.lines.clone());
    for line in &mut lines {
        let gone = match world.chance(40) {
            true => line.open,
            false => world.below(line.open as usize + 1) as i64,
        };
        line.open -= gone;
        match world.between(0, 3) {
            0 => line.fulfilled += gone,
            1 => line.released += gone,
            2 => {}
            // An amendment begins anew.
            _ => line.quantity = line.open.max(1),
        }
        line.fulfilled = line.fulfilled.min(line.quantity - line.open);
        line.released = line
            .released
            .min(line.quantity - line.open - line.fulfilled);
    }
    if world.chance(20) {
        lines.truncate(1);
    }
    if lines.is_empty() || world.chance(5) {
        let line = world.basket().swap_remove(0);
        if !lines
            .iter()
            .any(|it| it.sku == line.sku && it.location == line.location)
        {
            lines.push(ReservationLine {
                sku: line.sku,
                location: line.location,
                quantity: line.quantity.get(),
                open: line.quantity.get(),
                fulfilled: 0,
                released: 0,
            });
        }
    }
    Follow {
        id,
        version,
        asked_at: world.asked_at(),
        lines,
        ask_at: world.now().plus_ms(world.between(0, 60_000)),
        anew: world.chance(30),
    }
}

fn decide(world: &mut World, naive: &Naive) -> Decide {
    let undecided = naive.reservations.iter();
    let undecided = undecided.filter_map(|known| naive.prepared(known.what.id));
    let undecided: Vec<_> = undecided.collect();
    let Some(prepared) = world.pick(&undecided) else {
        return Decide {
            id: world.reservation_id(),
            version: 1,
            decision: Decision::Held,
        };
    };
    let decision = match world.between(0, 9) {
        0..5 => Decision::Held,
        5 => Decision::NotHeld(NotHeld::Gone),
        6 | 7 => Decision::NotHeld(NotHeld::Refused(Refusal::UnknownSku { line: 1 })),
        _ => {
            let line = world.pick(&prepared.reservation.lines);
            let lines = line.map(|line| ShortLine {
                sku: line.sku,
                location: line.location,
                requested: line.quantity,
                available: 1,
                reservable: 2,
            });
            Decision::NotHeld(NotHeld::Short(Arc::new(Shortage {
                lines: lines.into_iter().collect(),
                in_the_way: match world.chance(50) {
                    true => InTheWay::Later,
                    false => InTheWay::Earlier,
                },
            })))
        }
    };
    let is_late = world.chance(10);
    Decide {
        id: prepared.reservation.id,
        version: prepared.version - u32::from(is_late),
        decision,
    }
}

fn acknowledge(world: &mut World, naive: &Naive) -> BasketCommand {
    let owed = owed(naive);
    let Some((shard, id, version)) = world.pick(&owed) else {
        let followed = vec![(world.reservation_id(), 1)];
        return BasketCommand::Acknowledge(Acknowledge {
            shard: AWAY,
            followed,
        });
    };
    let is_old = world.chance(10);
    let followed = vec![(id, version.saturating_sub(u32::from(is_old)))];
    BasketCommand::Acknowledge(Acknowledge { shard, followed })
}

/// Which participants have yet to be told of which reservation, and the version of that.
pub(crate) fn owed(naive: &Naive) -> Vec<(u32, ReservationId, u32)> {
    let mut owed = Vec::new();
    for known in &naive.reservations {
        let reach = known.reach.iter();
        for reach in reach.filter(|reach| reach.undecided.is_none()) {
            let behind = reach.participants.iter();
            let behind = behind.filter(|(_, followed)| *followed < reach.version);
            owed.extend(behind.map(|(shard, _)| (*shard, known.what.id, reach.version)));
        }
    }
    owed
}

pub(crate) fn undecided(naive: &Naive) -> usize {
    let ids = naive.reservations.iter().map(|known| known.what.id);
    ids.filter(|id| naive.prepared(*id).is_some()).count()
}
