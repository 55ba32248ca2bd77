//! What each command does. Counters change in one place only, [`shelves::Shelves::post`], together
//! with the ledger entry that says so.

pub(crate) mod amend;
pub(crate) mod confirm;
pub(crate) mod expire;
pub(crate) mod holds;
pub(crate) mod movements;
pub(crate) mod need;
pub(crate) mod policy;
pub(crate) mod reserve;
pub(crate) mod settle;
pub(crate) mod shelves;
