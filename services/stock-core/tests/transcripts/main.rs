//! What the stock state machine does, as transcripts that a shop manager could follow.

#[path = "../audit/mod.rs"]
mod audit;
mod interpreter;

mod amend;
mod last;
mod movements;
mod policy;
mod reserve;
mod retry;
mod settle;
mod states;
