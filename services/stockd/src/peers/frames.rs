//! What one turn of the loop has for other nodes: one frame for each of them.

use bytes::Bytes;
use stock_cluster::GroupId;
use stock_node::answer::Answer;
use stock_node::clock::{ClusterTime, Now};
use stock_node::notice::Notice;
use stock_wire::cluster::v1 as cluster;

use super::answers::{group_message, reply};
use super::notices;

/// Frames, filled during a phase of a turn and sent at its end.
#[derive(Default)]
pub struct Frames(Vec<(u64, cluster::Frame)>);

impl Frames {
    /// A Raft message goes to a node.
    pub fn message(
        &mut self,
        to: u64,
        now: Now,
        group: GroupId,
        payload: Bytes,
        time: Option<ClusterTime>,
    ) {
        let message = group_message(group, payload, time);
        self.to(to, now).messages.push(message);
    }

    /// A node gets the answer to what it forwarded under this number.
    pub fn reply(&mut self, to: u64, now: Now, forward_id: u64, answer: Answer) {
        let reply = reply(forward_id, answer);
        self.to(to, now).replies.push(reply);
    }

    /// A node is told something.
    pub fn notice(&mut self, to: u64, now: Now, notice: &Notice) {
        notices::add(self.to(to, now).notices.get_or_insert_default(), notice);
    }

    /// How many nodes there is something for.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing for anybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with the node that it is for; none is left.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, cluster::Frame)> {
        self.0.drain(..)
    }

    fn to(&mut self, node: u64, now: Now) -> &mut cluster::Frame {
        let at = match self.0.iter().position(|(to, _)| *to == node) {
            Some(at) => at,
            None => {
                let frame = cluster::Frame {
                    wall_clock_ms: now.wall_ms,
                    ..Default::default()
                };
                self.0.push((node, frame));
                self.0.len() - 1
            }
        };
        &mut self.0[at].1
    }
}
