//! stockd beside PostgreSQL, Redis and etcd: the same work on the same machine, one after the
//! other, in rounds.

mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;

use self::report::Report;
use crate::Verdict;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::lab::{self, Caller, Load, Patience, Processes, Series, WindowTimes, fsync};
use crate::nodes::{NodeOptions, Nodes};
use crate::systems::etcd::Etcd;
use crate::systems::postgres::Postgres;
use crate::systems::redis::Redis;
use crate::systems::stockd::{EchoCall, ReserveCall, Stockd};
use crate::systems::{System, Work};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const LEAD_IN: Duration = Duration::from_millis(500);

const ALONE: Load = Load::ClosedLoop { in_flight: 1 };
const BUSY: Load = Load::ClosedLoop { in_flight: 64 };
const BASKET: usize = 5;

/// What every system is asked to do, and what the report calls it.
const TASKS: [(Task, Work, Load); 6] = [
    (Task::Alone, Work::Uniform, ALONE),
    (
        Task::Thousand,
        Work::Uniform,
        Load::OpenLoop { per_second: 1_000 },
    ),
    (
        Task::FiveThousand,
        Work::Uniform,
        Load::OpenLoop { per_second: 5_000 },
    ),
    (Task::Busy, Work::Uniform, BUSY),
    (Task::Hot, Work::Hot, BUSY),
    (Task::Basket, Work::Basket(BASKET), ALONE),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Alone,
    Thousand,
    FiveThousand,
    Busy,
    Hot,
    Basket,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Alone => "1 in flight",
            Task::Thousand => "1,000/s",
            Task::FiveThousand => "5,000/s",
            Task::Busy => "64 in flight",
            Task::Hot => "64 in flight, one SKU",
            Task::Basket => "basket of 5",
        }
    }
}

const ABOUT: &str = "Measures stockd beside PostgreSQL, Redis and etcd";

const ABOUT_LONG: &str = "\
Measures stockd beside PostgreSQL, Redis and etcd: the same work, on the same machine, one system \
after the other, in rounds. A line of a basket is held if there is stock; the counter and the hold \
are durable before the answer. Of each system: alone and with a copy on a second server, or with \
three members.

  PostgreSQL   one statement changes counter and hold; 64 connections; with a synchronous standby
  Redis        a Lua script, appendfsync always; with a replica and WAIT
  etcd         a transaction that compares the position's revision; three members
  stockd       three nodes; beside it a bare echo call on the same nodes

Every system is started here, on loopback ports of its own, and stopped before the next one. The \
peers come from Debian's packages:

  apt-get install postgresql redis-server etcd-server

Calls on a schedule are timed from when they were due. What a system cannot carry it says so. \
Windows in which the host took more than 3 % of the CPU are repeated when it takes no more, as \
long as --patience lasts.";

/// What `loadtests compare` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// Rounds; the figures are medians over them
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=9)
    )]
    rounds: u32,

    /// How long each window is
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u64).range(1..=60)
    )]
    seconds: u64,

    /// How much longer it may take, because the host takes the processor, in all
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(..=14_400)
    )]
    patience: u64,

    /// These systems only
    #[arg(long, value_enum, value_name = "SYSTEM", value_delimiter = ',')]
    only: Vec<Which>,

    /// Write the figures and every window here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// A system as it is run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Stockd,
    Postgres,
    PostgresStandby,
    Redis,
    RedisReplica,
    Etcd,
    EtcdThree,
}

impl Which {
    const ALL: [Which; 7] = [
        Which::Stockd,
        Which::Postgres,
        Which::PostgresStandby,
        Which::Redis,
        Which::RedisReplica,
        Which::Etcd,
        Which::EtcdThree,
    ];

    fn name(self) -> &'static str {
        match self {
            Which::Stockd => "stockd, 3 nodes",
            Which::Postgres => "PostgreSQL alone",
            Which::PostgresStandby => "PostgreSQL, standby",
            Which::Redis => "Redis alone",
            Which::RedisReplica => "Redis, replica",
            Which::Etcd => "etcd alone",
            Which::EtcdThree => "etcd, 3 members",
        }
    }

    /// What an answer is worth.
    fn survives(self) -> &'static str {
        match self {
            Which::Stockd | Which::EtcdThree => "on the disks of 2 of 3",
            Which::Postgres | Which::Redis | Which::Etcd => "on 1 disk",
            Which::PostgresStandby => "on 2 disks",
            Which::RedisReplica => "on 1 disk, in memory of 2",
        }
    }
}

/// The name of echoes in the report.
const ECHO: &str = "bare echo";

/// Runs everything and prints the table.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let systems: Vec<Which> = match arguments.only.as_slice() {
        [] => Which::ALL.to_vec(),
        only => only.to_vec(),
    };
    let scratch = arguments.nodes.scratch()?;
    let fsync = fsync::measure(&scratch)?;
    let cpu = CpuTime::now();
    let progress = ProgressBar::new(u64::from(arguments.rounds) * systems.len() as u64);
    let times = WindowTimes {
        lead_in: LEAD_IN,
        measured: Duration::from_secs(arguments.seconds),
        point_every: None,
        behind_max: lab::BEHIND_MAX,
    };
    let patience = Patience::of_seconds(arguments.patience);
    let mut lab = Lab {
        series: Series::new(times, patience),
    };
    for round in 1..=arguments.rounds {
        lab.series.round = round;
        // What drifts in one direction favours nobody.
        let mut order = systems.clone();
        if round % 2 == 0 {
            order.reverse();
        }
        for which in order {
            progress.set_message(which.name());
            lab.measure(which, arguments, &scratch)
                .await
                .with_context(|| which.name())?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let stolen = stolen_percent(cpu, CpuTime::now());
    let report = Report::new(&systems, lab.series.windows, fsync, stolen);
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(match report.first_error() {
        None => Verdict::Passed,
        Some(error) => {
            say!("calls failed; the first: {error}");
            Verdict::Failed
        }
    })
}

struct Lab {
    series: Series,
}

impl Lab {
    async fn measure(
        &mut self,
        which: Which,
        arguments: &Arguments,
        scratch: &Path,
    ) -> anyhow::Result<()> {
        match which {
            Which::Stockd => self.stockd(arguments).await,
            Which::Postgres => {
                self.tasks(which, Postgres::start(scratch, false).await?)
                    .await
            }
            Which::PostgresStandby => {
                self.tasks(which, Postgres::start(scratch, true).await?)
                    .await
            }
            Which::Redis => self.tasks(which, Redis::start(scratch, false).await?).await,
            Which::RedisReplica => self.tasks(which, Redis::start(scratch, true).await?).await,
            Which::Etcd => self.tasks(which, Etcd::start(scratch, 1).await?).await,
            Which::EtcdThree => self.tasks(which, Etcd::start(scratch, 3).await?).await,
        }
    }

    async fn stockd(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let system = StockdNodes::start(&arguments.nodes).await?;
        let processes = system.processes();
        for (task, work, load) in TASKS {
            if work == Work::Uniform {
                let echoes = system.echoes(work, load);
                self.task(ECHO, task, &echoes, &processes, load).await?;
            }
        }
        self.tasks(Which::Stockd, system).await
    }

    async fn tasks(&mut self, which: Which, system: impl System) -> anyhow::Result<()> {
        let processes = system.processes();
        for (task, work, load) in TASKS {
            let mut calls = system.reserves(work);
            warm_up(&mut calls).await?;
            self.task(which.name(), task, &calls, &processes, load)
                .await?;
        }
        system.stop().await
    }

    async fn task<C: Caller>(
        &mut self,
        system: &str,
        task: Task,
        calls: &[C],
        processes: &Processes,
        load: Load,
    ) -> anyhow::Result<()> {
        let what = format!("{system}: {}", task.name());
        self.series.calls(&what, calls, processes, load).await
    }
}

async fn warm_up(calls: &mut [impl Caller]) -> anyhow::Result<()> {
    for call in calls {
        call.call().await.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Three nodes that were started for it.
struct StockdNodes {
    nodes: Nodes,
    stockd: Stockd,
}

impl StockdNodes {
    async fn start(options: &NodeOptions) -> anyhow::Result<StockdNodes> {
        let nodes = Nodes::found(options, 3, 0).await?;
        let client = nodes.client(CALL_TIMEOUT).await?;
        // None ends while it is measured: what peers do not do either.
        let ttl = Duration::from_secs(900);
        let stockd = Stockd::prepare(&client, ttl).await?;
        Ok(StockdNodes { nodes, stockd })
    }

    fn echoes(&self, work: Work, load: Load) -> Vec<EchoCall> {
        let echoes = self.stockd.echoes(work);
        match load {
            ALONE => self.stockd.of_one_leader(&echoes),
            _ => echoes,
        }
    }
}

impl System for StockdNodes {
    type Reserve = ReserveCall;

    fn processes(&self) -> Processes {
        self.nodes.processes()
    }

    fn reserves(&self, work: Work) -> Vec<ReserveCall> {
        self.stockd.reserves(work)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for node in self.nodes.running() {
            self.nodes.kill(node);
        }
        Ok(())
    }
}
