//! What processes have used: processor time, and bytes that went to the disk.

use std::collections::BTreeMap;
use std::time::Duration;

use procfs::process::Process;

/// Processes and all their descendants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes {
    roots: Vec<i32>,
}

/// What some processes have used since each began. Of one that has ended nothing is known any more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// In user and kernel mode; counted in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Handed to the disk, in whole pages: a page that is written ten times counts ten times.
    pub(crate) written_bytes: u64,
    /// Context switches of all threads.
    pub(crate) switches: u64,
}

impl Processes {
    /// Those with these ids, and whatever they start.
    pub(crate) fn of(roots: impl IntoIterator<Item = u32>) -> Processes {
        Processes {
            roots: roots.into_iter().map(|id| id as i32).collect(),
        }
    }

    /// Without what they have started.
    pub(crate) fn roots(&self) -> impl Iterator<Item = i32> {
        self.roots.iter().copied()
    }

    /// What they have used until now. Whatever the system does not tell counts as nothing.
    pub(crate) fn usage(&self) -> Usage {
        let ids = self.tree();
        ids.iter().map(|id| usage_of(*id)).fold(
            Usage::default(),
            |Usage {
                 cpu,
                 written_bytes,
                 switches,
             },
             more| Usage {
                cpu: cpu + more.cpu,
                written_bytes: written_bytes + more.written_bytes,
                switches: switches + more.switches,
            },
        )
    }

    /// A server may keep a process for each connection: they are looked for each time.
    fn tree(&self) -> Vec<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        let all = procfs::process::all_processes().into_iter().flatten();
        for stat in all.filter_map(|process| process.ok()?.stat().ok()) {
            children.entry(stat.ppid).or_default().push(stat.pid);
        }
        let mut ids = self.roots.clone();
        let mut next = 0;
        while let Some(id) = ids.get(next) {
            ids.extend(
                children
                    .get(id)
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect::<Vec<_>>(),
            );
            next += 1;
        }
        ids
    }
}

impl Usage {
    /// Of this process, without those it has started.
    pub(crate) fn own() -> Usage {
        usage_of(std::process::id() as i32)
    }

    /// What was used since then.
    pub(crate) fn since(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

fn usage_of(id: i32) -> Usage {
    let Ok(process) = Process::new(id) else {
        return Usage::default();
    };
    let ticks = process.stat().map_or(0, |stat| stat.utime + stat.stime);
    let tasks = process.tasks().into_iter().flatten().flatten();
    let switches = tasks.filter_map(|task| {
        let status = task.status().ok()?;
        let voluntary = status.voluntary_ctxt_switches.unwrap_or(0);
        Some(voluntary + status.nonvoluntary_ctxt_switches.unwrap_or(0))
    });
    Usage {
        cpu: Duration::from_secs(1) * ticks as u32 / procfs::ticks_per_second() as u32,
        written_bytes: process.io().map_or(0, |io| io.write_bytes),
        switches: switches.sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_a_grandchild_uses_counts() {
        // A shell that starts another one, which works for some seconds, or until it is told to
        // end.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "sh -c 'i=0; while [ $i -lt 20000000 ]; do i=$((i+1)); done'; true",
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("a shell");
        let processes = Processes::of([child.id()]);
        let began = Instant::now();
        while processes.usage().cpu < Duration::from_millis(50) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "nothing was used"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(processes.tree().len() >= 2, "{:?}", processes.tree());
        for id in processes.tree().into_iter().rev() {
            let pid = rustix::process::Pid::from_raw(id).expect("an id");
            // It may have ended with its parent.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        child.wait().expect("ends");
    }

    #[test]
    fn what_is_written_counts() {
        if crate::lab::fsync::measure(std::path::Path::new(".")).is_err() {
            // In memory, where nothing is written to a disk.
            return;
        }
        let before = Usage::own();
        let mut file = tempfile::tempfile_in(".").expect("a file");
        file.write_all(&[1; 1 << 20]).expect("written");
        file.sync_data().expect("synced");
        let used = Usage::own().since(before);
        assert!(used.written_bytes >= 1 << 20, "{used:?}");
    }
}
