//! Servers of others, as the laboratory runs them: on loopback ports of its own, with data that go
//! when it ends.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

pub(super) const HOST: &str = "127.0.0.1";

/// Below the range from which the kernel takes ports for outgoing connections: one from inside it
/// could be taken while a killed server is down.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
const PORT_ATTEMPTS_MAX: u32 = 1_000;

const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// A server that runs.
pub(super) struct Server {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Server {
    /// Starts it; what it says goes to `log`.
    pub(super) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Server> {
        let out = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: apt-get install it, see --help"))?;
        Ok(Server {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `is_ready` gives something.
    pub(super) async fn ready<T>(
        &mut self,
        mut is_ready: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            let why = match is_ready().await {
                Ok(ready) => return Ok(ready),
                Err(why) => why,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, self.said());
            }
            if began.elapsed() > READY_WITHIN {
                bail!(
                    "{} is not ready after {READY_WITHIN:?}: {why:#}; {}",
                    self.name,
                    self.said()
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it as its own tools would, so that nothing of it is left.
    pub(super) async fn stop(mut self, how: Signal) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(id) = id {
            kill_process(id, how)?;
        }
        if timeout(STOPPED_WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// A directory for a server's data, which goes with it.
pub(super) fn scratch_dir(name: &str, within: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("loadtests-{name}-"))
        .tempdir_in(within)
        .with_context(|| format!("cannot write in {}", within.display()))
}

/// Ports that nobody listens on.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for _ in 0..PORT_ATTEMPTS_MAX {
        let port = rand::random_range(PORTS);
        if let Ok(listener) = TcpListener::bind((HOST, port)) {
            held.push((port, listener));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    bail!("no {count} free ports in {PORTS:?}")
}
