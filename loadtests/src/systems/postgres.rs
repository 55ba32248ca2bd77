//! PostgreSQL: the counter and the hold change in one statement, over connections that are kept.
//!
//! Alone, a commit is on its disk; with a synchronous standby it is on the standby's disk, too.

use std::cell::RefCell;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use stock_supervisor::ports;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use super::server::{self, HOST, Server};
use super::{LOCATION, PEER_ON_HAND, PEER_TTL_SECONDS, System, Work, peer_baskets, peer_sku};
use crate::lab::{Call, Caller, Outcome, Processes};

/// As a pool of a shop's would be; more of them do less on two cores.
const CONNECTIONS: usize = 64;

const STANDBY: &str = "standby";

/// Where Debian keeps the programs, by version.
const PROGRAMS: &str = "/usr/lib/postgresql";

const SCHEMA: &str = "\
CREATE TABLE position (
  sku text, location text, on_hand bigint NOT NULL, reserved bigint NOT NULL,
  PRIMARY KEY (sku, location)
) WITH (fillfactor = 50);
CREATE TABLE hold (
  id uuid, sku text, location text, quantity bigint NOT NULL, expires_at timestamptz NOT NULL,
  PRIMARY KEY (id, sku, location)
);";

const RESERVE: &str = "\
WITH taken AS (
  UPDATE position SET reserved = reserved + $3
  WHERE sku = $1 AND location = $2 AND on_hand - reserved >= $3
  RETURNING sku
)
INSERT INTO hold SELECT $4, $1, $2, $3, now() + make_interval(secs => $5) FROM taken";

/// All or nothing: a basket of which a line is short divides by zero.
const RESERVE_BASKET: &str = "\
WITH taken AS (
  UPDATE position AS p SET reserved = p.reserved + $3
  FROM unnest($1::text[]) AS wanted(sku)
  WHERE p.sku = wanted.sku AND p.location = $2 AND p.on_hand - p.reserved >= $3
  RETURNING p.sku
), whole AS (
  SELECT 1 / (count(*) = cardinality($1::text[]))::int AS one FROM taken
)
INSERT INTO hold
SELECT $4, taken.sku, $2, $3, now() + make_interval(secs => $5) FROM taken, whole";

/// A primary, and perhaps a synchronous standby.
pub(crate) struct Postgres {
    // Dropped before the directory.
    primary: Server,
    standby: Option<Server>,
    pool: Rc<Pool>,
    _dir: TempDir,
}

/// Connections, each with one call at a time.
struct Pool {
    idle: RefCell<Vec<Connection>>,
    free: Semaphore,
}

struct Connection {
    client: Client,
    reserve: Statement,
    reserve_basket: Statement,
}

impl Postgres {
    /// Makes a database and fills it.
    pub(crate) async fn start(scratch: &Path, with_standby: bool) -> anyhow::Result<Postgres> {
        let programs = programs()?;
        let dir = server::scratch_dir("postgres", scratch)?;
        let owner = owner()?;
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid))?;
        }
        let data = dir.path().join("primary");
        let mut initdb = run_as(owner, &programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=bench", "--no-instructions"]);
        initdb
            .args(["--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data);
        finish(initdb).await?;
        let ports = ports::free(2)?;
        let log = dir.path().join("postgres.log");
        let serve = |data: &Path, port| {
            let command = serve(&programs, owner, data, port);
            Server::start("postgres", command, &log)
        };
        let mut primary = serve(&data, ports[0])?;
        let admin = primary.ready(async || connect(ports[0]).await).await?;
        admin.batch_execute(SCHEMA).await?;
        for number in 0..super::PEER_SKUS {
            let position = "INSERT INTO position VALUES ($1, $2, $3, 0)";
            let (sku, on_hand) = (peer_sku(number), PEER_ON_HAND);
            admin
                .execute(position, &[&sku, &LOCATION, &on_hand])
                .await?;
        }
        let standby = match with_standby {
            false => None,
            true => {
                let copy = dir.path().join(STANDBY);
                let mut backup = run_as(owner, &programs.join("pg_basebackup"));
                let from = format!(
                    "host={HOST} port={} user=bench application_name={STANDBY}",
                    ports[0]
                );
                backup.args([
                    "--write-recovery-conf",
                    "--checkpoint=fast",
                    "-d",
                    &from,
                    "-D",
                ]);
                backup.arg(&copy);
                finish(backup).await?;
                let mut standby = serve(&copy, ports[1])?;
                let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'");
                admin.batch_execute(&set).await?;
                admin.batch_execute("SELECT pg_reload_conf()").await?;
                standby.ready(async || follows(&admin).await).await?;
                Some(standby)
            }
        };
        // Not in one go: that would be a transaction, in which VACUUM may not be.
        admin.batch_execute("VACUUM ANALYZE").await?;
        admin.batch_execute("CHECKPOINT").await?;
        let mut idle = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = connect(ports[0]).await?;
            idle.push(Connection {
                reserve: client.prepare(RESERVE).await?,
                reserve_basket: client.prepare(RESERVE_BASKET).await?,
                client,
            });
        }
        let pool = Rc::new(Pool {
            idle: RefCell::new(idle),
            free: Semaphore::new(CONNECTIONS),
        });
        Ok(Postgres {
            primary,
            standby,
            pool,
            _dir: dir,
        })
    }
}

impl System for Postgres {
    type Reserve = PostgresReserve;

    fn processes(&self) -> Processes {
        let servers = [Some(&self.primary), self.standby.as_ref()];
        Processes::of(servers.into_iter().flatten().map(Server::id))
    }

    fn reserves(&self, work: Work) -> Vec<PostgresReserve> {
        let call = |skus| PostgresReserve {
            pool: Rc::clone(&self.pool),
            skus,
        };
        peer_baskets(work).into_iter().map(call).collect()
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.pool);
        // SIGINT: it ends its connections and itself, in order.
        for server in [Some(self.primary), self.standby].into_iter().flatten() {
            server.stop(Signal::INT).await?;
        }
        Ok(())
    }
}

/// A reserve of these SKUs, one unit each.
#[derive(Clone)]
pub(crate) struct PostgresReserve {
    pool: Rc<Pool>,
    skus: Vec<String>,
}

impl Caller for PostgresReserve {
    fn last(&self) -> Call {
        Call::of_lines(self.skus.len() as u64)
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let failed = |error: tokio_postgres::Error| format!("postgres: {error:?}");
        let _permit = self.pool.free.acquire().await.map_err(|e| e.to_string())?;
        let connection = self.pool.idle.borrow_mut().pop();
        let connection = connection.ok_or("postgres: no connection")?;
        let Connection {
            client,
            reserve,
            reserve_basket,
        } = &connection;
        let (quantity, id, ttl) = (1_i64, Uuid::now_v7(), f64::from(PEER_TTL_SECONDS));
        let held = match self.skus.as_slice() {
            [sku] => {
                let values = &[
                    sku as &(dyn postgres_types::ToSql + Sync),
                    &LOCATION,
                    &quantity,
                    &id,
                    &ttl,
                ];
                client.execute(reserve, values).await
            }
            skus => {
                let values = &[
                    &skus as &(dyn postgres_types::ToSql + Sync),
                    &LOCATION,
                    &quantity,
                    &id,
                    &ttl,
                ];
                client.execute(reserve_basket, values).await
            }
        };
        self.pool.idle.borrow_mut().push(connection);
        match held.map_err(failed)? {
            rows if rows == self.skus.len() as u64 => Ok(Outcome::Done),
            rows => Err(format!(
                "postgres: {rows} rows for {} lines",
                self.skus.len()
            )),
        }
    }
}

/// The newest version's directory.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(PROGRAMS)
        .with_context(|| format!("no {PROGRAMS}: apt-get install postgresql"))?;
    let versions = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let whole = versions.filter(|bin| bin.join("initdb").exists());
    let newest = whole.max_by_key(|bin| {
        let name = bin.parent().and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().parse::<u32>().unwrap_or(0)
    });
    newest.with_context(|| format!("no initdb in {PROGRAMS}/*/bin: apt-get install postgresql"))
}

/// PostgreSQL does not run as root: then it is the user that Debian makes for it.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let user = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    match user {
        Some(user) => Ok(Some(user)),
        None => bail!("there is no user postgres: apt-get install postgresql"),
    }
}

fn run_as(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid).current_dir("/");
    }
    command
}

fn serve(programs: &Path, owner: Option<(u32, u32)>, data: &Path, port: u16) -> Command {
    let mut command = run_as(owner, &programs.join("postgres"));
    command.arg("-D").arg(data);
    // Durable as by default; memory and log sized so that nothing but the work shows.
    for setting in [
        &format!("port={port}"),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=100",
        "shared_buffers=512MB",
        "max_wal_size=4GB",
        "fsync=on",
        "synchronous_commit=on",
        "wal_level=replica",
    ] {
        command.args(["-c", setting]);
    }
    command
}

async fn finish(command: Command) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::from(command);
    let output = command.output().await.context("cannot run it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

async fn connect(port: u16) -> anyhow::Result<Client> {
    let at = format!("host={HOST} port={port} user=bench dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&at, NoTls).await?;
    // It ends with the client, or with the server.
    tokio::spawn(connection);
    Ok(client)
}

async fn follows(admin: &Client) -> anyhow::Result<()> {
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let row = admin.query_one(synchronous, &[]).await?;
    ensure!(row.get::<_, i64>(0) == 1, "the standby does not follow yet");
    Ok(())
}
