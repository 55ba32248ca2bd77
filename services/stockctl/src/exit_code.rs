//! What the exit code says to a script.

/// Everything was done.
pub(crate) const DONE: u8 = 0;
/// Something went wrong that is neither of the others.
pub(crate) const FAILED: u8 = 1;
/// The command line or what it asks for is invalid.
pub(crate) const INVALID: u8 = 2;
/// There is too little stock.
pub(crate) const SHORT: u8 = 3;
