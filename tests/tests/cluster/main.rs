//! The whole system: real processes, real sockets, a real disk.
//!
//! One program, so that it is linked once. Tests that kill and pause nothing share one cluster;
//! each makes locations and SKUs of its own.

mod addresses;
mod answers;
mod away;
mod bad_input;
mod callers;
mod careless;
mod checkout;
mod checkpoints;
mod command_line;
mod contexts;
mod cut_off;
mod damage;
mod documented;
mod durability;
mod examples;
mod founding;
mod fsync;
mod given_up;
mod half_broken;
mod history;
mod idempotency;
mod identity;
mod interrupted;
mod known_again;
mod largest;
mod leaders;
mod listeners;
mod listing;
mod membership;
mod outages;
mod overload;
mod oversell;
mod reads;
mod recorded;
mod recover;
mod silent_peers;
mod status;
mod strace;
mod streams;
mod upgrade;
mod weights;
mod whole_requests;
mod without_replica;
mod wrong_ports;
