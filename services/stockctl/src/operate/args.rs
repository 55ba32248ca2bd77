//! The grammar of what operators do.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::repeat::RequestId;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show how the nodes are, who leads which shard, and what is missing
    #[command(after_help = "\
Example:
  stockctl cluster status

Nodes are as `stockctl node list` has them. A replica with a * leads its shard; one with a ! is on
a node that is not up.")]
    Status,

    /// Say how many replicas of each shard there shall be: 1, 3, 5 or 7
    #[command(after_help = "\
Example:
  stockctl cluster replicas 5
  stockctl shard list            what is there, and what is on its way

They are made or taken out one at a time, as far as there are nodes for them; callers notice
nothing.")]
    Replicas(ClusterReplicas),

    /// Show which version the cluster speaks, and each node can; `raise` goes on to the next
    #[command(after_help = "\
Example:
  stockctl cluster version            after each node's upgrade
  stockctl cluster version raise      once every node speaks the next one

A rolling upgrade ends with the raise: until then each node can be taken back to the build before; \
from
then on what the new version brings may be used, and the older build starts no more.")]
    Version(ClusterVersion),
}

/// Which version the cluster speaks.
#[derive(Debug, Args)]
pub(crate) struct ClusterVersion {
    #[command(subcommand)]
    pub(crate) command: Option<VersionCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Have the cluster speak the next version; refused while a node cannot
    #[command(after_help = "\
Example:
  stockctl cluster version raise

There is no way back: a build that does not speak the new version starts no more.")]
    Raise(RequestId),
}

/// How many replicas of each shard.
#[derive(Debug, Args)]
pub(crate) struct ClusterReplicas {
    /// Of each shard, each on a node of its own; a majority of them must be there
    #[arg(value_name = "COUNT")]
    pub(crate) replicas: u32,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show every node: its state, its replicas, its disk
    #[command(after_help = "\
Example:
  stockctl node list
  stockctl node list --all       also those that left for ever")]
    List {
        /// Also nodes that were removed
        #[arg(long)]
        all: bool,
    },

    /// Announce a node before it is started, and get the id to start it under
    #[command(after_help = "\
Example:
  stockctl node add --url http://node-4:7401 --peers node-4:7402

Then start stockd there with that id and an empty data directory. It joins by itself, and \
replicas move to it
until every node holds equally many.")]
    Add(NodeAdd),

    /// Move everything off a node, so that it can be removed or repaired
    #[command(after_help = "\
Example:
  stockctl node drain 4 --wait
  stockctl node remove 4

One replica moves at a time, and callers notice nothing. Refused where too few nodes would be \
left to hold every
replica. `stockctl node undrain 4` takes it back.")]
    Drain(NodeDrain),

    /// Take a drain back
    #[command(after_help = "\
Example:
  stockctl node undrain 4")]
    Undrain(NodeNamed),

    /// Let another data directory take a node's place, though the node still runs
    #[command(after_help = "\
Example:
  stockctl node replace 2
  stockd serve --node-id 2 --join node-1:7402 --data-dir /new/disk ...

A node whose disk was lost needs no such word: once the old one is heard no more, an empty data \
directory joins
under its id by itself. While it is heard, that is refused, since it is a typing error as a rule. \
The node that is
replaced is told so, and ends; its replicas are built again in the new directory.")]
    Replace(NodeNamed),

    /// Take an empty node out for ever
    #[command(after_help = "\
Example:
  stockctl node drain 4 --wait
  stockctl node remove 4

The id is never used again. The machine may come back with an emptied data directory, under \
another id.")]
    Remove(NodeNamed),
}

#[derive(Debug, Args)]
pub(crate) struct NodeAdd {
    /// Where clients will reach it
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,

    /// Where the other nodes will reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peers: String,

    /// An id that was never used; the next free one unless given
    #[arg(long, value_name = "ID", value_parser = node_id())]
    pub(crate) id: Option<u64>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct NodeDrain {
    #[command(flatten)]
    pub(crate) node: NodeNamed,

    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct NodeNamed {
    /// The node, as `stockctl node list` shows it
    #[arg(value_name = "ID", value_parser = node_id())]
    pub(crate) node_id: u64,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

/// Whether to stay until it is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wait {
    /// Stay until it is done, and show how far it is
    #[arg(long)]
    pub(crate) wait: bool,

    /// Stay no longer than this; the cluster goes on
    #[arg(
        long,
        value_name = "T",
        default_value = "1h",
        requires = "wait",
        value_parser = humantime::parse_duration
    )]
    pub(crate) give_up_after: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShardCommand {
    /// Show every shard: its replicas, its leader, what moves and what waits
    #[command(after_help = "\
Example:
  stockctl shard list

REPLICAS names nodes: * leads, + receives its first copy, - is about to leave, ! is not heard \
from.")]
    List,

    /// Move one replica of a shard to another node
    #[command(after_help = "\
Example:
  stockctl shard move 5 --from 1 --to 4 --wait
  stockctl shard move meta --from 1 --to 4

Nodes are kept within one replica of each other: where this tips the balance, another replica \
moves in return.")]
    Move(ShardMove),
}

#[derive(Debug, Args)]
pub(crate) struct ShardMove {
    #[arg(value_name = "SHARD", help = SHARD)]
    pub(crate) shard: ShardName,

    /// The node that holds the replica
    #[arg(long, value_name = "ID", value_parser = node_id())]
    pub(crate) from: u64,

    /// The node that shall hold it
    #[arg(long, value_name = "ID", value_parser = node_id())]
    pub(crate) to: u64,

    #[command(flatten)]
    pub(crate) wait: Wait,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaderCommand {
    /// Have a shard led by one of the nodes that hold it
    #[command(after_help = "\
Example:
  stockctl leader transfer 5 --to 2 --wait
  stockctl leader transfer 5 --any        whichever keeps the nodes equal

The wish stays: whenever that node can lead, it does, until --any or another --to.")]
    Transfer(LeaderTransfer),
}

#[derive(Debug, Args)]
pub(crate) struct LeaderTransfer {
    #[arg(value_name = "SHARD", help = SHARD)]
    pub(crate) shard: ShardName,

    /// The node that shall lead
    #[arg(long, value_name = "ID", required_unless_present = "any", value_parser = node_id())]
    pub(crate) to: Option<u64>,

    /// Leave it to the cluster again
    #[arg(long, conflicts_with = "to")]
    pub(crate) any: bool,

    #[command(flatten)]
    pub(crate) wait: Wait,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaCommand {
    /// Make a replica anew from the others, where it is
    #[command(after_help = "\
Example:
  stockctl replica rebuild 5 --node 2 --wait

For a replica that is damaged or that an audit found different. The old one goes only when the \
new one has caught
up.")]
    Rebuild(ReplicaRebuild),
}

#[derive(Debug, Args)]
pub(crate) struct ReplicaRebuild {
    #[arg(value_name = "SHARD", help = SHARD)]
    pub(crate) shard: ShardName,

    /// The node that holds it
    #[arg(long, value_name = "ID", value_parser = node_id())]
    pub(crate) node: u64,

    #[command(flatten)]
    pub(crate) wait: Wait,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UnsafeCommand {
    /// Learn whether the cluster has lost its quorum, and how to go on from what is left
    #[command(after_help = "\
Example:
  stockctl --endpoint http://node-1:7401 unsafe recover

Changes nothing: it shows which shards have no leader, and the commands that make the nodes that \
are left go on
without the others. Those run on stopped nodes, beside their data directories (`stockd recover \
--help`), and what
only the lost nodes had is then lost. While a silent node can still come back with its disk, wait \
for it instead.
The exit code is 1 where a shard has no leader.")]
    Recover,
}

/// A shard by its number, or `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardName {
    Stock(u32),
    Meta,
}

#[derive(Debug, thiserror::Error)]
#[error("a shard is a number, as `stockctl shard list` shows it, or `meta`")]
pub(crate) struct NoShard;

impl FromStr for ShardName {
    type Err = NoShard;

    fn from_str(text: &str) -> Result<Self, NoShard> {
        match text {
            "meta" => Ok(Self::Meta),
            number => number.parse().map(Self::Stock).map_err(|_| NoShard),
        }
    }
}

impl std::fmt::Display for ShardName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stock(shard) => write!(f, "shard {shard}"),
            Self::Meta => write!(f, "the meta group"),
        }
    }
}

fn node_id() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u64::from(u32::MAX))
}

const SHARD: &str =
    "The shard's number, or `meta` for the group that keeps locations and membership";
