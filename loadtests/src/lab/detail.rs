//! A window looked at more closely: by kind of call, and as it went on. Every stretch is added up
//! when it is over, with histograms that are used again, so that an hour costs no more than a
//! minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::call::{Call, histogram};

/// What some calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) calls: u64,
    pub(crate) lines: u64,
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// What one stretch of a window came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    /// When it began, from the beginning of what is drawn.
    pub(crate) at_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) errors: u64,
    #[serde(flatten)]
    pub(crate) all: Summary,
    pub(crate) kinds: BTreeMap<&'static str, Summary>,
}

/// Collects both.
pub(super) struct Detail {
    from: Instant,
    measured: Duration,
    point_every: Duration,
    whole: BTreeMap<&'static str, Times>,
    stretch: Stretch,
    points: Vec<Point>,
    /// When the latest answer came.
    latest: Duration,
}

struct Times {
    took_ns: Histogram<u64>,
    lines: u64,
}

/// The stretch that is not over yet.
struct Stretch {
    all: Times,
    kinds: BTreeMap<&'static str, Times>,
    errors: u64,
}

impl Times {
    fn new() -> Times {
        Times {
            took_ns: histogram(),
            lines: 0,
        }
    }

    fn add(&mut self, took_ns: u64, lines: u64) {
        self.took_ns.saturating_record(took_ns);
        self.lines += lines;
    }

    fn clear(&mut self) {
        self.took_ns.reset();
        self.lines = 0;
    }

    fn summary(&self, seconds: f64) -> Summary {
        let micros = |share| self.took_ns.value_at_quantile(share) as f64 / 1e3;
        Summary {
            calls: self.took_ns.len(),
            lines: self.lines,
            rate: super::ratio(self.took_ns.len() as f64, seconds),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: self.took_ns.max() as f64 / 1e3,
        }
    }
}

impl Detail {
    pub(super) fn new(from: Instant, until: Instant, point_every: Duration) -> Detail {
        Detail {
            from,
            measured: until - from,
            point_every,
            whole: BTreeMap::new(),
            stretch: Stretch {
                all: Times::new(),
                kinds: BTreeMap::new(),
                errors: 0,
            },
            points: Vec::new(),
            latest: Duration::ZERO,
        }
    }

    /// A call that counts was answered.
    pub(super) fn answered(&mut self, now: Instant, took_ns: u64, call: Call) {
        self.go_on(now);
        let all = [
            &mut self.stretch.all,
            kind_of(&mut self.stretch.kinds, call.kind),
            kind_of(&mut self.whole, call.kind),
        ];
        for tally in all {
            tally.add(took_ns, call.lines);
        }
    }

    /// The window is over earlier than it was to be.
    pub(super) fn given_up(&mut self, now: Instant) {
        self.go_on(now);
        self.measured = self.measured.min(now.saturating_duration_since(self.from));
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.go_on(now);
        self.stretch.errors += 1;
    }

    /// What the window came to, by kind and stretch by stretch.
    pub(super) fn finish(&mut self) -> (BTreeMap<&'static str, Summary>, Vec<Point>) {
        // The last stretch of the window must have begun.
        self.go_on(self.from + self.start(self.stretches() - 1));
        let end = match self.points.len() < self.stretches() {
            true => self.latest.max(self.measured),
            false => self.start(self.points.len() + 1),
        };
        self.close(end);
        let seconds = self.measured.as_secs_f64();
        let whole = self.whole.iter();
        let kinds = whole.map(|(kind, tally)| (*kind, tally.summary(seconds)));
        (kinds.collect(), std::mem::take(&mut self.points))
    }

    /// Of the window itself.
    fn stretches(&self) -> usize {
        let stretches = self.measured.as_secs_f64() / self.point_every.as_secs_f64();
        (stretches.ceil() as usize).max(1)
    }

    /// Answers may come when the window is over. The first of them belong to its last stretch,
    /// which is that much longer; later ones have stretches of their own.
    fn last_stretch_end(&self) -> Duration {
        self.measured + self.point_every
    }

    fn number(&self, at: Duration) -> usize {
        let in_stretches = |time: Duration| {
            let stretches = time.as_secs_f64() / self.point_every.as_secs_f64();
            stretches as usize
        };
        match at.checked_sub(self.last_stretch_end()) {
            None => in_stretches(at).min(self.stretches() - 1),
            Some(after) => self.stretches() + in_stretches(after),
        }
    }

    fn start(&self, number: usize) -> Duration {
        match number.checked_sub(self.stretches()) {
            None => self.point_every * number as u32,
            Some(after) => self.last_stretch_end() + self.point_every * after as u32,
        }
    }

    /// Closes the stretches that are over.
    fn go_on(&mut self, now: Instant) {
        let at = now.saturating_duration_since(self.from);
        self.latest = self.latest.max(at);
        let under_way = self.number(at);
        while self.points.len() < under_way {
            self.close(self.start(self.points.len() + 1));
        }
    }

    fn close(&mut self, end: Duration) {
        let start = self.start(self.points.len());
        let seconds = end.saturating_sub(start).as_secs_f64();
        let Stretch { all, kinds, errors } = &mut self.stretch;
        let some = kinds.iter().filter(|(_, tally)| !tally.took_ns.is_empty());
        self.points.push(Point {
            at_seconds: start.as_secs_f64(),
            seconds,
            errors: std::mem::take(errors),
            all: all.summary(seconds),
            kinds: some
                .map(|(kind, tally)| (*kind, tally.summary(seconds)))
                .collect(),
        });
        all.clear();
        kinds.values_mut().for_each(Times::clear);
    }
}

fn kind_of<'a>(kinds: &'a mut BTreeMap<&'static str, Times>, kind: &'static str) -> &'a mut Times {
    kinds.entry(kind).or_insert_with(Times::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Call = Call {
        kind: "read",
        lines: 1,
    };
    const RECEIVE: Call = Call {
        kind: "receive",
        lines: 500,
    };

    #[test]
    fn each_stretch_is_added_up_by_itself_and_silence_is_a_point_too() {
        let from = Instant::now();
        let at = |seconds: f64| from + Duration::from_secs_f64(seconds);
        let mut detail = Detail::new(from, at(3.5), Duration::from_secs(1));
        detail.answered(at(0.1), 1_000_000, READ);
        detail.answered(at(0.9), 3_000_000, RECEIVE);
        detail.failed(at(2.1));
        // The answers of calls that were due inside the window.
        detail.answered(at(4.0), 9_000_000, READ);
        detail.answered(at(4.6), 9_000_000, READ);
        let (kinds, points) = detail.finish();
        assert_eq!(
            points.iter().map(|p| p.all.calls).collect::<Vec<_>>(),
            [2, 0, 0, 1, 1]
        );
        assert_eq!(
            points.iter().map(|p| p.errors).collect::<Vec<_>>(),
            [0, 0, 1, 0, 0]
        );
        assert_eq!(points[0].all.lines, 501);
        assert_eq!(points[0].kinds["receive"].calls, 1);
        assert!(points[1].kinds.is_empty());
        assert_eq!((points[3].at_seconds, points[3].seconds), (3.0, 1.5));
        assert_eq!((points[4].at_seconds, points[4].seconds), (4.5, 1.0));
        // With three digits.
        assert!((9_000.0..9_010.0).contains(&points[3].all.max_us));
        assert_eq!(kinds["read"].calls, 3);
        assert_eq!(kinds["receive"].lines, 500);
    }

    #[test]
    fn a_window_that_is_given_up_is_as_long_as_it_was() {
        let from = Instant::now();
        let at = |seconds: f64| from + Duration::from_secs_f64(seconds);
        let mut detail = Detail::new(from, at(100.0), Duration::from_secs(1));
        for call in 0..20 {
            detail.answered(at(f64::from(call) / 10.0), 1_000_000, READ);
        }
        detail.given_up(at(2.5));
        detail.answered(at(2.6), 1_000_000, READ);
        let (kinds, points) = detail.finish();
        assert_eq!(
            points.iter().map(|p| p.all.calls).collect::<Vec<_>>(),
            [10, 10, 1]
        );
        assert_eq!(points[2].at_seconds, 2.0);
        assert_eq!(kinds["read"].rate, 21.0 / 2.5);
    }

    #[test]
    fn a_window_shorter_than_a_stretch_is_one_point() {
        let from = Instant::now();
        let until = from + Duration::from_millis(300);
        let mut detail = Detail::new(from, until, Duration::from_secs(1));
        detail.answered(until, 1_000, READ);
        let (_, points) = detail.finish();
        assert_eq!(points.len(), 1);
        assert_eq!((points[0].all.calls, points[0].seconds), (1, 0.3));
    }
}
