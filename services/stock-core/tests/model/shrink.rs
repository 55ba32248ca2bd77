//! What to do when a world goes wrong: find out how little of its log it takes.

use std::panic::{self, AssertUnwindSafe};

use crate::Trial;
use crate::world::Step;

/// Logs tried before the shortest so far is good enough.
const TRIALS_MAX: usize = 2_000;

/// A panic is a difference like any other.
pub(crate) fn catching_panics<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Fails the test with the seed and a short log.
pub(crate) fn give_up(seed: u64, log: &[Step], difference: &str) -> ! {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let (short, last) = shorten(log.to_vec());
    panic::set_hook(hook);
    let mut text = String::new();
    for step in &short {
        let same_entry = if step.same_entry { " (same entry)" } else { "" };
        text += &format!(
            "at {}{same_entry}: {:?}\n",
            step.moment.stamp.0, step.command
        );
    }
    panic!(
        "seed {seed}, step {}: {difference}\n\n{} steps suffice:\n{text}\n{}",
        log.len(),
        short.len(),
        last.unwrap_or_else(|| "which went well when it was run again".to_string()),
    );
}

/// Leaves out ever smaller pieces, as long as something still goes wrong.
fn shorten(mut log: Vec<Step>) -> (Vec<Step>, Option<String>) {
    let mut last = fails(&log);
    let mut trials = 0;
    let mut piece = log.len() / 2;
    while piece > 0 && last.is_some() {
        let mut from = 0;
        while from < log.len() && trials < TRIALS_MAX {
            trials += 1;
            let mut shorter = log.clone();
            shorter.drain(from..(from + piece).min(log.len()));
            match fails(&shorter) {
                Some(difference) => {
                    last = Some(difference);
                    log = shorter;
                }
                None => from += piece,
            }
        }
        piece /= 2;
    }
    (log, last)
}

fn fails(log: &[Step]) -> Option<String> {
    let run = || {
        let mut trial = Trial::new();
        for step in log {
            trial.step(step)?;
        }
        trial.same_bytes()
    };
    catching_panics(run).err()
}
