//! How long the other side of a call is waited for: for bytes that it has announced, and until it
//! takes what it has asked for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Who is waited for is looked at so often. A node that itself stands still for a while takes that
/// for one look.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who has moved less than [`MOVED_BYTES_MIN`] in so many looks loses the call...
const LOOKS: u32 = 10;
/// ...unless that ends it. A modem moves ten times as much.
const MOVED_BYTES_MIN: u64 = 64 * 1024;

/// Why a call is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The other side moves too little.
    Silent,
    /// The call's deadline has come.
    Late,
}

/// Runs only while the other side is waited for: most calls wait for nobody, and have no timer.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<(Pin<Box<Sleep>>, Waiting)>);

impl Patience {
    /// The other side has done its part.
    pub(super) fn rest(&mut self) {
        self.0 = None;
    }

    /// It is still waited for, and so many bytes in all have moved so far. Ready when that is over.
    pub(super) fn poll(
        &mut self,
        moved: u64,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Over> {
        let (timer, waiting) = self.0.get_or_insert_with(|| {
            let waiting = Waiting { looks: 0, moved };
            let first = next_look(Instant::now(), deadline);
            (Box::pin(sleep_until(first)), waiting)
        });
        waiting.move_on(moved);
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if let Some(over) = waiting.look(now, deadline) {
                return Poll::Ready(over);
            }
            timer.as_mut().reset(next_look(now, deadline));
        }
    }
}

fn next_look(now: Instant, deadline: Option<Instant>) -> Instant {
    let look = now + LOOK_EVERY;
    deadline.map_or(look, |deadline| look.min(deadline))
}

#[derive(Debug)]
struct Waiting {
    looks: u32,
    /// When they were last counted from 0.
    moved: u64,
}

impl Waiting {
    fn move_on(&mut self, moved: u64) {
        if moved - self.moved >= MOVED_BYTES_MIN {
            *self = Self { looks: 0, moved };
        }
    }

    fn look(&mut self, now: Instant, deadline: Option<Instant>) -> Option<Over> {
        self.looks += 1;
        match deadline {
            Some(deadline) if deadline <= now => Some(Over::Late),
            _ if self.looks >= LOOKS => Some(Over::Silent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second, as much moves between two looks, until it is over or for a minute.
    fn watch(moves: u64, deadline: Option<Duration>) -> Option<(u32, Over)> {
        let began = Instant::now();
        let deadline = deadline.map(|deadline| began + deadline);
        let mut waiting = Waiting { looks: 0, moved: 0 };
        (1..=60).find_map(|second| {
            waiting.move_on(u64::from(second) * moves);
            let over = waiting.look(began + second * LOOK_EVERY, deadline)?;
            Some((second, over))
        })
    }

    #[test]
    fn who_is_silent_loses_the_call_and_who_moves_keeps_it_up_to_its_deadline() {
        let second = Duration::from_secs(1);
        assert_eq!(watch(0, None), Some((10, Over::Silent)));
        assert_eq!(watch(1_000, None), Some((10, Over::Silent)));
        assert_eq!(watch(8_000, None), None);
        assert_eq!(watch(8_000, Some(30 * second)), Some((30, Over::Late)));
        assert_eq!(watch(0, Some(3 * second)), Some((3, Over::Late)));
    }
}
