//! The ids by which changes are done once.

use uuid::Uuid;

/// A new request id, to be stored before the call that it is for: with it the call can be repeated
/// after a restart of the caller, and is done once.
pub fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A retry is only safe under an id, so every mutation gets one before it is sent for the first
/// time.
pub(crate) fn fill_request_id(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = new_request_id();
    }
}
