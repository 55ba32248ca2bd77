//! What the loop has yet to see, and how much of it there may be.

pub mod reply;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use stock_cluster::GroupId;
use stock_node::event::Event;
use tokio::sync::Notify;

/// Commands of one group that may be on their way at once, from the edge's door to the answer. Past
/// this they are refused: at the rate one group can do, a tenth of a second's worth.
pub const COMMANDS_IN_FLIGHT_MAX: usize = 4_096;

/// Bytes of commands of one group that may be on their way at once.
pub const COMMAND_BYTES_IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;

/// Bytes of peers' messages that may wait here. Past this their connections are read no further.
pub(crate) const PEER_BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;

/// Events for the loop.
pub struct Inbox<R> {
    waiting: Mutex<Waiting<R>>,
    waker: Waker,
    drained: Notify,
    in_flight: Vec<InFlight>,
}

struct Waiting<R> {
    events: Vec<Event<R>>,
    peer_bytes: usize,
}

#[derive(Default)]
struct InFlight {
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

/// How the loop is woken: it depends on where it lives.
pub enum Waker {
    /// A task of the edge's runtime.
    Task(Notify),
    /// A thread of its own, once it runs.
    Thread(OnceLock<Thread>),
}

impl Waker {
    fn wake(&self) {
        match self {
            Self::Task(notify) => notify.notify_one(),
            Self::Thread(thread) => {
                if let Some(thread) = thread.get() {
                    thread.unpark();
                }
            }
        }
    }
}

impl<R> Inbox<R> {
    /// An empty inbox for this many groups.
    pub fn new(groups: u32, waker: Waker) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                events: Vec::new(),
                peer_bytes: 0,
            }),
            waker,
            drained: Notify::new(),
            in_flight: (0..groups).map(|_| InFlight::default()).collect(),
        }
    }

    /// Adds an event.
    pub fn push(&self, event: Event<R>) {
        let was_empty = {
            let mut waiting = self.waiting();
            let was_empty = waiting.events.is_empty();
            waiting.events.push(event);
            was_empty
        };
        if was_empty {
            self.waker.wake();
        }
    }

    /// Adds what a peer sent, all at once; waits first while too much of it is here.
    pub async fn push_from_peer(&self, events: &mut Vec<Event<R>>, bytes: usize) {
        loop {
            let room = self.drained.notified();
            {
                let mut waiting = self.waiting();
                if waiting.peer_bytes < PEER_BYTES_WAITING_MAX {
                    waiting.peer_bytes += bytes;
                    waiting.events.append(events);
                    break;
                }
            }
            room.await;
        }
        self.waker.wake();
    }

    /// Takes everything. `spare` comes back empty, with its memory for the next events.
    pub fn drain(&self, spare: &mut Vec<Event<R>>) {
        debug_assert!(spare.is_empty());
        let mut waiting = self.waiting();
        std::mem::swap(&mut waiting.events, spare);
        if std::mem::take(&mut waiting.peer_bytes) >= PEER_BYTES_WAITING_MAX {
            self.drained.notify_waiters();
        }
    }

    /// Lets commands in, if there is room for them.
    pub fn admit(
        self: &Arc<Self>,
        group: GroupId,
        commands: usize,
        bytes: usize,
    ) -> Option<Permit<R>> {
        let in_flight = &self.in_flight[group.index()];
        let permit = Permit {
            inbox: Arc::clone(self),
            group,
            commands,
            bytes,
        };
        let commands_before = in_flight.commands.fetch_add(commands, Ordering::Relaxed);
        let bytes_before = in_flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = commands_before + commands <= COMMANDS_IN_FLIGHT_MAX
            && bytes_before + bytes <= COMMAND_BYTES_IN_FLIGHT_MAX;
        // Dropping the permit takes back what was added.
        has_room.then_some(permit)
    }

    /// Whether so many commands of a group would be let in now, unless they are large.
    pub fn has_room(&self, group: GroupId, commands: usize) -> bool {
        let in_flight = &self.in_flight[group.index()].commands;
        in_flight.load(Ordering::Relaxed) + commands <= COMMANDS_IN_FLIGHT_MAX
    }

    /// Wakes the loop though there is no event.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// How the loop is woken.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for commands, given back when it is dropped.
pub struct Permit<R> {
    inbox: Arc<Inbox<R>>,
    group: GroupId,
    commands: usize,
    bytes: usize,
}

impl<R> Drop for Permit<R> {
    fn drop(&mut self) {
        let in_flight = &self.inbox.in_flight[self.group.index()];
        in_flight
            .commands
            .fetch_sub(self.commands, Ordering::Relaxed);
        in_flight.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_room_comes_back() {
        let inbox = Arc::new(Inbox::<()>::new(2, Waker::Task(Notify::new())));
        let group = GroupId(1);
        let most = inbox.admit(group, COMMANDS_IN_FLIGHT_MAX - 1, 10).unwrap();
        assert!(inbox.admit(group, 2, 10).is_none());
        assert!(inbox.has_room(group, 1) && !inbox.has_room(group, 2));
        let last = inbox.admit(group, 1, 10).unwrap();
        assert!(inbox.admit(group, 1, 10).is_none());
        assert!(
            inbox.admit(GroupId(0), 1, 10).is_some(),
            "other groups have their own room"
        );
        assert!(!inbox.has_room(group, 1) && inbox.has_room(GroupId(0), 1));
        drop((most, last));
        assert!(
            inbox
                .admit(group, 1, COMMAND_BYTES_IN_FLIGHT_MAX + 1)
                .is_none()
        );
        assert!(inbox.admit(group, 1, COMMAND_BYTES_IN_FLIGHT_MAX).is_some());
    }
}
