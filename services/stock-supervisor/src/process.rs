//! A process that ends with this one.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::spawner;

/// A process that was started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it, in a process group of its own: what is typed at the terminal is for the process
    /// that starts it, which then ends this one in its own way.
    pub fn start(mut command: Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        let child = spawner::spawn(command)?;
        Ok(Self { child })
    }

    /// What the kernel calls it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it ends, however long that takes.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // Only looked at, on another thread: it is reaped here.
        let pid = self.pid()?;
        let ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let looked = spawn_blocking(move || waitid(WaitId::Pid(pid), ends)).await;
        looked.map_err(io::Error::other)??;
        self.child.wait()
    }

    /// Sends it a signal, unless it has ended and somebody was told so.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Nobody else reaps it meanwhile, so its id cannot become somebody else's.
        match self.ended()? {
            Some(_) => Err(io::Error::other("the process has ended")),
            None => Ok(kill_process(self.pid()?, signal)?),
        }
    }

    /// Ends it as a power cut would, and returns once it is gone.
    pub fn kill(&mut self) {
        self.begin_kill();
        let _ = self.child.wait();
    }

    /// As [`Self::kill`], but does not wait.
    pub fn begin_kill(&mut self) {
        // The error says that it has ended already.
        let _ = self.child.kill();
    }

    /// Asks it to end by this signal; kills it if it has not within this time.
    pub async fn stop(mut self, signal: Signal, within: Duration) -> io::Result<()> {
        // It may end by itself at any moment, and then needs no signal.
        if self.ended()?.is_some() || self.signal(signal).is_err() {
            return Ok(());
        }
        match timeout(within, self.wait()).await {
            Ok(ended) => ended.map(drop),
            // It is killed as it is dropped.
            Err(_) => Ok(()),
        }
    }

    fn pid(&self) -> io::Result<Pid> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.ok_or_else(|| io::Error::other("a process without id"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What memory a process uses, by a field of the kernel's `/proc/ID/status`: `VmRSS` is all of it
/// that is not paged out, `RssAnon` what is there of its own, without pages of files.
pub fn memory_bytes(process: u32, field: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let kib = fields.find_map(|(name, value)| (name == field).then_some(value));
    let kib = kib.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    let missing = || io::Error::other(format!("process {process} has no {field}"));
    Ok(kib.ok_or_else(missing)? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command).unwrap()
    }

    fn ignores_term(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
        ignored & 1 << (Signal::TERM.as_raw() - 1) != 0
    }

    #[tokio::test]
    async fn one_that_ends_by_itself_says_how() {
        let mut process = sh("exit 7");
        assert_eq!(process.wait().await.unwrap().code(), Some(7));
        assert!(process.signal(Signal::TERM).is_err());
    }

    #[tokio::test]
    async fn one_that_will_not_end_is_killed() {
        let process = sh("trap '' TERM; while true; do sleep 0.01; done");
        let id = process.id();
        // Once the trap is set, the kernel says that the signal is ignored.
        while !ignores_term(id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let asked = process.stop(Signal::TERM, Duration::from_millis(100)).await;
        asked.unwrap();
        assert!(memory_bytes(id, "VmRSS").is_err());
    }

    #[test]
    fn a_process_has_memory() {
        let own = memory_bytes(std::process::id(), "RssAnon").unwrap();
        assert!(own > 0 && own <= memory_bytes(std::process::id(), "VmRSS").unwrap());
        assert!(memory_bytes(std::process::id(), "NoSuch").is_err());
    }
}
