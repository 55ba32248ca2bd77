//! The variables of the environment that are meant for `stockd`: one that nobody knows is refused
//! instead of ignored, since it is most likely misspelt, and an empty one counts as not set.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Arg, Command};
use thiserror::Error;

/// What all of them begin with.
const PREFIX: &str = "STOCKD_";

/// What other programs read: `stockctl`, which may run beside a node.
const OF_OTHERS: [&str; 2] = ["STOCKD_CLUSTER", "STOCKD_ENDPOINT"];

/// Of a node, and of those that `stockd dev` starts, too: these are not in the files that it writes
/// for them.
pub(crate) const OF_EVERY_NODE: [&str; 1] = ["STOCKD_LOG_FORMAT"];

/// A variable cannot be meant as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvironmentError {
    /// There is none of this name.
    #[error(
        "{name} is set in the environment, and there is no such variable: the nearest is {nearest}"
    )]
    Unknown {
        /// As it is set.
        name: String,
        /// The variable whose name is most like it.
        nearest: String,
    },
}

/// The command without those of its variables that are empty: to an argument they are as if they
/// were not set.
pub fn without_empty(command: Command) -> Command {
    let set = std::env::vars_os();
    let empty = set.filter_map(|(name, value)| value.is_empty().then_some(name));
    forget(command, &empty.collect())
}

fn forget(command: Command, names: &BTreeSet<OsString>) -> Command {
    let forget_one = |arg: Arg| match arg.get_env() {
        Some(name) if names.contains(name) => arg.env(None::<&str>),
        _ => arg,
    };
    command
        .mut_args(forget_one)
        .mut_subcommands(|command| forget(command, names))
}

/// Refuses a variable that is set and of which neither the command, with all its arguments, nor
/// anybody else knows.
pub fn check(command: &Command) -> Result<(), EnvironmentError> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    check_names(
        command,
        set.map(|(name, _)| name.to_string_lossy().into_owned()),
    )
}

fn check_names(
    command: &Command,
    names: impl Iterator<Item = String>,
) -> Result<(), EnvironmentError> {
    let mut known: BTreeSet<String> = OF_OTHERS.map(str::to_owned).into();
    add_known(command, &mut known);
    let of_stockd = names.filter(|name| name.starts_with(PREFIX) && !is_of_kubernetes(name));
    // The first by name, so that the same environment is refused in the same words.
    let Some(name) = of_stockd.filter(|name| !known.contains(name)).min() else {
        return Ok(());
    };
    let nearest = known
        .into_iter()
        .min_by_key(|known| strsim::osa_distance(known, &name));
    Err(EnvironmentError::Unknown {
        nearest: nearest.unwrap_or_default(),
        name,
    })
}

fn add_known(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for command in command.get_subcommands() {
        add_known(command, known);
    }
}

/// Whether Kubernetes sets a variable of this name in every container, for a service whose name
/// begins with `stockd`: where that is and what ports it has, also in the form of Docker's links.
fn is_of_kubernetes(name: &str) -> bool {
    let is_service = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_");
    let is_link = |(_, rest): (&str, &str)| {
        let rest = rest.trim_start_matches('_');
        let mut words = rest.split('_');
        let is_port = |word: &str| word.parse::<u16>().is_ok();
        let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
        rest.is_empty()
            || (words.next().is_some_and(is_port) && words.next().is_some_and(is_protocol))
    };
    is_service || name.split_once("_PORT").is_some_and(is_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let arg = |name: &'static str, variable: &'static str| {
            Arg::new(name).long(name).env(Some(variable))
        };
        let serve = Command::new("serve")
            .arg(arg("shards", "STOCKD_SHARDS"))
            .arg(arg("join", "STOCKD_JOIN"));
        Command::new("stockd")
            .arg(arg("log", "STOCKD_LOG"))
            .subcommand(serve)
    }

    #[test]
    fn a_variable_that_nobody_knows_is_refused_with_the_nearest_one() {
        let check = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            check_names(&command(), names)
        };
        let unknown = |name: &str, nearest: &str| {
            Err(EnvironmentError::Unknown {
                name: name.to_owned(),
                nearest: nearest.to_owned(),
            })
        };
        assert_eq!(check(&["STOCKD_SHARDS", "STOCKD_LOG", "HOME"]), Ok(()));
        let of_stockctl = ["STOCKD_CLUSTER", "STOCKD_ENDPOINT"];
        assert_eq!(check(&of_stockctl), Ok(()), "of stockctl");
        let refused = unknown("STOCKD_SHARD", "STOCKD_SHARDS");
        assert_eq!(check(&["STOCKD_SHARD"]), refused);
        let refused = unknown("STOCKD_JION", "STOCKD_JOIN");
        assert_eq!(check(&["STOCKD_SHARDS", "STOCKD_JION"]), refused);
        assert_eq!(check(&["STOCKDSHARDS", "XSTOCKD_SHARD"]), Ok(()));
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_let_be() {
        for name in [
            "STOCKD_SERVICE_HOST",
            "STOCKD_SERVICE_PORT",
            "STOCKD_SERVICE_PORT_GRPC",
            "STOCKD_PORT",
            "STOCKD_PORT_7401_TCP",
            "STOCKD_PORT_7401_TCP_ADDR",
            "STOCKD_CLIENTS_SERVICE_HOST",
            "STOCKD_CLIENTS_PORT_7401_TCP_PROTO",
        ] {
            assert!(is_of_kubernetes(name), "{name}");
        }
        for name in [
            "STOCKD_PORTS",
            "STOCKD_PORT_GRPC",
            "STOCKD_LISTEN_GRPC",
            "STOCKD_SERVICE",
        ] {
            assert!(!is_of_kubernetes(name), "{name}");
        }
    }

    #[test]
    fn an_argument_knows_nothing_of_a_variable_that_is_empty() {
        let forgotten = forget(command(), &["STOCKD_JOIN".into()].into());
        let mut known = BTreeSet::new();
        add_known(&forgotten, &mut known);
        assert_eq!(
            known,
            ["STOCKD_LOG", "STOCKD_SHARDS"].map(str::to_owned).into()
        );
    }
}
