//! The thread that writes the ledger.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use stock_storage::LedgerError;

use super::{History, Page, Stretch};
use crate::inbox::Inbox;
use crate::reply::ReplyTo;
use crate::worker::event::Event;

/// Pages that may wait for the thread. Past this the loop waits for it. It never comes to that while the
/// loop refuses commands in time.
const PAGES_WAITING_MAX: usize = 16 * 1024;

/// The ledger is made durable this often: nobody waits for it but the log, which is cut a little later.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// After it failed, the ledger is opened again this much later.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What is too old is looked for this often, or ten times while it grows old, whichever is more often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Steps of deleting what is too old, of a few thousand values each, between two looks at what is to be kept.
const FORGET_STEPS_MAX: usize = 4;

/// Something to do for the thread.
enum Work {
    Keep(Page),
    /// The answer says whether it was wanted.
    Fill(Stretch, SyncSender<bool>),
}

/// A thread that keeps history.
pub struct HistoryThread(Arc<SyncSender<Work>>);

/// Where others hand in what the ledger lacks.
pub struct HistoryDesk(Weak<SyncSender<Work>>);

impl HistoryThread {
    /// Begins. The thread ends when this is dropped and all is durable.
    pub fn start(history: History, inbox: Arc<Inbox<ReplyTo>>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(PAGES_WAITING_MAX);
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || keep(history, &receiver, &inbox))?;
        Ok(Self(Arc::new(sender)))
    }

    /// Hands a page over. Waits while far too much waits already.
    pub fn record(&self, page: Page) {
        // The thread ends only after this does.
        let _ = self.0.send(Work::Keep(page));
    }

    /// For whoever fetches what is missing. It does not keep the thread alive.
    pub fn desk(&self) -> HistoryDesk {
        HistoryDesk(Arc::downgrade(&self.0))
    }
}

impl HistoryDesk {
    /// Whether anybody is there.
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Hands in a stretch, and waits until it is durable. `false` if it is not wanted, or the ledger failed.
    pub fn fill(&self, stretch: Stretch) -> bool {
        let (answer, answered) = sync_channel(1);
        let handed_in = self.0.upgrade().map(|sender| {
            // One stretch at a time is handed in: this adds one to what the loop may let wait.
            sender.send(Work::Fill(stretch, answer))
        });
        matches!(handed_in, Some(Ok(()))) && answered.recv().unwrap_or(false)
    }
}

fn keep(mut history: History, receiver: &Receiver<Work>, inbox: &Inbox<ReplyTo>) {
    let mut next_sync = Instant::now();
    let forget_every = history
        .keep
        .map(|keep| (keep / 10).clamp(SYNC_EVERY, FORGET_EVERY));
    let mut next_forget = Instant::now();
    let mut is_open = true;
    while is_open {
        let mut next = match receiver.recv_timeout(SYNC_EVERY) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                is_open = false;
                None
            }
        };
        let mut reached = Vec::new();
        let mut filled = Vec::new();
        let mut kept = Ok(());
        while let Some(work) = next.take() {
            if let Work::Keep(Page::Rows(rows)) = &work {
                reached.push((rows.group, rows.to));
            }
            kept = kept.and_then(|()| match work {
                Work::Keep(page) => history.take(page),
                Work::Fill(stretch, answer) => {
                    filled.push((answer, history.fill(&stretch)?));
                    Ok(())
                }
            });
            next = receiver.try_recv().ok();
        }
        let is_due = Instant::now() >= next_sync || !filled.is_empty() || !is_open;
        let synced = kept.and_then(|()| match is_due {
            true => {
                next_sync = Instant::now() + SYNC_EVERY;
                history.sync()
            }
            false => Ok(Vec::new()),
        });
        let synced = match forget_every {
            Some(every) if Instant::now() >= next_forget => {
                next_forget = Instant::now() + every;
                synced.and_then(|synced| forget(&mut history).map(|()| synced))
            }
            _ => synced,
        };
        match synced {
            Ok(synced) => {
                for (answer, is_filled) in filled {
                    // Whoever asked may be gone.
                    let _ = answer.send(is_filled);
                }
                for (group, index) in synced {
                    inbox.push(Event::LedgerDurable { group, index });
                }
            }
            Err(error) => {
                // Stock goes on without history: what waited is lost, and the ledger says so.
                metrics::counter!("stockd_ledger_failures_total").increment(1);
                tracing::error!(%error, "the ledger failed; a stretch of history will be missing on this node");
                std::thread::sleep(REOPEN_AFTER);
                match history.open_again() {
                    Ok(()) => tracing::info!("the ledger is open again"),
                    Err(error) => tracing::error!(%error, "the ledger cannot be opened again yet"),
                }
                for (group, index) in reached {
                    inbox.push(Event::LedgerDurable { group, index });
                }
            }
        }
    }
}

/// Deletes what is too old, but not so much at a time that what is to be kept has to wait. What is left is
/// deleted next time.
fn forget(history: &mut History) -> Result<(), LedgerError> {
    for _ in 0..FORGET_STEPS_MAX {
        if !history.forget()? {
            break;
        }
    }
    Ok(())
}
