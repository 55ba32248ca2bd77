//! Answers as they travel between nodes.

use bytes::Bytes;
use stock_cluster::GroupId;
use stock_core::codec::{Reader, Writer};
use stock_core::{Flaw, Stamp};
use stock_node::answer::{Answer, Applied, Failure, Outcome, Outcomes};
use stock_node::clock::ClusterTime;
use stock_wire::cluster::v1 as cluster;

/// Of a stock shard, or of the catalog.
const STOCK: u8 = 1;
const CATALOG: u8 = 2;

/// A Raft message, and what its sender takes cluster time to be.
pub fn group_message(
    group: GroupId,
    payload: Bytes,
    time: Option<ClusterTime>,
) -> cluster::GroupMessage {
    cluster::GroupMessage {
        group: group.0,
        payload,
        cluster_time_ms: time.map_or(0, |time| time.stamp.0),
        cluster_time_term: time.map_or(0, |time| time.term),
    }
}

/// What the sender of a Raft message takes cluster time to be.
pub fn cluster_time(message: &cluster::GroupMessage) -> Option<ClusterTime> {
    let time = ClusterTime {
        stamp: Stamp(message.cluster_time_ms),
        term: message.cluster_time_term,
    };
    (time.stamp.0 != 0).then_some(time)
}

/// For the peer that forwarded the commands.
pub fn reply(forward_id: u64, answer: Answer) -> cluster::Reply {
    use cluster::reply::Result;
    let unknown = || Result::Failure(cluster::Failure::OutcomeUnknown.into());
    let result = match answer {
        Answer::Outcomes(applied) => {
            encode_outcomes(&applied.outcomes).map_or_else(unknown, |outcomes| {
                Result::Answers(cluster::Answers {
                    applied_index: applied.applied_index,
                    stamp_ms: applied.stamp.0,
                    outcomes,
                })
            })
        }
        Answer::Failed(failure) => Result::Failure(encode_failure(failure).into()),
        // Only commands are forwarded.
        Answer::Reached { .. } | Answer::Reservation { .. } | Answer::Listed { .. } => unknown(),
    };
    cluster::Reply {
        forward_id,
        result: Some(result),
    }
}

/// From the peer that carried the commands out. What is not understood is an unknown outcome.
pub fn answer(reply: cluster::Reply) -> Answer {
    use cluster::reply::Result;
    match reply.result {
        Some(Result::Answers(answers)) => match decode_outcomes(&answers.outcomes) {
            Ok(outcomes) => Answer::Outcomes(Applied {
                applied_index: answers.applied_index,
                stamp: Stamp(answers.stamp_ms),
                outcomes,
            }),
            Err(_) => Answer::Failed(Failure::OutcomeUnknown),
        },
        Some(Result::Failure(failure)) => Answer::Failed(decode_failure(failure)),
        None => Answer::Failed(Failure::OutcomeUnknown),
    }
}

/// None where one is of the registry: whoever changes that is sent to the leader of group 0, and
/// nothing forwarded.
fn encode_outcomes(outcomes: &[Outcome]) -> Option<Bytes> {
    let mut writer = Writer::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Stock(outcome) => {
                writer.tag(STOCK);
                writer.outcome(outcome);
            }
            Outcome::Catalog(outcome) => {
                writer.tag(CATALOG);
                writer.catalog_outcome(outcome);
            }
            Outcome::Registry(_) => return None,
        }
    }
    Some(writer.into_bytes().into())
}

fn decode_outcomes(bytes: &[u8]) -> Result<Outcomes, Flaw> {
    let mut reader = Reader::new(bytes);
    let mut outcomes = Outcomes::new();
    while !reader.is_empty() {
        outcomes.push(match reader.tag()? {
            STOCK => Outcome::Stock(reader.outcome()?),
            CATALOG => Outcome::Catalog(reader.catalog_outcome()?),
            tag => {
                let what = "kind of group";
                return Err(Flaw::UnknownTag { what, tag });
            }
        });
    }
    Ok(outcomes)
}

fn encode_failure(failure: Failure) -> cluster::Failure {
    match failure {
        Failure::NotLeader { .. } => cluster::Failure::NotLeader,
        Failure::Overloaded => cluster::Failure::Overloaded,
        Failure::DiskFull => cluster::Failure::DiskFull,
        Failure::MemoryFull => cluster::Failure::MemoryFull,
        Failure::OutcomeUnknown | Failure::TooFarBehind => cluster::Failure::OutcomeUnknown,
    }
}

fn decode_failure(failure: i32) -> Failure {
    match cluster::Failure::try_from(failure) {
        Ok(cluster::Failure::NotLeader) => Failure::NotLeader { leader: None },
        Ok(cluster::Failure::Overloaded) => Failure::Overloaded,
        Ok(cluster::Failure::DiskFull) => Failure::DiskFull,
        Ok(cluster::Failure::MemoryFull) => Failure::MemoryFull,
        Ok(cluster::Failure::OutcomeUnknown | cluster::Failure::Unspecified) | Err(_) => {
            Failure::OutcomeUnknown
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_core::{CatalogOutcome, Refusal};

    use super::*;

    #[test]
    fn answers_survive_the_way_between_nodes() {
        let refused = Refusal::TooManyLocations;
        let sent: Outcomes = [
            Outcome::Stock(stock_core::Outcome::Refused(Refusal::UnknownSku {
                line: 2,
            })),
            Outcome::Catalog(CatalogOutcome::Put),
            Outcome::Catalog(CatalogOutcome::Refused(refused)),
        ]
        .into_iter()
        .collect();
        let reply = reply(
            1,
            Answer::Outcomes(Applied {
                applied_index: 7,
                stamp: Stamp(9),
                outcomes: sent.clone(),
            }),
        );
        let mut misread = reply.clone();
        if let Some(cluster::reply::Result::Answers(answers)) = &mut misread.result {
            answers.outcomes.truncate(answers.outcomes.len() - 1);
        }
        match answer(reply) {
            Answer::Outcomes(Applied {
                applied_index: 7,
                stamp: Stamp(9),
                outcomes,
            }) => assert_eq!(outcomes, sent),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            answer(misread),
            Answer::Failed(Failure::OutcomeUnknown)
        ));
    }
}
