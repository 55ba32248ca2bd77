//! One step of a reserve, so many times, for `tests/instructions.sh` to count its instructions.
#![expect(
    clippy::print_stderr,
    reason = "a command line tool says what is wrong on stderr"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use stock_cluster::identity::Acquaintances;
use stock_cluster::{Directory, Founder, GroupId, Policy, Speaks};
use stock_core::{
    Document, Location, MovementKind, MovementLine, Movements, Principal, Reporter, Secret, Sku,
    Stamp,
};
use stock_node::answer::{Answer, Applied, Outcome};
use stock_node::applying::{self, Changed};
use stock_node::clock::Now;
use stock_node::entry::{self, Commands, CommandsBuilder};
use stock_node::event::{Effect, Event};
use stock_node::ledger_rows::Rows;
use stock_node::standing::ClusterState;
use stock_node::state::State;
use stock_node::view::ReadView;
use stock_node::worker::{
    Founding, USUAL_AUDIT_EVERY_MS, USUAL_CHECKPOINT_PACE, USUAL_COMMITTED_BYTES,
    USUAL_ELECTION_TICKS, Worker, WorkerParts,
};
use stock_proto::stock::v1 as api;
use stock_proto::whole;
use stock_storage::{CheckpointStore, LogOptions, OnDamage, OsVolume, Volume};
use stockd::api::reserve;
use stockd::directory::bring_back;
use stockd::directory::disk::{Disk, LogWriter, Written};
use tonic::Status;

type Failure = Box<dyn std::error::Error>;

/// As many as a shard of a bench has.
const SKUS: usize = 64;
const NOW_MS: u64 = 1_790_000_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [step, times] => times
            .parse()
            .map_err(Into::into)
            .and_then(|times| run(step, times)),
        _ => Err("usage: instructions whole|check|encode|apply|turn|answer TIMES".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(step: &str, times: u64) -> Result<(), Failure> {
    match step {
        "whole" => look_whole(times),
        "check" => check(times),
        "encode" => encode(times),
        "apply" => apply(times),
        "turn" => turn(times),
        "answer" => answer(times),
        _ => Err(format!("there is no step {step}").into()),
    }
}

/// Whether a message holds nothing that is not known.
fn look_whole(times: u64) -> Result<(), Failure> {
    let message = message(0);
    for _ in 0..times {
        whole::check::<api::ReserveRequest>(black_box(&message))?;
    }
    Ok(())
}

/// From a message's bytes to a checked command.
fn check(times: u64) -> Result<(), Failure> {
    let principal = Principal::new("anonymous")?;
    for number in 0..times {
        let call = api::ReserveRequest::decode(message(number))?;
        black_box(reserve::command(&call, asker(&principal, 8)).map_err(Status::from)?);
    }
    Ok(())
}

/// The same, and then to the bytes of a log entry.
fn encode(times: u64) -> Result<(), Failure> {
    for number in 0..times {
        black_box(entry(number)?);
    }
    Ok(())
}

/// The same, and then what a replica does with the entry.
fn apply(times: u64) -> Result<(), Failure> {
    let (mut state, view) = (State::new(GroupId(1), Secret(1)), ReadView::new(1));
    let (mut changed, mut rows) = (Changed::default(), Rows::default());
    receive(&mut state, &mut changed)?;
    for number in 0..times {
        let entry = entry(number)?;
        let decoded = entry::decode_entry(&entry)?;
        changed.ledger.clear();
        let index = number + 2;
        let applied = applying::apply(&mut state, index, &decoded, &mut changed)?;
        black_box(applied);
        if let State::Stock(shard) = &state {
            view.publish(shard, &changed.ledger);
        }
        rows.clear();
        for change in &changed.ledger {
            rows.push(index, change);
        }
    }
    Ok(())
}

/// A reserve through the loop of a node that is alone: proposed, written to the log, applied and
/// answered.
fn turn(times: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let mut worker = begin(dir.path())?;
    let mut boot_ms = 0;
    // Elections, and the first entry of each term.
    for _ in 0..200 {
        boot_ms += 50;
        step(&mut worker, boot_ms, Vec::new())?;
    }
    for number in 0..times {
        // Not so fast that a tick never comes, nor so slow that it comes with every one.
        boot_ms += 1;
        let event = Event::Propose {
            group: GroupId::of_shard(0),
            commands: commands(number)?,
            reply: number,
        };
        let answers = step(&mut worker, boot_ms, vec![event])?;
        // An unknown SKU is an answer: what becomes of one that is known is another step.
        if !answers
            .iter()
            .any(|answer| matches!(answer, Answer::Outcomes(_)))
        {
            return Err(format!("reserve {number} was answered with {answers:?}").into());
        }
    }
    Ok(())
}

/// From an outcome to a message's bytes.
fn answer(times: u64) -> Result<(), Failure> {
    let (mut state, mut changed) = (State::new(GroupId(1), Secret(1)), Changed::default());
    receive(&mut state, &mut changed)?;
    let entry = entry(0)?;
    let decoded = entry::decode_entry(&entry)?;
    let outcomes = applying::apply(&mut state, 2, &decoded, &mut changed)?;
    let stamp = state.moment().stamp;
    let outcome = outcomes.into_iter().next().ok_or("no outcome")?;
    if !matches!(
        &outcome,
        Outcome::Stock(stock_core::Outcome::Reservation(_))
    ) {
        return Err(format!("{outcome:?}").into());
    }
    let incarnation = Bytes::from_static(&[7; 16]);
    for index in 0..times {
        let applied = Applied {
            applied_index: index,
            stamp,
            outcomes: [outcome.clone()].into_iter().collect(),
        };
        let response = reserve::answer(0, applied, incarnation.clone());
        black_box(response.map_err(Status::from)?.encode_to_vec());
    }
    Ok(())
}

/// A reserve of one line, as a client sends it.
fn message(number: u64) -> Bytes {
    let high = NOW_MS << 16 | 0x7000;
    let id = uuid::Uuid::from_u64_pair(high, number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let call = api::ReserveRequest {
        request_id: id.to_string(),
        lines: vec![api::Line::at(sku(number as usize % SKUS), "bench", 1)],
        ttl: Some(prost_types::Duration {
            seconds: 900,
            nanos: 0,
        }),
        ..api::ReserveRequest::default()
    };
    call.encode_to_vec().into()
}

fn asker(principal: &Principal, shards: u32) -> reserve::Asker<'_> {
    let time = Stamp(0);
    reserve::Asker {
        principal,
        shards,
        time,
    }
}

fn commands(number: u64) -> Result<Commands, Failure> {
    let call = api::ReserveRequest::decode(message(number))?;
    let principal = Principal::new("anonymous")?;
    let command = reserve::command(&call, asker(&principal, 1));
    let (_, command) = command.map_err(Status::from)?;
    let mut builder = CommandsBuilder::default();
    builder.push(&command);
    Ok(builder.take())
}

fn entry(number: u64) -> Result<Vec<u8>, Failure> {
    let commands = commands(number)?;
    Ok(entry::encode_entry(Stamp(NOW_MS).into(), [commands].iter()))
}

fn sku(number: usize) -> String {
    format!("bench-{number}")
}

/// Stock of every SKU.
fn receive(state: &mut State, changed: &mut Changed) -> Result<(), Failure> {
    let line = |number: usize| -> Result<MovementLine, Failure> {
        Ok(MovementLine {
            line: Document::new(&number.to_string())?,
            sku: Sku::new(&sku(number))?,
            location: Location::new("bench")?,
            on_hand_delta: 1_000_000_000,
            occurred_at: Stamp(NOW_MS),
        })
    };
    let lines: Result<Vec<MovementLine>, Failure> = (0..SKUS).map(line).collect();
    let mut builder = CommandsBuilder::default();
    builder.push(&stock_core::Command {
        principal: Principal::new("anonymous")?,
        action: stock_core::Action::Movements(Movements {
            kind: MovementKind::Receipt,
            source: Reporter::new("dock")?,
            document: Document::new("D")?,
            reason: None,
            lines: lines?,
        }),
    });
    let entry = entry::encode_entry(Stamp(NOW_MS).into(), [builder.take()].iter());
    let decoded = entry::decode_entry(&entry)?;
    applying::apply(state, 1, &decoded, changed)?;
    Ok(())
}

/// The loop of a node that founds a cluster alone, with one shard.
/// A loop, and who writes for it.
type Loop = (Worker<u64>, LogWriter);

fn begin(dir: &std::path::Path) -> Result<Loop, Failure> {
    let volume: Arc<dyn Volume> = Arc::new(OsVolume);
    let disk = Disk::open(&volume, dir, &LogOptions::default(), OnDamage::Refuse)?;
    let checkpoints = CheckpointStore::open(volume, dir)?;
    let founder = Founder {
        node: 1,
        directory: Directory(1),
        grpc: "http://127.0.0.1:1".to_owned(),
        peers: "127.0.0.1:1".to_owned(),
    };
    let parts = WorkerParts {
        node: 1,
        directory: 1,
        since: 0,
        lives: vec![1],
        founding: Some(Founding {
            version: 1,
            incarnation: 1,
            replication: 1,
            nodes: vec![founder],
        }),
        is_founded: true,
        generation_floor: 0,
        policy: Policy::default(),
        principal: Principal::new("node")?,
        speaks: Speaks::THIS,
        groups: 2,
        boot: 1,
        entries: disk.entry_readers(),
        view: Arc::new(ReadView::new(1)),
        cluster: Arc::new(ClusterState::new(1, 2, Acquaintances::default())),
        checkpoint_pace: USUAL_CHECKPOINT_PACE,
        audit_every_ms: USUAL_AUDIT_EVERY_MS,
        election_ticks: USUAL_ELECTION_TICKS,
        committed_bytes_per_turn: USUAL_COMMITTED_BYTES,
    };
    Ok(bring_back::open(
        parts,
        &disk,
        &checkpoints,
        &[None; 2],
        now(0),
    )?)
}

fn step(
    (worker, log): &mut Loop,
    boot_ms: u64,
    events: Vec<Event<u64>>,
) -> Result<Vec<Answer>, Failure> {
    let (now, mut effects) = (now(boot_ms), Vec::new());
    let mut events = Some(events);
    while events.is_some() || worker.has_work() {
        worker.step(now, events.take().unwrap_or_default(), &mut effects);
        worker.answer(&mut effects)?;
        if log.write_turn(worker)? != Written::All {
            return Err("the disk is full".into());
        }
        worker.settle(&mut effects);
        worker.catch_up(now, &mut effects)?;
    }
    let answers = effects.into_iter().filter_map(|effect| match effect {
        Effect::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    Ok(answers.collect())
}

fn now(boot_ms: u64) -> Now {
    Now {
        boot_ms,
        wall_ms: NOW_MS + boot_ms,
    }
}
