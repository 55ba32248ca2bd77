//! What the kernel saw a process do.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::wait::{finish, until};

/// strace has stopped every thread of a process once and says so.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// strace lets the process go and writes what it has.
const DETACHED_WITHIN: Duration = Duration::from_secs(20);

/// strace at one process.
pub(crate) struct Trace {
    strace: Child,
    path: PathBuf,
}

impl Trace {
    /// Traces these system calls of all threads of a process, as `-e trace=` takes them, into a
    /// file. `Err` where there is no strace, or where it may not look at other processes.
    pub(crate) async fn attach(
        process_id: u32,
        calls: &str,
        path: PathBuf,
    ) -> Result<Self, String> {
        let strace = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-y", "-s", "0", "-e"])
            .arg(format!("trace={calls}"))
            .arg("-o")
            .arg(&path)
            .args(["-p", &process_id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = strace.map_err(|e| format!("strace cannot be run: {e}"))?;
        let errors = strace.stderr.take().unwrap();
        let trace = Self { strace, path };
        let attached = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(errors).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            // Whatever else it says is read, so that it never waits to say it.
            std::thread::spawn(move || lines.for_each(drop));
            first
        });
        let said = finish("strace attaching", ATTACHED_WITHIN, attached).await;
        let said = said.unwrap();
        if said.contains("Operation not permitted") {
            return Err(said);
        }
        assert!(said.contains("attached"), "strace: {said}");
        Ok(trace)
    }

    /// Ends the trace, and returns it: a line for each call, or two where another thread's came in
    /// between.
    pub(crate) async fn detach(mut self) -> String {
        let id = Pid::from_raw(self.strace.id() as i32).unwrap();
        kill_process(id, Signal::INT).unwrap();
        until("strace detaching", DETACHED_WITHIN, async || {
            let status = self.strace.try_wait().map_err(|e| e.to_string())?;
            status.map(drop).ok_or("it runs".to_owned())
        })
        .await;
        std::fs::read_to_string(&self.path).unwrap()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A traced process goes on when its tracer ends. The error says that it has ended.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// `SECONDS.MICROSECONDS`, as strace writes times and durations.
pub(crate) fn microseconds(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    let is_micros = micros.len() == 6;
    let seconds: u64 = seconds.parse().ok()?;
    let micros: u64 = micros.parse().ok().filter(|_| is_micros)?;
    Some(seconds * 1_000_000 + micros)
}
