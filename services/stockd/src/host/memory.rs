//! How much memory this process uses, of how much it may. Who is killed for using too much is
//! killed again when it starts, since its state is as large as it was: so what adds to it is
//! refused in time.

use std::path::Path;

/// With so many hundredths of the limit in use a node takes nothing more in. What is left is for
/// connections, for checkpoints, which copy what changes meanwhile, and for the next start, which
/// reads the log beside the state.
const FULL_PERCENT: u64 = 75;

/// And takes it in again with so many.
const ROOM_PERCENT: u64 = 70;

/// Memory that was looked at.
#[derive(Debug)]
pub struct MemoryGauge {
    /// None: nobody limits it.
    limit_bytes: Option<u64>,
    is_short: bool,
}

impl MemoryGauge {
    /// With a limit from the configuration or, where that has none, from the control group that the
    /// process is in.
    pub fn new(configured_bytes: Option<u64>) -> Self {
        let limit_bytes = configured_bytes.or_else(|| limit_of_group(Path::new("/sys/fs/cgroup")));
        Self {
            limit_bytes,
            is_short: false,
        }
    }

    /// How much may be used, if that is limited.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.limit_bytes
    }

    /// Looks how much is used. Whether it is so much that nothing more may be taken in.
    pub fn look(&mut self) -> bool {
        let Some(used_bytes) = used_bytes() else {
            return false;
        };
        metrics::gauge!("stockd_memory_used_bytes").set(used_bytes as f64);
        if let Some(limit_bytes) = self.limit_bytes {
            metrics::gauge!("stockd_memory_limit_bytes").set(limit_bytes as f64);
            self.judge(used_bytes, limit_bytes);
        }
        self.is_short
    }

    fn judge(&mut self, used_bytes: u64, limit_bytes: u64) {
        let percent = match self.is_short {
            true => ROOM_PERCENT,
            false => FULL_PERCENT,
        };
        let is_short = used_bytes >= limit_bytes / 100 * percent;
        if is_short != self.is_short {
            match is_short {
                true => tracing::warn!(
                    used_bytes,
                    limit_bytes,
                    "memory is nearly used up: what adds to it is refused"
                ),
                false => tracing::info!(used_bytes, limit_bytes, "there is room in memory again"),
            }
        }
        self.is_short = is_short;
    }
}

/// What only giving it up would free: not the pages of files.
fn used_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_whitespace().skip(1);
    let mut next = || pages.next()?.parse::<u64>().ok();
    let (resident, of_files) = (next()?, next()?);
    Some(resident.saturating_sub(of_files) * rustix::param::page_size() as u64)
}

/// The least of the limits of this process's group and of those that it is in, of either version of
/// the kernel's interface.
fn limit_of_group(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:/path
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (root, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // In a container the path may be that outside, and only the root is seen.
        let dir = root.join(path.trim_start_matches('/'));
        let within = dir.ancestors().take_while(|dir| dir.starts_with(&root));
        within.filter_map(|dir| limit_in(&dir.join(name))).collect()
    });
    limits.min()
}

/// No number is no limit, and neither is the number that stands for none.
fn limit_in(file: &Path) -> Option<u64> {
    let limit: u64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < u64::MAX / 4).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_in_near_the_limit_until_there_is_room_again() {
        let mut gauge = MemoryGauge::new(Some(1_000));
        let mut seen = Vec::new();
        for used in [740, 750, 900, 710, 700, 690, 749, 750] {
            gauge.judge(used, 1_000);
            seen.push(gauge.is_short);
        }
        let expected = [false, true, true, true, true, false, false, true];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_process_knows_what_it_uses() {
        // Other tests of this process give memory back at any moment.
        let is_seen = |_| {
            let before = used_bytes().unwrap();
            let more = vec![7_u8; 64 << 20];
            let is_seen = used_bytes().unwrap() >= before + (48 << 20);
            drop(more);
            is_seen
        };
        assert!((0..10).any(is_seen));
    }

    #[test]
    fn a_limit_is_a_number_and_not_the_one_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let limit = |text: &str| {
            let file = dir.path().join("memory.max");
            std::fs::write(&file, text).unwrap();
            limit_in(&file)
        };
        assert_eq!(limit("58720256\n"), Some(58_720_256));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit_in(&dir.path().join("none")), None);
    }
}
