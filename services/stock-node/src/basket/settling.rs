//! Finds out what has become of something that home has prepared and not decided: every
//! participant that was asked for a part is asked whether it holds it, and will not if it does not.

use std::sync::Arc;

use stock_core::{BasketCommand, Decide, Prepared, Probe, Question};

use super::parts::{Parts, Said, ToShard};
use crate::answer::Failure;

/// One version of one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    prepared: Arc<Prepared>,
    question: Question,
    parts: Parts,
}

impl Settling {
    /// Of what is prepared, whether or not the reservation has ended meanwhile.
    pub fn new(prepared: Arc<Prepared>) -> Self {
        let question = Question {
            version: prepared.version,
            has_ended: false,
        };
        Self::to_answer(prepared, question)
    }

    /// Of what is prepared: this is asked.
    pub(super) fn to_answer(prepared: Arc<Prepared>, question: Question) -> Self {
        let parts = Parts::of(&prepared.asked);
        Self {
            prepared,
            question,
            parts,
        }
    }

    /// What those participants are told who have not answered yet.
    pub fn unanswered(&self) -> impl Iterator<Item = ToShard> {
        let probe = BasketCommand::Probe(Probe {
            id: self.prepared.reservation.id,
            question: self.question,
            asked_at: self.prepared.asked_at,
        });
        let principal = &self.prepared.reservation.principal;
        let unanswered = self.unanswered_by();
        unanswered.map(move |shard| ToShard::new(shard, principal, probe.clone()))
    }

    /// Who has not answered yet.
    pub(super) fn unanswered_by(&self) -> impl Iterator<Item = u32> {
        self.parts.unanswered()
    }

    /// What is asked.
    pub(super) fn question(&self) -> Question {
        self.question
    }

    /// Its reservation has ended: those who hold their part are told so, and asked once more.
    pub(super) fn end(&mut self) {
        self.question.has_ended = true;
        self.parts.forget_held();
    }

    /// A participant has said this.
    pub fn answered(&mut self, shard: u32, said: Said) {
        self.parts.take(shard, said);
    }

    /// What home is told to decide, once everybody has answered. A single part that is not held
    /// would be enough to know that the basket is not; but whoever asked for it may have been told
    /// what is short, and every retry is told the same.
    pub fn decision(&self) -> Option<ToShard> {
        if !self.parts.are_complete() {
            return None;
        }
        let decision = self.parts.decision(&self.prepared)?;
        let (id, version) = (self.prepared.reservation.id, self.prepared.version);
        let decide = BasketCommand::Decide(Decide {
            id,
            version,
            decision,
        });
        let principal = &self.prepared.reservation.principal;
        Some(ToShard::new(id.shard(), principal, decide))
    }

    /// Whether home has decided it already, as a participant says.
    pub fn is_over(&self) -> bool {
        self.parts.is_over()
    }

    /// Everybody has answered, and it is not certain: home has decided meanwhile, or somebody could
    /// not say.
    pub fn failure(&self) -> Option<Failure> {
        let is_open = self.parts.are_complete() && self.decision().is_none();
        is_open.then(|| self.parts.failure().unwrap_or(Failure::OutcomeUnknown))
    }
}
