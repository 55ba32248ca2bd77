//! What a handler is told of its caller. The headers themselves are dropped before a call waits:
//! there are a thousand at a time, and each would keep its own.

use tonic::Request;
use tonic::metadata::MetadataMap;

use super::deadline::Deadline;

/// A caller: a shop, an operator, or the node that a shop or an operator has asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// How long it waits.
    pub(super) deadline: Deadline,
    /// Whether it is a node that was asked and cannot answer by itself: its call is not sent on
    /// again. The connection tells, so that nobody else can say so.
    pub(super) is_node: bool,
}

impl Caller {
    /// This node, which asks for itself.
    pub(super) const THIS_NODE: Self = Self {
        deadline: Deadline::NONE,
        is_node: false,
    };

    /// Who made a call, over a connection of a node or of somebody else.
    pub(super) fn of(metadata: &MetadataMap, is_node: bool) -> Self {
        Self {
            deadline: Deadline::of(metadata),
            is_node,
        }
    }

    /// Its call as it is sent on: with its deadline.
    pub(super) fn send_on<T>(self, call: T) -> Request<T> {
        let mut request = Request::new(call);
        if let Some(time) = self.deadline.time() {
            request.set_timeout(time);
        }
        request
    }
}
