//! The variables of the environment that are read: where the cluster is, which one it is, and which
//! context is meant. Those of nodes may stand beside them, as in a container in which both run, and
//! are nobody's business here.

use clap::{Command, CommandFactory};

use crate::args::Cli;
use crate::failure::Failure;
use crate::options::VARIABLES;

/// Names the file that contexts are in.
pub(crate) const CONFIG: &str = "STOCKCTL_CONFIG";

/// A name that becomes a variable's by so many letters put in, left out, changed or swapped was
/// meant to be it.
const SLIPS_MAX: usize = 2;

/// The command line's grammar. An empty variable is as good as none.
pub(crate) fn command() -> Command {
    let is_empty = |name| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let empty = VARIABLES.iter().filter(|(_, name)| is_empty(name));
    empty.fold(Cli::command(), |command, (option, _)| {
        command.mut_arg(option, |it| it.env(None::<&str>))
    })
}

/// Refuses a variable that is misspelt: without it another cluster might be asked than is meant.
pub(crate) fn check() -> Result<(), Failure> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let mut names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    match names.find_map(|name| meant(&name).map(|meant| (name, meant))) {
        Some((name, meant)) => Err(Failure::Usage(format!(
            "{name} is set in the environment, and there is no such variable: the nearest is \
             {meant}"
        ))),
        None => Ok(()),
    }
}

/// The variable that a misspelt name was meant to be.
fn meant(name: &str) -> Option<&'static str> {
    let known = VARIABLES.map(|(_, name)| name).into_iter().chain([CONFIG]);
    let slips = known.map(|known| (strsim::osa_distance(name, known), known));
    let (slips, nearest) = slips.min()?;
    (1..=SLIPS_MAX).contains(&slips).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nearly_a_name_is_misspelt() {
        for (name, nearest) in [
            ("STOCKD_ENDPOINTS", "STOCKD_ENDPOINT"),
            ("STOCKD_END_POINT", "STOCKD_ENDPOINT"),
            ("STOKCD_ENDPONT", "STOCKD_ENDPOINT"),
            ("STOCKD_CLUSTERS", "STOCKD_CLUSTER"),
            ("STOCKCTL_CONTEX", "STOCKCTL_CONTEXT"),
            ("STOCKCTL_CONFIGS", "STOCKCTL_CONFIG"),
        ] {
            assert_eq!(meant(name), Some(nearest), "{name}");
        }
        for name in [
            "STOCKD_ENDPOINT",
            "STOCKD_CLUSTER",
            "STOCKD_CLUSTER_ID",
            "STOCKCTL_CONTEXT",
            "STOCKCTL_CONFIG",
            "STOCKD_NODE_ID",
            "STOCKD_LISTEN_GRPC",
            "ENDPOINT",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }
}
