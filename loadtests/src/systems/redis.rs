//! Redis: a Lua script checks and takes, with an append-only file that is synced before each
//! answer.
//!
//! With a replica a call waits until that has it, too: in memory, since Redis 7.0 cannot wait for
//! its disk.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use anyhow::ensure;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Script};
use rustix::process::Signal;
use stock_supervisor::ports;
use tempfile::TempDir;
use uuid::Uuid;

use super::server::{self, HOST, Server};
use super::{LOCATION, PEER_ON_HAND, PEER_TTL_SECONDS, System, Work, peer_baskets, peer_sku};
use crate::lab::{Call, Caller, Outcome, Processes};

/// Alone, all calls share one connection, which suits it best. WAIT holds a connection up, so that
/// there each call in flight has one.
const CONNECTIONS_WITH_REPLICA: usize = 64;

/// How long WAIT may wait, in milliseconds.
const WAIT_MS_MAX: u32 = 10_000;

/// Keys: the positions, the hold and the order of expiries. Arguments: the quantity of each line,
/// the hold's id, and the seconds that it lasts.
const RESERVE: &str = "\
local lines = #KEYS - 2
local quantity = tonumber(ARGV[1])
for line = 1, lines do
  local counters = redis.call('HMGET', KEYS[line], 'on_hand', 'reserved')
  if not counters[1] or counters[1] - counters[2] < quantity then return line end
end
local hold = {}
for line = 1, lines do
  redis.call('HINCRBY', KEYS[line], 'reserved', quantity)
  hold[2 * line - 1] = KEYS[line]
  hold[2 * line] = quantity
end
redis.call('HSET', KEYS[lines + 1], unpack(hold))
redis.call('ZADD', KEYS[lines + 2], redis.call('TIME')[1] + ARGV[3], ARGV[2])
return 0";

/// A primary, and perhaps a replica.
pub(crate) struct Redis {
    primary: Server,
    replica: Option<Server>,
    connections: Vec<MultiplexedConnection>,
    script: Rc<Script>,
    _dir: TempDir,
}

impl Redis {
    /// Starts it and fills it.
    pub(crate) async fn start(scratch: &Path, with_replica: bool) -> anyhow::Result<Redis> {
        let dir = server::scratch_dir("redis", scratch)?;
        let ports = ports::free(2)?;
        let mut primary = serve(dir.path(), ports[0], None)?;
        let mut first = primary.ready(async || connect(ports[0]).await).await?;
        let script = Script::new(RESERVE);
        script.prepare_invoke().load_async(&mut first).await?;
        for number in 0..super::PEER_SKUS {
            let fields = [("on_hand", PEER_ON_HAND), ("reserved", 0)];
            let mut put = redis::cmd("HSET");
            put.arg(position(&peer_sku(number))).arg(&fields);
            put.exec_async(&mut first).await?;
        }
        let replica = match with_replica {
            false => None,
            true => {
                let mut replica = serve(dir.path(), ports[1], Some(ports[0]))?;
                replica
                    .ready(async || {
                        let reached = wait().query_async::<u32>(&mut first.clone()).await?;
                        ensure!(reached == 1, "the replica does not follow yet");
                        Ok(())
                    })
                    .await?;
                Some(replica)
            }
        };
        let mut connections = vec![first];
        while with_replica && connections.len() < CONNECTIONS_WITH_REPLICA {
            connections.push(connect(ports[0]).await?);
        }
        Ok(Redis {
            primary,
            replica,
            connections,
            script: Rc::new(script),
            _dir: dir,
        })
    }
}

impl System for Redis {
    type Reserve = RedisReserve;

    fn processes(&self) -> Processes {
        let servers = [Some(&self.primary), self.replica.as_ref()];
        Processes::of(servers.into_iter().flatten().map(Server::id))
    }

    fn reserves(&self, work: Work) -> Vec<RedisReserve> {
        let connections: Rc<[MultiplexedConnection]> = self.connections.clone().into();
        let next = Rc::new(Cell::new(0));
        let call = |skus: Vec<String>| RedisReserve {
            connections: Rc::clone(&connections),
            next: Rc::clone(&next),
            script: Rc::clone(&self.script),
            positions: skus.iter().map(|sku| position(sku)).collect(),
            waits: self.replica.is_some(),
        };
        peer_baskets(work).into_iter().map(call).collect()
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.connections);
        for server in [self.replica, Some(self.primary)].into_iter().flatten() {
            server.stop(Signal::TERM).await?;
        }
        Ok(())
    }
}

/// A reserve of these positions, one unit each.
#[derive(Clone)]
pub(crate) struct RedisReserve {
    connections: Rc<[MultiplexedConnection]>,
    next: Rc<Cell<usize>>,
    script: Rc<Script>,
    positions: Vec<String>,
    waits: bool,
}

impl Caller for RedisReserve {
    fn last(&self) -> Call {
        Call::of_lines(self.positions.len() as u64)
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let failed = |error: redis::RedisError| format!("redis: {error}");
        let at = self.next.get();
        self.next.set((at + 1) % self.connections.len());
        let mut connection = self.connections[at].clone();
        let id = Uuid::now_v7().to_string();
        let mut pipeline = Pipeline::new();
        let reserve = pipeline.cmd("EVALSHA").arg(self.script.get_hash());
        reserve.arg(self.positions.len() + 2);
        for position in &self.positions {
            reserve.arg(position);
        }
        reserve.arg(format!("hold:{id}")).arg("expiries");
        reserve.arg(1).arg(&id).arg(PEER_TTL_SECONDS);
        let (short, reached) = if self.waits {
            pipeline.add_command(wait());
            pipeline
                .query_async(&mut connection)
                .await
                .map_err(failed)?
        } else {
            let (short,): (u32,) = pipeline
                .query_async(&mut connection)
                .await
                .map_err(failed)?;
            (short, 1)
        };
        match (short, reached) {
            (0, 1) => Ok(Outcome::Done),
            (0, _) => Err("redis: the replica did not follow".to_owned()),
            (line, _) => Err(format!("redis: line {line} is short")),
        }
    }
}

fn position(sku: &str) -> String {
    format!("position:{sku}@{LOCATION}")
}

/// Until the replica has everything that this connection wrote.
fn wait() -> redis::Cmd {
    let mut wait = redis::cmd("WAIT");
    wait.arg(1).arg(WAIT_MS_MAX);
    wait
}

fn serve(dir: &Path, port: u16, replica_of: Option<u16>) -> anyhow::Result<Server> {
    let data = dir.join(port.to_string());
    std::fs::create_dir(&data)?;
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", HOST, "--port", &port.to_string(), "--dir"])
        .arg(&data)
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--daemonize", "no"]);
    if let Some(primary) = replica_of {
        command.args(["--replicaof", HOST, &primary.to_string()]);
    }
    Server::start("redis-server", command, &dir.join("redis.log"))
}

async fn connect(port: u16) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{HOST}:{port}/"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(connection)
}
