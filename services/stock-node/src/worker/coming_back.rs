//! How far a replica that was brought back has come: it replays its log, and then asks its leader
//! once how far the group is. Before the first it answers nobody, before the second it is no place
//! to lead from, and its node is not ready: a rolling restart that took the next one would take a
//! quorum.

use stock_replica::{ReadReady, Replica};

use super::reads::ContextSource;

/// A question that has brought no answer after this many ticks was lost, and is asked again.
const ASK_TICKS: u64 = 4;

/// Once it is back a replica stays so: what becomes of its group later is not its fault.
#[derive(Debug, Default)]
pub(super) struct ComingBack {
    stage: Stage,
    tick: u64,
    /// It has never been as far as its group, in this life of the process or another.
    is_new: bool,
}

#[derive(Debug, Default)]
enum Stage {
    /// What it knows to be committed is not applied yet, or it waits for its first snapshot.
    #[default]
    Replaying,
    /// It asks how far the group is.
    Asking(Option<Question>),
    /// The group was here.
    Following { index: u64 },
    /// It has been as far as its group.
    Back,
}

#[derive(Debug)]
struct Question {
    context: Vec<u8>,
    since_tick: u64,
}

impl ComingBack {
    /// Of a replica that begins with this index; 0: with a snapshot that has yet to come.
    pub(super) fn of(index: u64) -> Self {
        Self {
            is_new: index == 0,
            ..Self::default()
        }
    }

    /// Whether it has yet to apply what it knew to be committed, or waits for its first snapshot.
    pub(super) fn is_replaying(&self) -> bool {
        matches!(self.stage, Stage::Replaying)
    }

    /// Whether its state is worth a near read: all is applied that it knew to be committed when it
    /// was brought back. A new one has been sent a state that may be old by then, and others know
    /// better until it has been as far as they are.
    pub(super) fn is_near(&self) -> bool {
        match self.stage {
            Stage::Replaying => false,
            Stage::Asking(_) | Stage::Following { .. } => !self.is_new,
            Stage::Back => true,
        }
    }

    /// Whether it has been as far as its group since.
    pub(super) fn is_back(&self) -> bool {
        matches!(self.stage, Stage::Back)
    }

    /// The replica has applied so much.
    pub(super) fn applied(&mut self, replica: &Replica, applied_index: u64) {
        let knows = replica.origin().index > 0;
        match self.stage {
            Stage::Replaying if knows && applied_index >= replica.commit() => {
                self.stage = Stage::Asking(None);
            }
            Stage::Following { index } if applied_index >= index => self.stage = Stage::Back,
            _ => {}
        }
    }

    /// Time passes: who has replayed asks, and asks again where no answer came.
    pub(super) fn tick(&mut self, replica: &mut Replica, contexts: &mut ContextSource) {
        self.tick += 1;
        let tick = self.tick;
        let Stage::Asking(asked) = &mut self.stage else {
            return;
        };
        let waits = |it: &Question| it.since_tick + ASK_TICKS > tick;
        if asked.as_ref().is_some_and(waits) {
            return;
        }
        let context = contexts.next();
        let is_asked = replica.read_index(context.clone());
        *asked = is_asked.then_some(Question {
            context,
            since_tick: tick,
        });
    }

    /// An answer of the group's leader.
    pub(super) fn ready(&mut self, ready: &ReadReady) {
        if let Stage::Asking(Some(asked)) = &self.stage
            && asked.context == ready.context
        {
            self.stage = Stage::Following { index: ready.index };
        }
    }
}
