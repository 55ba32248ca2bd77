//! A failure with less around it: fewer kinds of faults, a shorter run.

use super::faults::FaultKind;
use super::{Options, Run, run};

/// Runs the seed of a failure again and again, each time with something left out, and keeps what
/// still breaks the same promise. Returns the options that remain.
pub fn shrink(failed: &Run, options: &Options) -> Options {
    let Some(broken) = &failed.broken else {
        return options.clone();
    };
    let fails = |options: &Options| {
        let again = run(failed.seed, options);
        again
            .broken
            .is_some_and(|again| again.check == broken.check)
    };
    let mut least = options.clone();
    for kind in FaultKind::ALL {
        let mut fewer = least.clone();
        if fewer.without.insert(*kind) && fails(&fewer) {
            least = fewer;
        }
    }
    for seconds in [3, 5, 8, 12, 18] {
        let shorter = Options {
            seconds_max: Some(seconds),
            ..least.clone()
        };
        if least.seconds_max.is_none_or(|now| now > seconds) && fails(&shorter) {
            return shorter;
        }
    }
    least
}
