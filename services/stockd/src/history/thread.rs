//! The thread that writes the ledger.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stock_node::event::Event;
use stock_storage::LedgerError;
use tokio_util::sync::CancellationToken;

use super::{History, Page, Stretch};
use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;

/// Pages that may wait for the thread. With a quarter of them it is woken; past all of them the
/// loop waits for it, to which it never comes while the loop refuses commands in time.
const PAGES_WAITING_MAX: usize = 16 * 1024;

/// The ledger is made durable this often: nobody waits for it but the log, which is cut a little
/// later.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// After it failed, the ledger is opened again this much later.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What is too old is looked for this often, or ten times while it grows old, whichever is more
/// often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Steps of deleting what is too old, of a few thousand values each, between two looks at what is
/// to be kept.
const FORGET_STEPS_MAX: usize = 4;

/// Something to do for the thread.
enum Work {
    Keep(Page),
    /// The answer says whether it was wanted.
    Fill(Stretch, SyncSender<bool>),
}

/// What waits for the thread. It looks by itself every [`SYNC_EVERY`]: to wake it for every page
/// would cost the loop more than to write the page.
struct Handover {
    waiting: Mutex<Waiting>,
    /// There is something that cannot wait.
    urgent: Condvar,
    /// There is room again.
    taken: Condvar,
}

struct Waiting {
    work: Vec<Work>,
    is_open: bool,
    is_urgent: bool,
    /// Nobody takes anything any more.
    is_over: bool,
}

impl Handover {
    fn put(&self, work: Work) {
        let mut waiting = self.waiting();
        while waiting.work.len() >= PAGES_WAITING_MAX && !waiting.is_over {
            let taken = self.taken.wait(waiting);
            waiting = taken.unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.is_over {
            return;
        }
        let was_urgent = waiting.is_urgent;
        waiting.is_urgent |=
            matches!(work, Work::Fill(..)) || waiting.work.len() >= PAGES_WAITING_MAX / 4;
        waiting.work.push(work);
        if waiting.is_urgent && !was_urgent {
            self.urgent.notify_one();
        }
    }

    /// All that waits, a while after it was asked for, or when it cannot wait; and whether more may
    /// come.
    fn take(&self) -> (Vec<Work>, bool) {
        let waiting = self.waiting();
        let may_wait = |waiting: &mut Waiting| waiting.is_open && !waiting.is_urgent;
        let waited = self
            .urgent
            .wait_timeout_while(waiting, SYNC_EVERY, may_wait);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.is_urgent = false;
        self.taken.notify_all();
        (std::mem::take(&mut waiting.work), waiting.is_open)
    }

    fn close(&self) {
        self.waiting().is_open = false;
        self.urgent.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that keeps history.
pub struct HistoryThread(Arc<Handover>);

/// Where others hand in what the ledger lacks.
pub struct HistoryHandle(Arc<Handover>);

impl HistoryThread {
    /// Begins. The thread ends when this is dropped and all is durable; then the token is
    /// cancelled.
    pub fn start(
        history: History,
        inbox: Arc<Inbox<ReplyTo>>,
    ) -> std::io::Result<(Self, CancellationToken)> {
        let handover = Arc::new(Handover {
            waiting: Mutex::new(Waiting {
                work: Vec::new(),
                is_open: true,
                is_urgent: false,
                is_over: false,
            }),
            urgent: Condvar::new(),
            taken: Condvar::new(),
        });
        let kept = Arc::clone(&handover);
        let over = CancellationToken::new();
        let at_end = over.clone().drop_guard();
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                let _at_end = at_end;
                keep(history, &kept, &inbox);
            })?;
        Ok((Self(handover), over))
    }

    /// Hands a page over. Waits while far too much waits already.
    pub fn record(&self, page: Page) {
        self.0.put(Work::Keep(page));
    }

    /// For whoever fetches what is missing. It does not keep the thread alive.
    pub fn handle(&self) -> HistoryHandle {
        HistoryHandle(Arc::clone(&self.0))
    }
}

impl Drop for HistoryThread {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl HistoryHandle {
    /// Whether anybody is there.
    pub fn is_open(&self) -> bool {
        self.0.waiting().is_open
    }

    /// Hands in a stretch, and waits until it is durable. `false` if it is not wanted, or the
    /// ledger failed.
    pub fn fill(&self, stretch: Stretch) -> bool {
        if !self.is_open() {
            return false;
        }
        let (answer, answered) = sync_channel(1);
        // One stretch at a time is handed in: this adds one to what the loop may let wait.
        self.0.put(Work::Fill(stretch, answer));
        // Where nobody takes it any more the answer goes with the handover.
        loop {
            match answered.recv_timeout(SYNC_EVERY) {
                Ok(is_wanted) => return is_wanted,
                Err(RecvTimeoutError::Timeout) if self.is_open() => {}
                Err(_) => return false,
            }
        }
    }
}

/// The end of the thread, whatever it comes from: whoever hands something in must not wait for it.
struct End<'a>(&'a Handover);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.is_open = false;
        waiting.is_over = true;
        waiting.work.clear();
        self.0.taken.notify_all();
    }
}

fn keep(mut history: History, handover: &Handover, inbox: &Inbox<ReplyTo>) {
    let _end = End(handover);
    let mut next_sync = Instant::now();
    let forget_every = history
        .keep
        .map(|keep| (keep / 10).clamp(SYNC_EVERY, FORGET_EVERY));
    let mut next_forget = Instant::now();
    let mut is_open = true;
    while is_open {
        let work;
        (work, is_open) = handover.take();
        let mut reached = Vec::new();
        let mut filled = Vec::new();
        let mut kept = Ok(());
        for work in work {
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
                tracing::error!(%error, "the ledger failed; some history will be missing here");
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

/// Deletes what is too old, but not so much at a time that what is to be kept has to wait. What is
/// left is deleted next time.
fn forget(history: &mut History) -> Result<(), LedgerError> {
    for _ in 0..FORGET_STEPS_MAX {
        if !history.forget()? {
            break;
        }
    }
    Ok(())
}
