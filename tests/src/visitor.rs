//! Nodes that a cluster's configuration does not have: a twin, one under an id that is taken, or
//! the founders of another list.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stock_supervisor::Process;
use tonic::transport::{Channel, Endpoint};

use crate::programs;

/// Where a visitor is reached.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// By clients: `host:port`.
    pub grpc: String,
    /// By other nodes.
    pub peers: String,
    /// By whoever collects metrics.
    pub metrics: String,
}

impl Addresses {
    /// For so many visitors: ports that are free now.
    pub fn free(count: usize) -> Vec<Self> {
        let ports = programs::free_ports(3 * count);
        let address = |port: u16| format!("127.0.0.1:{port}");
        let of = |ports: &[u16]| Self {
            grpc: address(ports[0]),
            peers: address(ports[1]),
            metrics: address(ports[2]),
        };
        ports.chunks(3).map(of).collect()
    }

    /// As `--node` has it.
    pub fn listed_as(&self, node: u64) -> String {
        format!("{node}=http://{},{}", self.grpc, self.peers)
    }
}

/// A `stockd serve` that belongs to no [`crate::cluster::Cluster`]. It ends when this is dropped.
#[derive(Debug)]
pub struct Visitor {
    process: Mutex<Process>,
    addresses: Addresses,
    log: PathBuf,
}

impl Visitor {
    /// Starts it there. What it logs goes to a file beside the data directory, behind what is
    /// there.
    pub fn start(data_dir: &Path, addresses: &Addresses, arguments: &[&str]) -> Self {
        let log = data_dir.with_extension("log");
        let open = File::options().create(true).append(true).open(&log);
        let stderr = open.unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let mut command = programs::run_stockd();
        command
            .args(["serve", "--die-with-parent"])
            .args(["--listen-grpc", &addresses.grpc])
            .args(["--listen-peers", &addresses.peers])
            .args(["--listen-metrics", &addresses.metrics])
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let process = Process::start(command).unwrap_or_else(|e| panic!("stockd: {e}"));
        Self {
            process: Mutex::new(process),
            addresses: addresses.clone(),
            log,
        }
    }

    /// What it has logged so far, and those who were started in its place before.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended; none while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process().ended().ok().flatten()
    }

    /// Where clients reach it: a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses.grpc)
    }

    /// A connection to it, without retries or routing.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(self.endpoint())
            .unwrap_or_else(|e| panic!("{}: {e}", self.endpoint()))
            .connect_lazy()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
