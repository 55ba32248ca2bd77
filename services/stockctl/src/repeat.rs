//! What makes a repeated mutation the same one.

use clap::Args;
use uuid::Uuid;

/// What makes a repeated mutation the same one.
#[derive(Debug, Args)]
pub(crate) struct RequestId {
    /// A UUIDv7 that names this request: repeated, it is done once. A new one unless given
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

impl RequestId {
    /// Made here and not in the client, so that a failure can say which id to repeat.
    pub(crate) fn or_new(self) -> String {
        self.request_id
            .unwrap_or_else(|| Uuid::now_v7().to_string())
    }
}

/// The name under which a mutation is done once.
#[derive(Debug)]
pub(crate) enum Repeat {
    RequestId(String),
    Document { name: String, occurred_at: String },
}
