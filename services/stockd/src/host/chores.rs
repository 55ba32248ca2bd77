//! Work on files that must not stop the loop: writing checkpoints, deleting old ones, freeing the
//! log.
//!
//! Chores are done in order, on one thread of their own. What was asked for in vain is asked for
//! again by the loop, or tried again here; only a log that cannot be trusted any more ends the
//! process.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use stock_cluster::GroupId;
use stock_node::checkpoint::Image;
use stock_node::chore::Chore;
use stock_node::event::Event;
use stock_node::notice::StateHash;
use stock_storage::{CheckpointStore, LogError, Purger};

use crate::directory::checkpoint_files;
use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;

/// What came of a chore.
#[derive(Debug)]
pub enum Performed<R> {
    /// It is done, and the loop is to be told of it.
    Tell(Vec<Event<R>>),
    /// It is done, or will be asked for again.
    Done,
    /// It could not be done now, and nobody but whoever does the chores knows.
    Again(Chore),
}

/// After so long a chore is tried again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Whoever does the chores.
pub struct Chores {
    /// The node's checkpoint files.
    pub store: CheckpointStore,
    /// The node's log.
    pub purger: Purger,
    /// Which life of the cluster this is.
    pub incarnation: u128,
    /// The node's data directory.
    pub directory: u128,
}

impl Chores {
    /// Does one. After an error the log cannot be trusted any more, and the process must end at
    /// once.
    pub fn perform<R>(&self, chore: Chore) -> Result<Performed<R>, LogError> {
        match chore {
            Chore::WriteCheckpoint(image) => return Ok(Performed::Tell(vec![self.write(*image)])),
            Chore::HashState {
                group,
                replica,
                index,
                mut frozen,
            } => {
                let (hash, buckets) = frozen.hash();
                let hash = Box::new(StateHash {
                    group,
                    replica,
                    index,
                    hash,
                    buckets,
                });
                return Ok(Performed::Tell(vec![Event::StateHashed(hash)]));
            }
            Chore::DropCheckpoints { group, before } => {
                let dropped = self
                    .store
                    .retain(u64::from(group.0), |info| info.meta.index >= before);
                if let Err(error) = dropped {
                    tracing::warn!(group = group.0, %error, "old checkpoints stay for now");
                }
            }
            Chore::GiveBack(unwanted) => drop(unwanted),
            Chore::FreeLog { room_bytes } => match self.purger.purge(room_bytes) {
                Ok(()) => {}
                Err(error @ LogError::Unreadable { .. }) => {
                    tracing::error!(%error, "the log grows until this node is started again");
                    return Ok(Performed::Tell(self.find_damage()));
                }
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => tracing::warn!(%error, "the log keeps its size for now"),
            },
            Chore::AdoptSnapshot { group, index } => {
                let incoming = self.store.incoming(u64::from(group.0));
                for info in incoming.iter().filter(|info| info.meta.index == index) {
                    if let Err(error) = self.store.adopt(info) {
                        tracing::warn!(group = group.0, index, %error, "a snapshot's file stays \
                            where it is for now");
                        return Ok(Performed::Again(Chore::AdoptSnapshot { group, index }));
                    }
                }
            }
            Chore::DropSnapshot { group, index } => {
                let incoming = self.store.incoming(u64::from(group.0));
                if incoming.iter().any(|info| info.meta.index == index)
                    && let Err(error) = self.store.discard_incoming(u64::from(group.0))
                {
                    tracing::warn!(group = group.0, %error, "a snapshot's file stays for now");
                    return Ok(Performed::Again(Chore::DropSnapshot { group, index }));
                }
            }
        }
        Ok(Performed::Done)
    }

    /// Whose entries cannot be read: each such replica is built again, and its part of the log
    /// dropped with it.
    fn find_damage<R>(&self) -> Vec<Event<R>> {
        let damaged = self.purger.damaged_groups().into_iter();
        damaged
            .filter_map(|(group, index, why)| {
                Some(Event::LogDamaged {
                    group: GroupId(u32::try_from(group).ok()?),
                    why: format!("entry {index} of its log cannot be read: {why}"),
                })
            })
            .collect()
    }

    fn write<R>(&self, mut image: Image) -> Event<R> {
        let began = Instant::now();
        let written =
            checkpoint_files::write(&self.store, self.incarnation, self.directory, &mut image);
        let bytes = match written {
            Ok(info) => {
                metrics::histogram!("stockd_checkpoint_write_seconds").record(began.elapsed());
                tracing::debug!(
                    group = image.group.0,
                    index = image.point.index,
                    bytes = info.bytes,
                    "a checkpoint was written"
                );
                Some(info.bytes)
            }
            Err(error) => {
                metrics::counter!("stockd_checkpoint_failures_total").increment(1);
                tracing::warn!(group = image.group.0, %error, "a checkpoint could not be written; \
                    trying again later");
                None
            }
        };
        Event::CheckpointWritten {
            group: image.group,
            replica: image.replica,
            point: image.point,
            bytes,
        }
    }
}

/// How far long work steps back behind the loop, which answers callers: with all replicas of a
/// group on a machine, each writes its state at the same time.
const NICE: i32 = 10;

/// Does something on a thread that gets a processor when nobody else wants it, or seldom.
fn at_leisure<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Linux takes it for this thread alone. Where it is not allowed the work is done all
            // the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            work()
        });
        let done = thread.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Chores that could not be done. At most one for each snapshot that has arrived: no other is taken
/// in before it is done.
#[derive(Default)]
struct Again {
    chores: Vec<Chore>,
    /// When they are tried again, if there are any.
    due: Option<Instant>,
}

impl Again {
    fn push(&mut self, chore: Chore) {
        self.chores.push(chore);
        self.due.get_or_insert(Instant::now() + AGAIN_AFTER);
    }

    fn take(&mut self) -> Vec<Chore> {
        self.due = None;
        std::mem::take(&mut self.chores)
    }
}

/// What is to be done next; waits for it. Nothing once nobody asks any more. What is to be tried
/// again has its turn when it is due, however much else is asked for: as long as it is not done, no
/// snapshot of its group is taken in.
fn next(asked: &Receiver<Chore>, again: &mut Again) -> Option<Vec<Chore>> {
    let Some(due) = again.due else {
        return Some(vec![asked.recv().ok()?]);
    };
    let left = due.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Some(again.take());
    }
    match asked.recv_timeout(left) {
        Ok(chore) => Some(vec![chore]),
        Err(RecvTimeoutError::Timeout) => Some(again.take()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// A thread that does the chores.
pub struct ChoreThread(Sender<Chore>);

impl ChoreThread {
    /// Begins. The thread ends when this is dropped and all is done.
    pub fn start(chores: Chores, inbox: Arc<Inbox<ReplyTo>>) -> std::io::Result<Self> {
        let (sender, receiver): (Sender<Chore>, Receiver<Chore>) = channel();
        std::thread::Builder::new()
            .name("chores".to_owned())
            .spawn(move || {
                let mut again = Again::default();
                while let Some(mut due) = next(&receiver, &mut again) {
                    for chore in due.drain(..) {
                        let performed = match chore.is_long() {
                            true => at_leisure(|| chores.perform(chore)),
                            false => chores.perform(chore),
                        };
                        match performed {
                            Ok(Performed::Tell(events)) => {
                                events.into_iter().for_each(|event| inbox.push(event));
                            }
                            Ok(Performed::Done) => {}
                            Ok(Performed::Again(chore)) => again.push(chore),
                            Err(error) => {
                                tracing::error!(%error, "stopping at once: the log cannot be \
                                    trusted any more");
                                std::process::abort();
                            }
                        }
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Has one done. There are few of them: one checkpoint at a time, and what follows from it.
    pub fn ask(&self, chore: Chore) {
        // The thread ends only after this does.
        let _ = self.0.send(chore);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_done_is_tried_again_when_it_is_due_whatever_else_is_asked_for() {
        let (ask, asked) = channel();
        let chore = |index| Chore::AdoptSnapshot {
            group: GroupId(1),
            index,
        };
        let due = |again: &mut Again| {
            let due = next(&asked, again)?;
            let indexes = due.iter().map(|chore| match chore {
                Chore::AdoptSnapshot { index, .. } => *index,
                other => panic!("{other:?}"),
            });
            Some(indexes.collect::<Vec<u64>>())
        };
        let mut again = Again::default();
        for index in 8..12 {
            ask.send(chore(index)).unwrap();
        }
        again.push(chore(7));
        assert_eq!(due(&mut again), Some(vec![8]), "it is not due yet");
        again.due = Some(Instant::now());
        assert_eq!(due(&mut again), Some(vec![7]));
        assert_eq!(due(&mut again), Some(vec![9]));
        drop(ask);
        again.push(chore(7));
        assert_eq!(due(&mut again), Some(vec![10]));
        assert_eq!(due(&mut again), Some(vec![11]));
        assert_eq!(due(&mut again), None);
    }
}
