//! One Raft group, without IO: events in, effects out. The only crate that sees raft types.
//!
//! A [`Replica`] is driven in turns. The driver owns the network, the disk, the clock and the state
//! machine; entries are opaque bytes here.
//!
//! ```text
//! replica.step(message) / propose(data) / tick() / read_index(context)    // any number of events
//!
//! while replica.has_effects() {
//!     let prepared = replica.prepare();
//!     //  send prepared.messages now: a leader's appends travel while its own disk works
//!     //  write prepared.write and fsync it, unless it is empty
//!     let settled = replica.settle();
//!     //  send settled.messages: votes and acknowledgements of what is now durable
//!     //  apply prepared.committed, then settled.committed
//!     //  reads in prepared.reads may be answered once their index is applied
//! }
//! ```
//!
//! A replica whose log cannot be read is [`Replica::over`], which the driver looks at in every
//! turn.
//!
//! Many groups share one disk: the driver prepares all of them, writes once, then settles all.
//!
//! Deliberately absent: a clock (the driver ticks), callbacks, knowledge of stock, and any way to
//! propose on a follower (raft would forward silently; here it is [`ProposeError::NotLeader`]).

mod drain;
mod guard;
mod log_view;
mod membership;
mod over;
mod point;
mod ready;
mod recovery;
mod replica;
mod settings;

pub use guard::{Contradiction, StepError};
pub use log_view::{EntryReader, ReadError};
pub use membership::{Change, ChangeError, Follower, removal_of_recipient};
pub use point::{Configuration, Point, PointError};
pub use ready::{Committed, LogWrite, Outgoing, Prepared, ReadReady, Settled};
pub use recovery::{Ballot, Ending, Extent, Forced, Replay};
pub use replica::{OpenError, ProposeError, Proposed, Replica, Restored, recipient};
pub use settings::{
    COMMITTED_BYTES_PER_TURN, ELECTION_TICKS_MAX, ELECTION_TICKS_MIN, ENTRY_BYTES_MAX,
    HEARTBEAT_TICKS, LEADER_LOST_TICKS, Settings,
};
