//! What a person can do about a failure.

use stock_client::Error;
use stock_client::v1::ErrorReason;
use tonic::Code;

use crate::port::Found;
use crate::repeat::Repeat;

/// One or two sentences, where there is something to say.
pub(crate) fn for_call(error: &Error, repeated_by: Option<&Repeat>) -> Option<String> {
    match error {
        Error::Unreachable { .. } if error.reason() == ErrorReason::WrongCluster => Some(
            "Name the nodes of the cluster that is meant, or that cluster: `stockctl context \
             show` tells where each is from."
                .into(),
        ),
        Error::Unreachable { .. } => Some(IS_IT_RUNNING.into()),
        Error::InvalidEndpoint { .. } => {
            Some("Give it as http://HOST:PORT with --endpoint or STOCKD_ENDPOINT.".into())
        }
        Error::Timeout { .. } => {
            let why = (error.reason() == ErrorReason::NoLeader).then_some(NO_QUORUM);
            let again = repeated_by.map(repeat);
            let parts: Vec<String> = why.map(str::to_owned).into_iter().chain(again).collect();
            (!parts.is_empty()).then(|| parts.join("\n"))
        }
        Error::Status(status) => by_reason(&status.reason)
            .or_else(|| by_code(status.code))
            .map(Into::into),
        _ => None,
    }
}

const IS_IT_RUNNING: &str = "Is it running? `stockd dev` starts a cluster on this machine; \
    --endpoint, STOCKD_ENDPOINT or a context (`stockctl context show`) names another.";

const NO_QUORUM: &str = "The shard has no leader: that takes more than half of the nodes that \
    have it. `stockctl cluster status` shows which are up.";

/// What to do where no node answers.
pub(crate) fn for_unanswered(found: &[(String, Found)]) -> String {
    let is_another_port = found.iter().any(|(_, found)| found.is_another_port());
    match is_another_port {
        true => "stockctl needs a node's port for clients (listen.grpc): 7401 unless the cluster \
                 was set up otherwise, and 7401 to 7403 for `stockd dev`."
            .into(),
        false => IS_IT_RUNNING.into(),
    }
}

/// How to find out what became of a mutation whose answer was lost.
pub(crate) fn repeat(repeat: &Repeat) -> String {
    let option = match repeat {
        Repeat::RequestId(id) => format!("--request-id {id}"),
        Repeat::Document { name, occurred_at } => {
            format!("--document {name} --occurred-at {occurred_at}")
        }
    };
    format!(
        "Whether it was done is unknown; run the same command with {option} and it is done once."
    )
}

fn by_reason(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "NO_LEADER" => NO_QUORUM,
        "UNKNOWN_LOCATION" => "Put it first: stockctl location put ID --type store.",
        "UNKNOWN_SKU" => {
            "A SKU exists from its first receipt or policy: stockctl receive SKU@LOC=QTY."
        }
        "UNKNOWN_RESERVATION" => "Check the id: it is the one `stockctl reserve` printed.",
        "WRONG_STATE" => "`stockctl get ID` shows what state it is in.",
        "LINE_NOT_IN_RESERVATION" | "LINE_EXCEEDS_OPEN" => {
            "`stockctl get ID` shows what is still open."
        }
        "LINE_AMBIGUOUS" => "Name the location as well: SKU@LOC=QTY.",
        "REQUEST_TOO_OLD" => {
            "Look whether it was done (`stockctl get`), then ask again without --request-id."
        }
        "REQUEST_FROM_FUTURE" => "Leave --request-id out, or correct this machine's clock.",
        "REQUEST_REUSED" => "Leave --request-id out for a new id, or repeat exactly what it named.",
        "TOO_FEW_NODES" => "Bring in another node first, then drain this one.",
        "NODE_NOT_DRAINING" => "Empty it first: stockctl node drain ID --wait.",
        "NODE_HOLDS_REPLICAS" => "Wait until it is empty: stockctl node drain ID --wait.",
        "UNKNOWN_NODE" | "NODE_REMOVED" => "`stockctl node list --all` shows every node.",
        "UNKNOWN_SHARD" | "NO_REPLICA_THERE" | "REPLICA_THERE" | "MOVE_UNDER_WAY" => {
            "`stockctl shard list` shows where replicas are and go."
        }
        "REQUEST_MEMORY_FULL" => {
            "Wait a minute and try again. If it comes back, the load needs a cluster with more \
             shards."
        }
        "DOCUMENT_REUSED" => {
            "Give another --document, or repeat exactly what it named, --occurred-at included."
        }
        _ => return None,
    })
}

fn by_code(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::InvalidArgument => "Nothing was changed; correct it and try again.",
        Code::ResourceExhausted | Code::Unavailable => "Wait a moment and try again.",
        Code::Unimplemented => "This version of the cluster cannot do that; nothing was changed.",
        _ => return None,
    })
}
