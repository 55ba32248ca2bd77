//! The command line's grammar, with an example for every command.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use stock_proto::stock::v1::ResponseHeader;

use crate::context::args::ContextCommand;
use crate::notation::{Key, OpenUnits, Position, Units};
use crate::operate::args::{
    ClusterCommand, LeaderCommand, NodeCommand, ReplicaCommand, ShardCommand, UnsafeCommand,
};
use crate::options::Options;
use crate::repeat::RequestId;

/// Asks a stockd cluster, and tells it what happened.
#[derive(Debug, Parser)]
#[command(
    name = "stockctl",
    version,
    after_help = "\
A first round:
  stockctl location put store-7 --type store --name 'Main Street'
  stockctl receive milk-1l@store-7=24
  stockctl reserve milk-1l@store-7=2
  stockctl confirm RESERVATION_ID
  stockctl fulfill RESERVATION_ID
  stockctl availability milk-1l

Endpoints, cluster and output are, each by itself, what a flag says; else a context named by
--context; else the environment; else the context of STOCKCTL_CONTEXT, or the current one
(`stockctl context use`); else the default. Contexts are in the file $STOCKCTL_CONFIG, else in
$XDG_CONFIG_HOME/stockd/stockctl.toml, else in ~/.config/stockd/stockctl.toml.

Exit codes: 0 done, 2 usage or invalid input, 3 shortage, 1 anything else."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Ask(Ask),

    /// Where clusters are, kept under names: see them, choose one, change them
    #[command(subcommand)]
    Context(ContextCommand),

    /// Print a script by which a shell completes commands and options
    #[command(after_help = "\
Example:
  stockctl completion bash > ~/.local/share/bash-completion/completions/stockctl
  stockctl completion zsh > ~/.zfunc/_stockctl
  stockctl completion fish > ~/.config/fish/completions/stockctl.fish")]
    Completion {
        #[arg(value_enum, value_name = "SHELL")]
        shell: Shell,
    },

    /// Write the manual pages, one for each command, into a folder
    #[command(after_help = "\
Example:
  stockctl manual ~/.local/share/man/man1 && man stockctl")]
    Manual {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What is asked of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Ask {
    /// Where stock can be
    #[command(subcommand)]
    Location(LocationCommand),

    /// Record units that arrived
    #[command(after_help = "\
Example:
  stockctl receive milk-1l@store-7=24 bread@store-7=10
  stockctl receive milk-1l@store-7=24 --document note-4711 --occurred-at 2026-11-30T09:15:00Z
  stockctl receive --file note-4711.txt --document note-4711 --occurred-at 2026-11-30T09:15:00Z

The same document, lines and time again change nothing, so such a receive may be repeated.")]
    Receive(Receive),

    /// Hold units for a shopper, all or nothing
    #[command(after_help = "\
Example:
  stockctl reserve milk-1l@store-7=2 bread@store-7=1 --ttl 15m
  stockctl reserve 'oat milk, 1 l@store-7=1' --order A-4711 --channel web

The last @ and the last = count, so that SKUs may have both; quote what the shell would take apart.
Exit code 3 and what there is, when it is too little.")]
    Reserve(Reserve),

    /// Paid: the hold no longer expires
    #[command(after_help = "\
Example:
  stockctl confirm 01997a3c-5f10-8003-9a54-2f0c9d6c1b11
  stockctl confirm 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 --pickup-within 3d")]
    Confirm(Confirm),

    /// Give held or confirmed units back, all of them or some
    #[command(after_help = "\
Example:
  stockctl release 01997a3c-5f10-8003-9a54-2f0c9d6c1b11
  stockctl release 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 milk-1l=1
  stockctl release 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 --force 'the app is gone'

Where the reservation holds a SKU at several locations, name one: milk-1l@store-7=1; so where the
SKU has an @: me@home@store-7=1.")]
    Release(Release),

    /// Hand confirmed units over, all of them or some
    #[command(after_help = "\
Example:
  stockctl fulfill 01997a3c-5f10-8003-9a54-2f0c9d6c1b11
  stockctl fulfill 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 milk-1l=1

Where the reservation holds a SKU at several locations, name one: milk-1l@store-7=1; so where the
SKU has an @: me@home@store-7=1.")]
    Fulfill(Part),

    /// Let a hold end later
    #[command(after_help = "\
Example:
  stockctl extend 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 --ttl 30m

It never ends earlier than it would have.")]
    Extend(Extend),

    /// Replace the lines of a hold in one step
    #[command(after_help = "\
Example:
  stockctl amend 01997a3c-5f10-8003-9a54-2f0c9d6c1b11 milk-1l@store-7=3 bread@store-7=1

Name the whole basket as it shall be, as for reserve. On a shortage (exit code 3) the hold stays as
it was.")]
    Amend(Amend),

    /// Show a reservation
    #[command(after_help = "\
Example:
  stockctl get 01997a3c-5f10-8003-9a54-2f0c9d6c1b11")]
    Get(Get),

    /// Find reservations: all that is asked for must be true of them
    #[command(after_help = "\
Example:
  stockctl list --order A-4711                     whoever lost the answer finds the hold
  stockctl list --state held --due-within 1h --channel web
  stockctl list --sku milk-1l --location store-7 -o json

By order it takes a moment, however many there are; for all else, every reservation is looked at.")]
    List(List),

    /// Show how much can be sold
    #[command(after_help = "\
Example:
  stockctl availability milk-1l                    every location
  stockctl availability milk-1l@store-7 bread@store-7 --linearizable
  stockctl availability 'me@home@*'                every location of a SKU that has an @")]
    Availability(Availability),

    /// Record units that were sold at a till; never refused for want of stock
    #[command(after_help = "\
Example:
  stockctl sale milk-1l@store-7=1 --document 000812 --source till-3 --occurred-at \
  2026-11-30T09:15:00Z")]
    Sale(Sale),

    /// Record units that were found or lost
    #[command(after_help = "\
Example:
  stockctl adjust milk-1l@store-7=-3 --reason breakage
  stockctl adjust milk-1l@store-7=+2 --reason 'found in the back'")]
    Adjust(Adjust),

    /// What may be sold of one SKU at one location
    #[command(subcommand)]
    Policy(PolicyCommand),

    /// The cluster itself
    #[command(subcommand)]
    Cluster(ClusterCommand),

    /// The machines of the cluster: see them, bring them in, empty them, take them out
    #[command(subcommand)]
    Node(NodeCommand),

    /// Where each shard's replicas are, and where they go
    #[command(subcommand)]
    Shard(ShardCommand),

    /// Who leads a shard
    #[command(subcommand)]
    Leader(LeaderCommand),

    /// A single replica of a shard
    #[command(subcommand)]
    Replica(ReplicaCommand),

    /// Show what the last comparison of each shard's replicas found
    #[command(after_help = "\
Example:
  stockctl audit

Replicas of a shard hold the same, byte for byte. One that DIFFERS is made anew by the cluster; exit
code 1 tells a script that there is one.")]
    Audit,

    /// What is left to do when nodes are lost for good
    #[command(subcommand)]
    Unsafe(UnsafeCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LocationCommand {
    /// Create a location, or replace what is known of it
    #[command(after_help = "\
Example:
  stockctl location put store-7 --type store --name 'Main Street' --lat 52.5163 --lon 13.3777")]
    Put(LocationPut),

    /// Show every location
    #[command(after_help = "\
Example:
  stockctl location list")]
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LocationType {
    Warehouse,
    Store,
}

#[derive(Debug, Args)]
pub(crate) struct LocationPut {
    /// 1-64 of A-Z a-z 0-9 . _ : -
    #[arg(value_name = "ID")]
    pub(crate) location_id: String,

    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) location_type: LocationType,

    /// For people
    #[arg(long, value_name = "N", default_value = "")]
    pub(crate) name: String,

    /// Latitude in degrees (WGS 84), -90 to 90
    #[arg(
        long,
        value_name = "X",
        requires = "lon",
        allow_negative_numbers = true
    )]
    pub(crate) lat: Option<f64>,

    /// Longitude in degrees (WGS 84), -180 to 180
    #[arg(
        long,
        value_name = "Y",
        requires = "lat",
        allow_negative_numbers = true
    )]
    pub(crate) lon: Option<f64>,

    /// GS1 Global Location Number, 13 digits
    #[arg(long, value_name = "GLN")]
    pub(crate) gln: Option<String>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

/// What makes a repeated movement the same one.
#[derive(Debug, Args)]
pub(crate) struct Document {
    /// The document that tells of the movement; repeated with the same lines and --occurred-at, it
    /// is recorded once. A new one unless given
    #[arg(long, value_name = "ID")]
    pub(crate) document: Option<String>,

    /// When it happened, as 2026-11-30T09:15:00Z; now unless given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub(crate) occurred_at: Option<SystemTime>,

    /// Which till, warehouse or system reports it; whoever runs the command unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// What arrived where
    #[arg(required_unless_present = "file", value_name = "SKU@LOC=QTY")]
    pub(crate) lines: Vec<Units>,

    /// A file of one SKU@LOC=QTY a line, up to 10,000; - for what is piped in
    #[arg(long, value_name = "PATH", conflicts_with = "lines")]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) document: Document,
}

#[derive(Debug, Args)]
pub(crate) struct Reserve {
    /// What to hold where
    #[arg(required = true, value_name = "SKU@LOC=QTY")]
    pub(crate) lines: Vec<Units>,

    /// How long the hold lasts unless confirmed: 1s to 7d; 15m unless given
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,

    /// Your own name for it, by which `stockctl list --order` finds it: 1-64 bytes of text
    #[arg(long, value_name = "REF")]
    pub(crate) order: Option<String>,

    /// Where it comes from, such as web or app
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct Confirm {
    #[arg(value_name = "ID", help = RESERVATION_ID)]
    pub(crate) reservation_id: String,

    /// The units expire when they have not been fulfilled after this time: 1s to 7d; never unless
    /// given
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) pickup_within: Option<Duration>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct Part {
    #[arg(value_name = "ID", help = RESERVATION_ID)]
    pub(crate) reservation_id: String,

    /// Which units; everything that is open unless given
    #[arg(value_name = "SKU=QTY")]
    pub(crate) lines: Vec<OpenUnits>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) part: Part,

    /// As an operator, in the holder's place; the ledger keeps why: 1-64 bytes of text
    #[arg(long, value_name = "WHY")]
    pub(crate) force: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateName {
    Held,
    Confirmed,
    Fulfilled,
    Released,
    Expired,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this order reference
    #[arg(long, value_name = "REF")]
    pub(crate) order: Option<String>,

    /// From this channel
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,

    /// With a line of this SKU
    #[arg(long, value_name = "SKU")]
    pub(crate) sku: Option<String>,

    /// With a line at this location
    #[arg(long, value_name = "LOC")]
    pub(crate) location: Option<String>,

    /// In this state, or one of several
    #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<StateName>,

    /// Open, and to end by themselves within this time, as 1h
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) due_within: Option<Duration>,

    /// Held later than this, as 2026-11-30T09:15:00Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub(crate) created_after: Option<SystemTime>,

    /// Show so many at most
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) limit: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Extend {
    #[arg(value_name = "ID", help = RESERVATION_ID)]
    pub(crate) reservation_id: String,

    /// How long from now: 1s to 7d
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct Amend {
    #[arg(value_name = "ID", help = RESERVATION_ID)]
    pub(crate) reservation_id: String,

    /// The basket as it shall be
    #[arg(required = true, value_name = "SKU@LOC=QTY")]
    pub(crate) lines: Vec<Units>,

    /// The hold's new time to live from now: 1s to 7d; as it was unless given
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[arg(value_name = "ID", help = RESERVATION_ID)]
    pub(crate) reservation_id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Availability {
    /// A SKU at one location or, without one, at all of them
    #[arg(required = true, value_name = "SKU[@LOC]")]
    pub(crate) keys: Vec<Key>,

    /// At least as new as every answer anyone has had; else what the asked node knows, which is
    /// milliseconds old at most
    #[arg(long)]
    pub(crate) linearizable: bool,

    /// At least as new as the answer that told this (`as of`, or `header` in JSON); may be repeated
    #[arg(long, value_name = "HEADER", value_parser = ResponseHeader::from_text)]
    pub(crate) at_least: Vec<ResponseHeader>,
}

#[derive(Debug, Args)]
pub(crate) struct Sale {
    /// What was sold where
    #[arg(required = true, value_name = "SKU@LOC=QTY")]
    pub(crate) lines: Vec<Units>,

    #[command(flatten)]
    pub(crate) document: Document,
}

#[derive(Debug, Args)]
pub(crate) struct Adjust {
    /// How many units more or less
    #[arg(required = true, value_name = "SKU@LOC=+/-N")]
    pub(crate) lines: Vec<Units>,

    /// Why: 1-64 bytes of text
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,

    #[command(flatten)]
    pub(crate) document: Document,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Set what may be sold; what is not named stays as it is
    #[command(after_help = "\
Example:
  stockctl policy set milk-1l@store-7 --safety-stock 2
  stockctl policy set sofa@web --backorder-limit 50")]
    Set(PolicySet),
}

#[derive(Debug, Args)]
pub(crate) struct PolicySet {
    #[arg(value_name = "SKU@LOC")]
    pub(crate) position: Position,

    /// Units that no channel may sell
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) safety_stock: Option<i64>,

    /// How far available may go below zero
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) backorder_limit: Option<i64>,

    #[command(flatten)]
    pub(crate) request: RequestId,
}

const RESERVATION_ID: &str = "The reservation, as `stockctl reserve` printed it";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let children: Vec<_> = command.get_subcommands().collect();
            if children.is_empty() {
                let help = command.get_after_help().map(ToString::to_string);
                assert!(
                    help.is_some_and(|help| help.contains("  stockctl ")),
                    "{} has no example",
                    command.get_name()
                );
            }
            children.into_iter().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_promised_spellings_parse() {
        for line in [
            "stockctl location put A --type warehouse",
            "stockctl location put A --type store --name N --lat -12.5 --lon 13",
            "stockctl location list",
            "stockctl receive S@L=1 T@L=2",
            "stockctl reserve S@L=1 --ttl 15m --request-id X",
            "stockctl confirm ID",
            "stockctl release ID",
            "stockctl release ID S=1 T=2",
            "stockctl fulfill ID S@L=1",
            "stockctl extend ID --ttl 1h30m",
            "stockctl amend ID S@L=1 --ttl 7d",
            "stockctl get ID",
            "stockctl release ID --force gone",
            "stockctl reserve S@L=1 --order A-1 --channel web",
            "stockctl list",
            "stockctl list --order A-1 --channel web --sku S --location L --limit 5",
            "stockctl list --state held --due-within 1h --created-after 2026-11-30T09:15:00Z",
            "stockctl availability S T@L --linearizable",
            "stockctl sale S@L=1",
            "stockctl adjust S@L=-3 --reason gone",
            "stockctl adjust S@L=+3 --reason found",
            "stockctl policy set S@L --safety-stock 1 --backorder-limit 2",
            "stockctl cluster status",
            "stockctl cluster version",
            "stockctl cluster version raise --request-id R",
            "stockctl node list --all",
            "stockctl node add --url http://node-4:7401 --peers node-4:7402 --id 4",
            "stockctl node drain 4 --wait",
            "stockctl node drain 4 --wait --give-up-after 2h",
            "stockctl node undrain 4",
            "stockctl node remove 4 --request-id X",
            "stockctl shard list",
            "stockctl shard move 5 --from 1 --to 4 --wait",
            "stockctl shard move meta --from 1 --to 4",
            "stockctl leader transfer 5 --to 2 --wait",
            "stockctl leader transfer meta --any",
            "stockctl replica rebuild 5 --node 2 --wait",
            "stockctl audit -o json",
            "stockctl receive --file note.txt --document D",
            "stockctl receive --file -",
            "stockctl completion zsh",
            "stockctl context list -o json",
            "stockctl --context shop context show",
            "stockctl context use shop",
            "stockctl context set shop --endpoint http://h:1,http://i:1 --cluster C -o json",
            "stockctl context remove shop",
            "stockctl manual /tmp/man",
            "stockctl --endpoint http://h:1 -o json cluster status",
            "stockctl cluster status -o json --endpoint http://h:1,http://i:1",
            "stockctl cluster status --context shop --cluster C",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for (line, kind) in [
            (
                "stockctl location put A",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "stockctl location put A --type store --lat 1",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "stockctl location put A --type shop",
                ErrorKind::InvalidValue,
            ),
            ("stockctl reserve", ErrorKind::MissingRequiredArgument),
            ("stockctl receive", ErrorKind::MissingRequiredArgument),
            (
                "stockctl receive S@L=1 --file note.txt",
                ErrorKind::ArgumentConflict,
            ),
            ("stockctl reserve S@L=many", ErrorKind::ValueValidation),
            ("stockctl reserve S=1", ErrorKind::ValueValidation),
            (
                "stockctl reserve S@L=1 --ttl soon",
                ErrorKind::ValueValidation,
            ),
            ("stockctl extend ID", ErrorKind::MissingRequiredArgument),
            ("stockctl adjust S@L=1", ErrorKind::MissingRequiredArgument),
            ("stockctl context use", ErrorKind::MissingRequiredArgument),
            ("stockctl context set a/b", ErrorKind::ValueValidation),
            ("stockctl node drain all", ErrorKind::ValueValidation),
            ("stockctl node drain 0", ErrorKind::ValueValidation),
            (
                "stockctl shard move five --from 1 --to 2",
                ErrorKind::ValueValidation,
            ),
            (
                "stockctl leader transfer 5",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "stockctl leader transfer 5 --to 2 --any",
                ErrorKind::ArgumentConflict,
            ),
            (
                "stockctl node drain 4 --give-up-after 1h",
                ErrorKind::MissingRequiredArgument,
            ),
        ] {
            let error = parse(line).map(|_| ()).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
