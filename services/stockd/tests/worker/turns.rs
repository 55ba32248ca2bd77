//! What one turn takes in: as much as one write of the log may carry, and from everybody in turn.

use std::collections::BTreeSet;

use stock_cluster::GroupId;
use stock_core::{
    Action, Command, Fingerprint, Operation, PartialLine, Principal, Quantity, Release, Request,
    RequestId, ReservationId, Sku,
};
use stock_node::answer::Answer;
use stock_node::clock::Now;
use stock_node::entry::{Commands, CommandsBuilder};
use stock_node::event::{Effect, Event};
use stock_node::worker::{PROPOSED_BYTES_PER_TURN_MAX, TICK_MS};
use stockd::directory::disk::Written;
use stockd::inbox::COMMAND_BYTES_IN_FLIGHT_MAX;
use tempfile::TempDir;

use super::{ELECTION_TICKS, Node, open_of};

/// What all shards of the only node have waiting together is more than the log takes in one batch,
/// which is 256 MiB.
const SHARDS: u32 = 9;

/// Lines of a command: with them it is nearly as large as an entry may be.
const LINES: usize = 15_000;

/// Turns in which everybody is heard: all have room in the second.
const FAIR_WITHIN_TURNS: usize = 3;

/// More turns than all of it takes.
const TURNS_MAX: usize = 20;

/// A node that leads every group alone.
struct Alone {
    node: Node,
    boot_ms: u64,
    _dir: TempDir,
}

impl Alone {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let node = open_of(&[1], SHARDS + 1, u64::MAX, 1, dir.path(), now(0));
        let mut alone = Self {
            node,
            boot_ms: 0,
            _dir: dir,
        };
        for _ in 0..ELECTION_TICKS {
            alone.boot_ms += TICK_MS;
            alone.turn(Vec::new());
            while alone.node.worker.has_work() {
                alone.turn(Vec::new());
            }
        }
        alone
    }

    /// One turn, and to whom it gave answers that are outcomes.
    fn turn(&mut self, events: Vec<Event<u64>>) -> Vec<u64> {
        let now = now(self.boot_ms);
        let Node { worker, log, .. } = &mut self.node;
        let mut effects = Vec::new();
        worker.step(now, events, &mut effects);
        worker.answer(&mut effects).unwrap();
        assert_eq!(log.write_turn(worker).unwrap(), Written::All);
        worker.settle(&mut effects);
        worker.catch_up(now, &mut effects).unwrap();
        let answers = effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer { reply, answer } => Some((reply, answer)),
            _ => None,
        });
        answers
            .map(|(reply, answer)| match answer {
                Answer::Outcomes(_) => reply,
                other => panic!("{reply}: {other:?}"),
            })
            .collect()
    }
}

fn now(boot_ms: u64) -> Now {
    Now {
        boot_ms,
        wall_ms: 1_790_000_000_000 + boot_ms,
    }
}

/// A large command that is refused when it is applied: nobody has the reservation.
fn large() -> Commands {
    let line = PartialLine {
        sku: Sku::new(&"s".repeat(64)).unwrap(),
        location: None,
        quantity: Quantity::new(1).unwrap(),
    };
    let release = Release {
        id: ReservationId::new([0x88; 16]).unwrap(),
        lines: vec![line; LINES],
        forced: None,
    };
    let request = Request {
        id: RequestId::new([0x77; 16]).unwrap(),
        fingerprint: Fingerprint([0; 8]),
    };
    let mut commands = CommandsBuilder::default();
    commands.push(&Command {
        principal: Principal::new("large").unwrap(),
        action: Action::Request(request, Operation::Release(release)),
    });
    commands.take()
}

/// As much for a shard as may be on its way at once.
fn all_that_may_wait(shard: u32, commands: &Commands) -> Vec<Event<u64>> {
    let count = COMMAND_BYTES_IN_FLIGHT_MAX / commands.bytes.len() - 1;
    let events = (0..count).map(|_| Event::Propose {
        group: GroupId(shard + 1),
        commands: commands.clone(),
        reply: u64::from(shard),
    });
    events.collect()
}

#[test]
fn a_turn_takes_in_what_one_write_may_carry_and_the_rest_in_the_next() {
    let mut alone = Alone::new();
    let commands = large();
    let events: Vec<Event<u64>> = (0..SHARDS)
        .flat_map(|shard| all_that_may_wait(shard, &commands))
        .collect();
    let waiting = events.len() * commands.bytes.len();
    assert!(waiting > 8 * PROPOSED_BYTES_PER_TURN_MAX, "{waiting} bytes");
    let mut missing = events.len();
    let mut answered = alone.turn(events);
    for _ in 0..TURNS_MAX {
        missing -= answered.len();
        if missing == 0 {
            return;
        }
        assert!(alone.node.worker.has_work(), "{missing} wait for nothing");
        answered = alone.turn(Vec::new());
    }
    panic!("{missing} are not answered after {TURNS_MAX} turns");
}

#[test]
fn whom_a_turn_left_out_comes_first_in_the_next() {
    let mut alone = Alone::new();
    let commands = large();
    let all = |shard| all_that_may_wait(shard, &commands);
    // One shard fills every turn by itself, and comes before the others, which have a few commands
    // each.
    let few = (1..SHARDS).flat_map(|shard| all(shard).into_iter().take(3));
    let mut events: Vec<Event<u64>> = few.collect();
    let mut heard = BTreeSet::new();
    for _ in 0..FAIR_WITHIN_TURNS {
        events.extend(all(0));
        heard.extend(alone.turn(std::mem::take(&mut events)));
    }
    assert_eq!(heard, (0..u64::from(SHARDS)).collect());
}
