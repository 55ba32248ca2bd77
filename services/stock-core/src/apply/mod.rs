//! What each command does. On hand and reserved change in two functions only, `post` and
//! `post_held` of [`shelves::Shelves`], each together with the ledger entry that says so.

pub(crate) mod amend;
pub(crate) mod anew;
pub(crate) mod confirm;
pub(crate) mod expire;
pub(crate) mod holds;
pub(crate) mod home;
pub(crate) mod movements;
pub(crate) mod need;
pub(crate) mod part;
pub(crate) mod policy;
pub(crate) mod reserve;
pub(crate) mod settle;
pub(crate) mod shelves;
