//! Medians over the windows of one kind.

use serde::Serialize;

use super::load::Load;
use super::window::Window;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) windows: usize,
    /// False where no window was free of stolen time; the figures then are those of the thrown
    /// away.
    pub(crate) clean: bool,
    /// Most windows were given up.
    pub(crate) is_behind: bool,
    pub(crate) lines: u64,
    pub(crate) refused: u64,
    /// Lines per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// The largest of all, not a median.
    pub(crate) max_us: f64,
    pub(crate) late_p99_us: Option<f64>,
    pub(crate) refused_p99_us: Option<f64>,
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    pub(crate) written_bytes: f64,
    pub(crate) switches: f64,
}

impl Figures {
    /// Of this kind; nothing where there is no window of it.
    pub(crate) fn of(windows: &[Window], what: &str, load: Load) -> Option<Figures> {
        let is_of = |window: &&Window| window.what == what && window.load == load;
        let all = || {
            windows
                .iter()
                .filter(is_of)
                .filter(|w| w.calls > 0 || w.refused > 0)
        };
        let clean = all().any(|w| w.kept);
        let used: Vec<&Window> = all().filter(|w| w.kept || !clean).collect();
        let median_of = |value: fn(&Window) -> f64| median(used.iter().map(|w| value(w)).collect());
        Some(Figures {
            windows: used.len(),
            clean,
            is_behind: 2 * used.iter().filter(|w| w.is_behind).count() > used.len(),
            lines: used.iter().map(|w| w.lines).sum(),
            refused: used.iter().map(|w| w.refused).sum(),
            rate: median_of(|w| w.rate)?,
            p50_us: median_of(|w| w.p50_us)?,
            p99_us: median_of(|w| w.p99_us)?,
            p999_us: median_of(|w| w.p999_us)?,
            max_us: used.iter().map(|w| w.max_us).fold(0.0, f64::max),
            late_p99_us: median(used.iter().filter_map(|w| w.late_p99_us).collect()),
            refused_p99_us: median(used.iter().filter_map(|w| w.refused_p99_us).collect()),
            server_cpu_us: median_of(|w| w.server_cpu_us)?,
            client_cpu_us: median_of(|w| w.client_cpu_us)?,
            written_bytes: median_of(|w| w.written_bytes)?,
            switches: median_of(|w| w.switches)?,
        })
    }

    /// Processor time of servers and load together, for one line.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.server_cpu_us + self.client_cpu_us
    }
}

/// The mean of the middle two where there is no middle one.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// 0 where there is nothing to compare with.
pub(crate) fn ratio(value: f64, base: f64) -> f64 {
    if base > 0.0 { value / base } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
