//! Waking up when a call is due. The runtime's own timer counts in milliseconds, which is five
//! calls at 5,000 a second; the kernel's counts in nanoseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    pub(crate) fn new() -> io::Result<Pacer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that may close their descriptor early; \
                an OwnedFd does not"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Pacer { timer })
    }

    /// Returns at once where the time has passed.
    pub(crate) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        // Reading takes the expiry back, so that the next wait is not answered by this one.
        self.timer
            .async_io(Interest::READABLE, |timer| {
                let mut expirations = [0; 8];
                Ok(rustix::io::read(timer, &mut expirations)?)
            })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waits_are_as_long_as_asked_and_finer_than_a_millisecond() {
        let pacer = Pacer::new().expect("a timer");
        let mut shortest = Duration::MAX;
        for _ in 0..50 {
            let started = Instant::now();
            let due = started + Duration::from_micros(200);
            pacer.wait_until(due).await.expect("waits");
            assert!(Instant::now() >= due, "a wait ended early");
            shortest = shortest.min(started.elapsed());
        }
        // The shortest of many, because a busy machine may delay any single one.
        assert!(shortest < Duration::from_micros(900), "{shortest:?}");
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_not_waited_for() {
        let pacer = Pacer::new().expect("a timer");
        let waited = tokio::time::timeout(Duration::from_secs(5), pacer.wait_until(Instant::now()));
        assert!(waited.await.is_ok());
    }
}
