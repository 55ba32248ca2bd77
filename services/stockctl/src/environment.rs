//! The one variable of the environment that is read: where the cluster is. Those of nodes may stand
//! beside it, as in a container in which both run, and are nobody's business here.

use clap::{Command, CommandFactory};

use crate::args::Cli;
use crate::failure::Failure;

const ENDPOINT: &str = "STOCKD_ENDPOINT";

/// A name that becomes [`ENDPOINT`] by so many letters put in, left out, changed or swapped was
/// meant to be it.
const SLIPS_MAX: usize = 2;

/// The command line's grammar. An empty variable is as good as none.
pub(crate) fn command() -> Command {
    let is_empty = std::env::var_os(ENDPOINT).is_some_and(|value| value.is_empty());
    match is_empty {
        true => Cli::command().mut_arg("endpoint", |endpoint| endpoint.env(None::<&str>)),
        false => Cli::command(),
    }
}

/// Refuses a variable that is misspelt: without it another cluster might be asked than is meant.
pub(crate) fn check() -> Result<(), Failure> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let mut names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    match names.find(|name| is_misspelt(name)) {
        Some(name) => Err(Failure::Usage(format!(
            "{name} is set in the environment, and there is no such variable: the nearest is \
             {ENDPOINT}"
        ))),
        None => Ok(()),
    }
}

fn is_misspelt(name: &str) -> bool {
    (1..=SLIPS_MAX).contains(&strsim::osa_distance(name, ENDPOINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nearly_the_name_is_misspelt() {
        for name in ["STOCKD_ENDPOINTS", "STOCKD_END_POINT", "STOKCD_ENDPONT"] {
            assert!(is_misspelt(name), "{name}");
        }
        for name in [ENDPOINT, "STOCKD_NODE_ID", "STOCKD_LISTEN_GRPC", "ENDPOINT"] {
            assert!(!is_misspelt(name), "{name}");
        }
    }
}
