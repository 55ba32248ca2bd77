//! Servers of others, as the laboratory runs them: on loopback ports of its own, with data that go
//! when it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use stock_supervisor::Process;
use tempfile::TempDir;
use tokio::time::sleep;

pub(super) const HOST: &str = "127.0.0.1";

const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// A server that runs.
pub(super) struct Server {
    name: String,
    log: PathBuf,
    process: Process,
}

impl Server {
    /// Starts it; what it says goes to `log`.
    pub(super) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Server> {
        let out = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let process = Process::start(command)
            .with_context(|| format!("cannot start {name}: apt-get install it, see --help"))?;
        Ok(Server {
            name: name.to_owned(),
            log: log.to_owned(),
            process,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
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
            if let Some(status) = self.process.ended()? {
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
    pub(super) async fn stop(self, how: Signal) -> anyhow::Result<()> {
        Ok(self.process.stop(how, STOPPED_WITHIN).await?)
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
