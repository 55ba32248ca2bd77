//! A message whose parts are read when somebody looks at them.

use bytes::Bytes;
use prost::{Message, Name};
use tonic::Status;

use crate::codec;
use crate::stock::v1::ReserveRequest;

/// `stock.v1.ReserveStreamRequest`, with its requests as they came: where there are too many of
/// them, a node refuses some without reading them. It is the same on the wire, where a message in a
/// message is some bytes.
#[derive(Clone, PartialEq, Message)]
pub struct ReserveStreamRequest {
    /// Each of them a [`ReserveRequest`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub requests: Vec<Bytes>,
}

impl Name for ReserveStreamRequest {
    const NAME: &'static str = "ReserveStreamRequest";
    const PACKAGE: &'static str = "stock.v1";
}

impl ReserveStreamRequest {
    /// A message of these requests.
    pub fn of(requests: &[ReserveRequest]) -> Self {
        let requests = requests.iter();
        Self {
            requests: requests
                .map(|request| request.encode_to_vec().into())
                .collect(),
        }
    }

    /// Reads them: each by itself, since one that is malformed says nothing about the others.
    pub fn read(&self) -> impl Iterator<Item = Result<ReserveRequest, Status>> {
        let requests = self.requests.iter();
        requests.map(|request| codec::read(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::v1::Line;

    /// As the schema has it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(message, repeated, tag = "1")]
        requests: Vec<ReserveRequest>,
    }

    #[test]
    fn it_is_on_the_wire_what_the_schema_says() {
        let request = |lines: usize| ReserveRequest {
            request_id: lines.to_string(),
            lines: vec![Line::default(); lines],
            ..ReserveRequest::default()
        };
        let requests: Vec<ReserveRequest> = [1, 0, 100].map(request).into();
        let generated = Generated {
            requests: requests.clone(),
        };
        let unread = ReserveStreamRequest::of(&requests);
        assert_eq!(unread.encode_to_vec(), generated.encode_to_vec());
        let again = ReserveStreamRequest::decode(&generated.encode_to_vec()[..]).unwrap();
        let read: Result<Vec<_>, _> = again.read().collect();
        assert_eq!(read.unwrap(), requests);
    }
}
