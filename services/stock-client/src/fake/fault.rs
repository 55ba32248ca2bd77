//! What goes wrong because a test says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock_api::unavailable;
use tonic::Status;

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not carried out, and the connection breaks: a node died.
    LostBefore,
    /// It is carried out, and the connection breaks before its answer: the next attempt is answered
    /// what this one would have been.
    LostAfter,
    /// It is not carried out and never answered.
    Silent,
    /// It is carried out, and answered after this time.
    Late(Duration),
    /// It is refused: the shard has no leader, as during an election. Nothing was done, and the
    /// client tries again.
    NoLeader,
    /// It is refused: too much is waiting. Nothing was done, and the client tries again.
    Overloaded,
    /// It is refused: the disk of the leader is nearly full. Nothing was done.
    DiskFull,
    /// It is refused in these words. Nothing was done.
    Refused(Status),
}

/// What happens to a call beside being carried out.
#[derive(Debug)]
pub(super) enum Course {
    /// Nothing.
    Usual,
    /// It is refused.
    Refused(Status),
    /// The connection breaks: after it was carried out, or before.
    Lost { is_done: bool },
    /// It has no answer.
    Silent,
    /// Its answer takes so long.
    Late(Duration),
}

/// Faults to come, and calls that came, by the kind of request.
#[derive(Default)]
pub(super) struct Faults {
    of_kinds: Mutex<HashMap<&'static str, OfKind>>,
}

#[derive(Default)]
struct OfKind {
    to_come: VecDeque<Fault>,
    for_good: Option<Fault>,
    calls: usize,
}

impl Faults {
    pub(super) fn add(&self, kind: &'static str, fault: Fault) {
        let mut of_kinds = self.of_kinds();
        let of_kind = of_kinds.entry(kind).or_default();
        of_kind.to_come.push_back(fault);
    }

    pub(super) fn add_for_good(&self, kind: &'static str, fault: Fault) {
        let mut of_kinds = self.of_kinds();
        of_kinds.entry(kind).or_default().for_good = Some(fault);
    }

    pub(super) fn forget(&self) {
        for of_kind in self.of_kinds().values_mut() {
            of_kind.to_come.clear();
            of_kind.for_good = None;
        }
    }

    pub(super) fn calls_of(&self, kind: &'static str) -> usize {
        self.of_kinds().get(kind).map_or(0, |of_kind| of_kind.calls)
    }

    /// A call has come.
    pub(super) fn take(&self, kind: &'static str) -> Course {
        let mut of_kinds = self.of_kinds();
        let of_kind = of_kinds.entry(kind).or_default();
        of_kind.calls += 1;
        let fault = of_kind.to_come.pop_front();
        match fault.or_else(|| of_kind.for_good.clone()) {
            None => Course::Usual,
            Some(Fault::LostBefore) => Course::Lost { is_done: false },
            Some(Fault::LostAfter) => Course::Lost { is_done: true },
            Some(Fault::Silent) => Course::Silent,
            Some(Fault::Late(time)) => Course::Late(time),
            Some(Fault::NoLeader) => Course::Refused(unavailable::no_leader(None)),
            Some(Fault::Overloaded) => Course::Refused(unavailable::overloaded()),
            Some(Fault::DiskFull) => Course::Refused(unavailable::disk_full()),
            Some(Fault::Refused(status)) => Course::Refused(status),
        }
    }

    fn of_kinds(&self) -> MutexGuard<'_, HashMap<&'static str, OfKind>> {
        self.of_kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
