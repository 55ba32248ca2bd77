//! The options that every command takes, and where a value of theirs was given.

use std::ffi::OsString;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use serde::Deserialize;

/// The names of the options that a context can hold, and of the one that names a context.
pub(crate) const ENDPOINT: &str = "endpoint";
pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const CONTEXT: &str = "context";

/// The variables of the environment that are read in place of options.
pub(crate) const VARIABLES: [(&str, &str); 3] = [
    (ENDPOINT, "STOCKD_ENDPOINT"),
    (CLUSTER, "STOCKD_CLUSTER"),
    (CONTEXT, "STOCKCTL_CONTEXT"),
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A node of the cluster; any will do. Several, separated by commas, are tried in turn
    /// [default: http://127.0.0.1:7401]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = VARIABLES[0].1,
        value_delimiter = ','
    )]
    pub(crate) endpoint: Vec<String>,

    /// The cluster's name: nodes of another one are asked nothing. Any unless given
    #[arg(long, global = true, value_name = "NAME", env = VARIABLES[1].1)]
    pub(crate) cluster: Option<String>,

    /// Take what is not given from this context: see `stockctl context --help` [default: the
    /// current one]
    #[arg(long, global = true, value_name = "NAME", env = VARIABLES[2].1)]
    pub(crate) context: Option<String>,

    /// For people or for programs [default: table]
    #[arg(short, long, global = true, value_enum)]
    pub(crate) output: Option<Output>,

    /// How long to keep trying, as 10s or 1m
    #[arg(
        long,
        global = true,
        value_name = "T",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    Table,
    Json,
}

impl Output {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
    }
}

/// Which options were given, and where.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given {
    pub(crate) endpoint: Option<Place>,
    pub(crate) cluster: Option<Place>,
    pub(crate) context: Option<Place>,
    pub(crate) output: Option<Place>,
}

/// Where an option was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    CommandLine,
    Environment,
}

impl Given {
    /// As the command line was parsed.
    pub(crate) fn in_matches(matches: &ArgMatches) -> Self {
        let place = |option| match matches.value_source(option) {
            Some(ValueSource::CommandLine) => Some(Place::CommandLine),
            Some(ValueSource::EnvVariable) => Some(Place::Environment),
            _ => None,
        };
        Self {
            endpoint: place(ENDPOINT),
            cluster: place(CLUSTER),
            context: place(CONTEXT),
            output: place(OUTPUT),
        }
    }
}

/// Whether a command line that could not be parsed asks for JSON all the same.
pub(crate) fn asks_for_json(args: impl IntoIterator<Item = OsString>) -> bool {
    let args: Vec<OsString> = args.into_iter().collect();
    let joined = ["-ojson", "-o=json", "--output=json"];
    args.iter().any(|arg| joined.iter().any(|json| arg == json))
        || args
            .windows(2)
            .any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_may_still_ask_for_json() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("stockctl -o json reserve"));
        assert!(asks("stockctl reserve --output=json"));
        assert!(!asks("stockctl reserve -o table"));
    }
}
