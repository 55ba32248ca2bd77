//! A bound on what is logged: whoever is outside can make a node say something, but not fill the
//! disk that holds its data with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that one place in the program may log at once...
const AT_ONCE_MAX: u64 = 300;
/// ...and so many a second more for long. A line has some 200 bytes: a place logs 17 MB a day at
/// most.
const PER_SECOND: u64 = 1;

/// Leaves out what one place in the program, a library's included, says too often. Errors, warnings
/// and information count; who has more logged is looking at it, and has all of it.
#[derive(Debug, Default)]
pub struct LogLimit {
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    left: u64,
    refilled_at: Instant,
    left_out: u64,
}

impl Place {
    fn new(now: Instant) -> Self {
        Self {
            left: AT_ONCE_MAX,
            refilled_at: now,
            left_out: 0,
        }
    }

    /// How many lines were left out before this one; none if this one is left out, too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.refilled_at).as_secs() * PER_SECOND;
        if earned > 0 {
            self.refilled_at = now;
            self.left = (self.left + earned).min(AT_ONCE_MAX);
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let taken = {
            let now = Instant::now();
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let place = places.entry(metadata.callsite());
            place.or_insert_with(|| Place::new(now)).take(now)
        };
        match taken {
            Some(0) => true,
            Some(lines) => {
                tracing::warn!(
                    lines,
                    target = metadata.target(),
                    line = metadata.line(),
                    "lines of one place were left out of the log"
                );
                true
            }
            None => {
                metrics::counter!("stockd_log_lines_left_out_total").increment(1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_place_that_says_too_much_is_cut_short_and_counted() {
        let began = Instant::now();
        let mut place = Place::new(began);
        let taken = (0..10_000).filter(|_| place.take(began).is_some()).count();
        assert_eq!(taken as u64, AT_ONCE_MAX);
        let later = began + Duration::from_secs(1);
        assert_eq!(place.take(later), Some(10_000 - AT_ONCE_MAX));
        assert_eq!(place.take(later), None);
        assert_eq!(place.take(later + Duration::from_secs(5)), Some(1));
    }
}
