//! The client against small nodes of our own on loopback: real sockets, scripted answers.

mod batching;
mod experience;
mod fake;
mod gate;
mod retrying;
mod routing;
mod seen;
mod streaming;
mod stub;
