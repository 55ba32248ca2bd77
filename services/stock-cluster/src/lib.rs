//! Who is in the cluster, who is who, and where replicas belong. Pure: there is no clock, runtime,
//! socket or disk in it, and none among what it depends on.
//!
//! [`Registry`] is what group 0 replicates: the nodes, and which replicas each group has.
//! [`Reports`] are what nodes and leaders tell the leader of group 0 all the time; they are not
//! replicated, and a new leader begins without any. [`decide`] compares the two, and what it wants
//! done are [`Order`]s: commands to group 0, requests to a group's leader, or to a node. `identity`
//! says whether a node is the one that it says it is.
//!
//! One replica is moved at a time, and each move is a record in the registry from its first step to
//! its last, so that a new leader of group 0 goes on where the old one stopped:
//!
//! ```text
//! Begin         the registry writes the move down and allots an id that was never used
//! BeginReplica  the node begins it, in the directory that the registry knows
//! AddLearner    the group's leader sends it the log, or a snapshot
//! Promote       once it has caught up: in as a voter and the old one out, in one joint change
//! End           the registry writes down the voters that the leader reports
//! Destroy       what the registry knows to be gone for ever is deleted from its node
//! ```

pub mod controller;
pub mod identity;
mod ids;
pub mod limits;
pub mod registry;
pub mod reports;
mod version;

pub use controller::overview::{Changed, Overview};
pub use controller::{Decision, MoveProgress, Order, Policy, Reason, Step, Waiting, decide};
pub use ids::{Directory, GroupId, ReplicaId};
pub use limits::{
    ADDRESS_BYTES_MAX, FAILURE_BYTES_MAX, MOVES_MAX, NODE_ID_MAX, NODES_EVER_MAX, NODES_MAX,
    REPORT_EVERY_MS,
};
pub use registry::codec::{RegistryDecodeError, RestoreError};
pub use registry::command::{
    BeginMove, Change, EndMove, Founder, Recover, RegistryCommand, Survivor, Why,
};
pub use registry::refusal::RegistryRefusal;
pub use registry::{
    Move, NodeRecord, NodeState, Placement, Registry, RegistryOutcome, Wish, founding_placement,
};
pub use reports::{
    AuditReport, AuditVerdict, GroupReport, HostedReplica, NodeReport, Progress, ReplicaState,
    Reports, Resource,
};
pub use version::Speaks;
