//! Something that must hold, and whether it does.

use serde::Serialize;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) holds: bool,
    pub(crate) what: String,
}
