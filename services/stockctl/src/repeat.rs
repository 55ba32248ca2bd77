//! What makes a repeated mutation the same one.

use std::sync::OnceLock;

use clap::Args;
use stock_client::Client;

/// What makes a repeated mutation the same one.
#[derive(Debug, Args)]
pub(crate) struct RequestId {
    /// A UUIDv7 that names this request: repeated, it is done once. A new one unless given
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

impl RequestId {
    /// Made before the call, so that a failure can say which id to repeat; by the cluster's time,
    /// since this machine's clock may be wrong.
    pub(crate) fn or_new(self, client: &Client) -> String {
        let id = self.request_id.unwrap_or_else(|| client.new_request_id());
        // A command makes one, at most.
        UNDER_WAY.get_or_init(|| id.clone());
        id
    }
}

/// The id of the mutation that this process makes, once it has one: whoever interrupts it is told.
static UNDER_WAY: OnceLock<String> = OnceLock::new();

/// What the mutation under way is repeated by, if one is.
pub(crate) fn under_way() -> Option<Repeat> {
    UNDER_WAY.get().cloned().map(Repeat::RequestId)
}

/// The name under which a mutation is done once.
#[derive(Debug)]
pub(crate) enum Repeat {
    RequestId(String),
    Document { name: String, occurred_at: String },
}
