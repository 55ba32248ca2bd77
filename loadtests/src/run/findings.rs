//! What must be true of a run, and whether it is.

use super::attendance::Sample;
use super::bounds::{self, Moment};
use super::comparison::Comparison;
use super::disk::Disk;
use super::finding::Finding;
use super::profile::Profile;
use crate::lab::{Point, Window, ratio};

/// Flat is what in the last third of a run's last step is at most so many times what it was in the
/// second. Logs and checkpoints are cut now and then, and allocators give back late: the means of
/// thirds breathe by this much.
const MEMORY_TIMES_MAX: f64 = 1.10;
const DISK_TIMES_MAX: f64 = 1.15;
/// The median of the points' p99: a busy neighbour moves it more than the mean of anything else.
const P99_TIMES_MAX: f64 = 1.5;

/// What a run came to.
pub(crate) struct Run<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) best: Option<&'a Window>,
    pub(crate) steps: &'a [Window],
    pub(crate) samples: &'a [Sample],
    /// None where the outcome of some calls is not known.
    pub(crate) comparison: Option<&'a Comparison>,
    pub(crate) units_at_first: i64,
}

pub(crate) fn judge(run: &Run<'_>) -> Vec<Finding> {
    let mut findings = vec![calls(run), stock(run.comparison)];
    if !run.profile.may_fall_behind {
        findings.push(schedule(run.steps));
    }
    if run.profile.must_sell_out {
        findings.push(sold_out(run));
    }
    if run.profile.must_stay_flat {
        let last = || run.steps.last().into_iter();
        let points = || last().flat_map(|step| &step.points);
        let last_from = points().next().map_or(0.0, |point| point.at_seconds);
        let over_nodes = |value: fn(&super::attendance::NodeSample) -> u64| {
            let sum = move |sample: &Sample| sample.nodes.iter().map(value).sum::<u64>() as f64;
            let last = run.samples.iter();
            let last = last.filter(|sample| sample.at_seconds >= last_from);
            last.map(sum).collect::<Vec<_>>()
        };
        let memory = over_nodes(|node| node.resident_bytes);
        let disk = over_nodes(|node| node.disk_bytes);
        let p99: Vec<f64> = points().map(|point: &Point| point.all.p99_us).collect();
        findings.push(flat("memory", &memory, mean, MEMORY_TIMES_MAX));
        findings.push(flat("disk", &disk, mean, DISK_TIMES_MAX));
        findings.push(flat("p99", &p99, median, P99_TIMES_MAX));
    }
    if let Some(pace) = run.profile.bounds {
        let moment = |sample: &Sample| Moment {
            at_seconds: sample.at_seconds as u64,
            disk: sample
                .nodes
                .iter()
                .map(|node| node.disk)
                .fold(Disk::default(), Disk::fuller),
        };
        let moments: Vec<Moment> = run.samples.iter().map(moment).collect();
        findings.extend(bounds::judge(&moments, pace));
    }
    findings
}

fn calls(run: &Run<'_>) -> Finding {
    let windows = || run.best.into_iter().chain(run.steps);
    let errors: u64 = windows().map(|window| window.errors).sum();
    let first = windows().find_map(|window| window.first_error.as_deref());
    Finding {
        holds: errors == 0,
        what: match first {
            None => "no call failed".to_owned(),
            Some(first) => format!("{errors} calls failed; the first: {first}"),
        },
    }
}

fn schedule(steps: &[Window]) -> Finding {
    let behind = steps.iter().find(|step| step.is_behind);
    Finding {
        holds: behind.is_none(),
        what: match behind {
            None => "every schedule was kept".to_owned(),
            Some(step) => format!("the schedule was not kept: {}, {}", step.what, step.load),
        },
    }
}

fn stock(comparison: Option<&Comparison>) -> Finding {
    match comparison {
        Some(comparison) => Finding {
            holds: comparison.mismatches == 0,
            what: format!(
                "mismatches: {} of {} positions",
                comparison.mismatches, comparison.positions
            ),
        },
        None => Finding {
            holds: false,
            what: "the stock was not compared: what became of the failed calls is not known"
                .to_owned(),
        },
    }
}

fn sold_out(run: &Run<'_>) -> Finding {
    let left = run.comparison.map(|c| (c.on_hand, c.reserved));
    let what = match left {
        Some((on_hand, reserved)) => format!(
            "sold: {} of {} units; {reserved} are still reserved",
            run.units_at_first - on_hand,
            run.units_at_first
        ),
        None => "how many units were sold is not known".to_owned(),
    };
    Finding {
        holds: left == Some((0, 0)),
        what,
    }
}

/// Compares the last third of values that were taken at equal distances with the third before.
fn flat(what: &str, values: &[f64], typical: fn(&[f64]) -> f64, times_max: f64) -> Finding {
    let third = values.len() / 3;
    let (before, last) = values.split_at(values.len() - third);
    let middle = &before[before.len() - third..];
    let times = ratio(typical(last), typical(middle));
    Finding {
        holds: third > 0 && times <= times_max,
        what: format!(
            "{what}: in the last third {times:.2} x what it was in the second; flat is at most \
             {times_max} x"
        ),
    }
}

fn mean(values: &[f64]) -> f64 {
    ratio(values.iter().sum(), values.len() as f64)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_is_what_does_not_grow_in_the_last_third() {
        let holds = |values: &[f64]| flat("test", values, mean, 1.1).holds;
        assert!(holds(&[1.0, 5.0, 10.0, 10.0, 10.5, 10.5]));
        assert!(!holds(&[1.0, 5.0, 10.0, 10.0, 12.0, 12.0]));
        assert!(
            holds(&[1.0, 1.0, 10.0, 10.0, 2.0, 2.0]),
            "less is flat, too"
        );
        assert!(!holds(&[1.0, 1.0]), "too few to tell");
        assert!(!holds(&[]));
    }

    #[test]
    fn one_that_is_not_compared_is_not_good() {
        assert!(!stock(None).holds);
        let comparison = Comparison {
            positions: 10,
            mismatches: 0,
            listed: Vec::new(),
            on_hand: 5,
            reserved: 0,
        };
        assert!(stock(Some(&comparison)).holds);
        let differing = Comparison {
            mismatches: 1,
            ..comparison
        };
        assert!(!stock(Some(&differing)).holds);
    }
}
