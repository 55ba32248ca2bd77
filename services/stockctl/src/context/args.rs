//! The grammar of what is done with contexts.

use clap::{Args, Subcommand};

/// A context's name is so long at most.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show every context, and which one is current
    #[command(after_help = "\
Example:
  stockctl context list")]
    List,

    /// Show what commands go by here, and where each value is from
    #[command(after_help = "\
Example:
  stockctl context show
  stockctl context show --context shop      as if that one were current")]
    Show,

    /// Have commands go by a context from now on
    #[command(after_help = "\
Example:
  stockctl context use shop")]
    Use(ContextNamed),

    /// Make a context, or change one: what is not named stays as it is
    #[command(after_help = "\
Example:
  stockctl context set shop --endpoint http://node-1:7401,http://node-2:7401 --cluster shop
  stockctl context set shop -o json
  stockctl context set shop --cluster ''      any cluster from now on

It takes what the command line says, and nothing of the environment.")]
    Set(ContextNamed),

    /// Forget a context
    #[command(after_help = "\
Example:
  stockctl context remove shop")]
    Remove(ContextNamed),
}

#[derive(Debug, Args)]
pub(crate) struct ContextNamed {
    /// 1-64 of A-Z a-z 0-9 . _ -
    #[arg(id = "name", value_name = "NAME", value_parser = checked_name)]
    pub(crate) name: String,
}

fn checked_name(text: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 64 of A-Z a-z 0-9 . _ -"),
    }
}
