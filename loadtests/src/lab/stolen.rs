//! CPU time that the host gave to other machines. Whatever was measured meanwhile is not ours.

use std::fs;

/// The machine's CPU time so far, in clock ticks over all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTime {
    total: u64,
    stolen: u64,
}

impl CpuTime {
    /// Nothing where the system does not tell.
    pub(crate) fn now() -> Option<CpuTime> {
        parse(&fs::read_to_string("/proc/stat").ok()?)
    }
}

/// The share stolen between two readings, in percent of all cores' time; 0 where it is not known.
pub(crate) fn stolen_percent(before: Option<CpuTime>, after: Option<CpuTime>) -> f64 {
    let (Some(before), Some(after)) = (before, after) else {
        return 0.0;
    };
    match after.total.saturating_sub(before.total) {
        0 => 0.0,
        total => after.stolen.saturating_sub(before.stolen) as f64 * 100.0 / total as f64,
    }
}

/// The first line is `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the
/// time of guests is counted in `user` and `nice` already.
fn parse(stat: &str) -> Option<CpuTime> {
    let mut words = stat.lines().next()?.split_whitespace();
    if words.next()? != "cpu" {
        return None;
    }
    let ticks: Vec<u64> = words
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let stolen = *ticks.get(7)?;
    Some(CpuTime {
        total: ticks.iter().sum(),
        stolen,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number() {
        let time = parse("cpu  100 1 50 800 9 0 10 30 77 7\ncpu0 1 2 3\n").expect("parses");
        assert_eq!(
            time,
            CpuTime {
                total: 1000,
                stolen: 30
            }
        );
        let later = parse("cpu  150 1 50 840 9 0 10 40 99 9\n").expect("parses");
        assert_eq!(stolen_percent(Some(time), Some(later)), 10.0);
        assert_eq!(stolen_percent(Some(time), Some(time)), 0.0);
        assert_eq!(stolen_percent(None, Some(time)), 0.0);
    }

    #[test]
    fn another_format_is_not_guessed_at() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("cpu 1 2 3\n"), None);
        assert_eq!(parse("intr 1 2 3 4 5 6 7 8\n"), None);
    }
}
