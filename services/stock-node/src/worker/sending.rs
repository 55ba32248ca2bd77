//! Where answers and messages of raft go.

use stock_cluster::{GroupId, ReplicaId};

use crate::answer::Answer;
use crate::clock::ClusterTime;
use crate::event::Effect;

/// Where messages for a replica go.
pub(super) fn send<R>(
    group: usize,
    messages: Vec<stock_replica::Outgoing>,
    cluster_time: Option<ClusterTime>,
    effects: &mut Vec<Effect<R>>,
) {
    let group = GroupId(group as u32);
    effects.extend(messages.into_iter().map(|message| {
        let to = ReplicaId(message.to);
        match message.snapshot {
            Some((index, _)) => Effect::SendSnapshot {
                to,
                group,
                index,
                envelope: message.payload,
            },
            None => Effect::Send {
                to: to.node(),
                group,
                payload: message.payload,
                cluster_time,
            },
        }
    }));
}

/// Somebody gets an answer, if anybody waits for it.
pub(super) fn answer_if_asked<R>(effects: &mut Vec<Effect<R>>, reply: Option<R>, what: Answer) {
    if let Some(reply) = reply {
        answer(effects, reply, what);
    }
}

/// Somebody gets an answer.
pub(super) fn answer<R>(effects: &mut Vec<Effect<R>>, reply: R, answer: Answer) {
    effects.push(Effect::Answer { reply, answer });
}
