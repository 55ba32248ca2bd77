//! The rules of `docs/identity.md`, for a model checker: who a directory is, and what it may have
//! forgotten.
//!
//! # What is modelled
//!
//! Three nodes and one group on top of as much Raft as there must be for promises to be made:
//! terms, votes, a log of clients' values and of changes of its voters, commits. Nothing of the
//! project's code runs here.
//!
//! - A *disk* is a volume with a directory on it: its admission, its floor, its pulse, the replica
//!   that was begun in it, and what it remembers of other directories. Disks are copied as they
//!   are, at any moment, and started at any other: instead of the original, beside it (a twin), or
//!   in turns with it. A log that has lost its end is a copy that was made before the last writes,
//!   started instead of the original; when its files are later than its log, its checkpoint is that
//!   of the original.
//! - The *registry* is one variable: group 0 never forgets and never disagrees here. Every disk has
//!   a copy of it that may be stale. It is changed only where a majority of the group is in reach
//!   of each other.
//! - A *hello* happens at a start, and when a link that was cut is there again. A link is one of
//!   two nodes, so twins have the same links: one beyond a cut while its original runs on on the
//!   other side is left out.
//!
//! Not modelled: lives and founding, snapshots, leases and reads, several groups, disks that lie
//! about a sync in the middle of a log.
//!
//! # What is assumed
//!
//! - **Each write is in a second of its own**, and its pulse is told at once to everyone in reach,
//!   who keeps it durably before anything relies on the write. What is older by less than a pulse
//!   and its way to a peer is left out thereby.
//! - **An election is one action**, and so is an append with its answer ([`Action`]). What happens
//!   to others in between happens before or after; what happens to one of the two ends the
//!   exchange. An answer that is lost binds nobody, so it may as well not have been asked for. Of
//!   an election's votes just as many are given as are needed: more would only bind more.
//! - **Everybody in reach answers at once**, at a start.
//! - A message of an earlier connection never arrives.
//!
//! # What is proven, and what is not
//!
//! A directory *has forgotten* when it lacks a write that promised something: a vote, an
//! acknowledgement, or a leader's own entry, whichever copy of it made the promise. Where nobody
//! who could know is there to be asked, it does harm, and no rule can mend that. So with
//! [`Forgetting::IsKnownInReachOfOthers`] the model lets such a directory promise something only
//! while one of these holds:
//!
//! - somebody in its reach, or in the reach of others who are, has heard of a write that it lacks,
//! - somebody there knows of a later directory of its node,
//! - its own checkpoint is beyond the end of its log.
//!
//! In each of them a rule must have ended it before. So [`property::NO_FORGETFUL_PROMISE`] says
//! that the rules find everything that can be known, and the other properties say that nothing
//! comes of the rest. All other forgetful directories are let run, and promise nothing until
//! somebody who knows comes.
//!
//! With [`Forgetting::MayBeUnknown`] everything that has forgotten acts. Then there are two
//! histories, which the check finds; what is still proven is that no replica drops what it knows to
//! be committed, and that nobody counts what was not sent.
//!
//! Three rules are there because without them the check finds a loss, although everything else
//! holds:
//!
//! - **A pulse is told with the boot that wrote it** ([`Rules::pulse_names_its_boot`]). As a number
//!   it is the same for two copies of a directory that were written in equally often.
//! - **A later pulse ends who is heard** ([`Rules::later_pulse_ends_who_is_heard`]). Of two twins
//!   the one that is heard first may be the older.
//! - **Memory is passed on** ([`Rules::memory_passed_on`]), the latest pulse of each boot.
//!   Otherwise one cut link keeps a copy apart from who knows, while both reach a third.
//!
//! The rule about joins keeps no promise: it is there so that a group keeps its majority
//! ([`property::MAJORITY_STAYS`]).
//!
//! A check is of what is within its [`Bounds`], and no further.

mod identity;
mod model;
mod raft;
mod rules;
mod state;

pub use model::{Action, IdentityModel, property};
pub use rules::{Bounds, Counts, Forgetting, Rules};
pub use state::State;
