//! Many commands at once: sorted by shard, and those of a shard proposed together.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use stock_api::{basket, rejection};
use stock_cluster::GroupId;
use stock_core::{Command, Stamp};
use stock_node::answer::{Failure, Outcome};
use stock_node::basket::Said;
use stock_node::entry::{Commands, CommandsBuilder};
use stock_proto::stock::v1 as api;

use super::edge::{BYTES_PER_PROPOSAL_MAX, COMMANDS_PER_PROPOSAL_MAX, Edge, Proposed};
use super::error::ApiError;
use super::seen::Seen;

/// Sorts commands by shard.
#[derive(Default)]
pub(super) struct Sorter {
    filling: BTreeMap<u32, Filling>,
    full: Vec<Batch>,
}

#[derive(Default)]
struct Filling {
    commands: CommandsBuilder,
    numbers: Vec<u64>,
}

/// Some commands, all for one shard.
pub(super) struct Batch {
    shard: u32,
    commands: Commands,
    /// By which whoever asked knows them.
    numbers: Vec<u64>,
}

/// Some commands, and what came of them.
pub(super) struct Decided {
    shard: u32,
    bytes: usize,
    numbers: Vec<u64>,
    proposed: Proposed,
}

/// Where commands are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// In the shard's log.
    pub(super) index: u64,
    /// Cluster time then.
    pub(super) stamp: Stamp,
}

impl Sorter {
    /// Adds a command for this shard, under a number.
    pub(super) fn add(&mut self, number: u64, shard: u32, command: &Command) {
        let filling = self.filling.entry(shard).or_default();
        filling.commands.push(command);
        filling.numbers.push(number);
        if filling.commands.count() >= COMMANDS_PER_PROPOSAL_MAX
            || filling.commands.bytes() >= BYTES_PER_PROPOSAL_MAX
        {
            self.full.push(filling.take(shard));
        }
    }

    /// How many were added of this shard.
    pub(super) fn count_of(&self, shard: u32) -> usize {
        let full = self.full.iter().filter(|batch| batch.shard == shard);
        let full = full.map(|batch| batch.numbers.len()).sum::<usize>();
        let filling = self.filling.get(&shard);
        full + filling.map_or(0, |filling| filling.numbers.len())
    }

    /// Their bytes, as they are proposed.
    pub(super) fn bytes(&self) -> usize {
        let full = self.full.iter().map(Batch::bytes).sum::<usize>();
        let filling = self.filling.values();
        full + filling
            .map(|filling| filling.commands.bytes())
            .sum::<usize>()
    }

    /// Everything that was added, cut so that each part may travel together.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Batch> {
        let filling = self.filling.iter_mut();
        let rest = filling.filter(|(_, filling)| !filling.numbers.is_empty());
        let rest = rest.map(|(shard, filling)| filling.take(*shard));
        self.full.drain(..).chain(rest)
    }
}

impl Filling {
    fn take(&mut self, shard: u32) -> Batch {
        Batch {
            shard,
            commands: self.commands.take(),
            numbers: std::mem::take(&mut self.numbers),
        }
    }
}

impl Batch {
    /// Of their commands.
    pub(super) fn bytes(&self) -> usize {
        self.commands.bytes.len()
    }

    /// Has the shard decide about them.
    pub(super) async fn decide(self, edge: &Edge) -> Decided {
        let group = GroupId::of_shard(self.shard);
        Decided {
            shard: self.shard,
            bytes: self.bytes(),
            numbers: self.numbers,
            proposed: edge.propose(group, self.commands).await,
        }
    }
}

impl Decided {
    /// Whose commands they were.
    pub(super) fn shard(&self) -> u32 {
        self.shard
    }

    /// Of the commands.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Where that is written.
    pub(super) fn note(&self, seen: &mut Seen) {
        if let Ok(applied) = &self.proposed {
            let group = GroupId::of_shard(self.shard);
            seen.wrote(group, applied.applied_index, applied.stamp);
        }
    }

    /// Each reserve, and what its maker is told.
    pub(super) fn answers(
        self,
    ) -> impl Iterator<Item = (u64, Result<api::ReserveResponse, ApiError>)> {
        let outcomes = self.into_outcomes();
        outcomes.map(|(number, at, outcome)| {
            let stamp = at.map_or(Stamp(0), |at| at.stamp);
            let answer = match outcome {
                Ok(outcome) => answer(stamp, outcome),
                Err(failure) => Err(ApiError::Failed(failure)),
            };
            (number, answer)
        })
    }

    /// Each command, where it is written, and what the shard says.
    pub(super) fn outcomes(self) -> impl Iterator<Item = (u64, Option<At>, Said)> {
        let outcomes = self.into_outcomes();
        outcomes.map(|(number, at, outcome)| (number, at, outcome.and_then(Outcome::of_stock)))
    }

    fn into_outcomes(self) -> impl Iterator<Item = (u64, Option<At>, Result<Outcome, Failure>)> {
        let (applied, failure) = match self.proposed {
            Ok(applied) => (Some(applied), Failure::OutcomeUnknown),
            Err(failure) => (None, failure),
        };
        let at = applied.as_ref().map(|applied| At {
            index: applied.applied_index,
            stamp: applied.stamp,
        });
        let mut outcomes = applied.into_iter().flat_map(|applied| applied.outcomes);
        let numbers = self.numbers.into_iter();
        numbers.map(move |number| (number, at, outcomes.next().ok_or(failure)))
    }
}

fn answer(stamp: Stamp, outcome: Outcome) -> Result<api::ReserveResponse, ApiError> {
    Ok(basket::response(stamp, outcome.of_stock()?)?)
}

/// The error that is told most often, and when there is least time for it.
static OVERLOADED: LazyLock<tonic_types::Status> =
    LazyLock::new(|| rejection::embedded(ApiError::Failed(Failure::Overloaded)));

/// See [`OVERLOADED`].
pub(super) fn overloaded() -> tonic_types::Status {
    OVERLOADED.clone()
}

/// An error as a message inside an answer.
pub(super) fn embedded(error: ApiError) -> tonic_types::Status {
    match error {
        ApiError::Failed(Failure::Overloaded) => overloaded(),
        error => rejection::embedded(error),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use stock_api::Rejection;
    use stock_api::answer_size::REFUSAL_BYTES_MAX;
    use stock_core::{Refusal, State};
    use stock_proto::stock::v1::batch_reserve_result::Result as Slot;

    use super::*;

    #[test]
    fn a_refusal_is_small() {
        let line = 99;
        let refusals = [
            Refusal::RequestTooOld { horizon: Stamp(0) },
            Refusal::RequestFromFuture,
            Refusal::RequestReused,
            Refusal::RequestMemoryFull,
            Refusal::UnknownSku { line },
            Refusal::UnknownReservation,
            Refusal::WrongState {
                state: State::Confirmed,
            },
            Refusal::NothingToExtend,
            Refusal::LineNotInReservation { line },
            Refusal::LineAmbiguous { line },
            Refusal::LineExceedsOpen {
                line,
                open: i64::MIN,
            },
            Refusal::CounterOutOfRange { line },
            Refusal::TooManyReservations,
            Refusal::TooManyPositions,
            Refusal::ReservationIdTaken,
            Refusal::TooLate,
            Refusal::NotHeldInTime,
        ];
        let failures = [
            Failure::NotLeader { leader: None },
            Failure::Overloaded,
            Failure::DiskFull,
            Failure::MemoryFull,
            Failure::OutcomeUnknown,
            Failure::TooFarBehind,
        ];
        let number = 999;
        let refusals = refusals.map(|refusal| Rejection::RefusedInBatch { number, refusal }.into());
        for error in refusals.into_iter().chain(failures.map(ApiError::Failed)) {
            let said = format!("{error:?}");
            let slot = api::BatchReserveResponse {
                header: None,
                results: vec![api::BatchReserveResult {
                    result: Some(Slot::Error(embedded(error))),
                }],
            };
            let slot = slot.encoded_len();
            assert!(slot <= REFUSAL_BYTES_MAX, "{slot} bytes: {said}");
        }
    }
}
