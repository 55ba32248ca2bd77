//! What a shell and a reader of manuals are given: both are made from the command line's grammar.

use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;

use crate::environment;
use crate::failure::Failure;

/// The program's name, as its users type it.
const NAME: &str = "stockctl";

/// A script by which a shell completes commands and options.
pub(crate) fn completion(shell: Shell) -> Result<String, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut environment::command(), NAME, &mut script);
    String::from_utf8(script).map_err(|error| Failure::Local(error.into()))
}

/// Writes a manual page for each command into a folder.
pub(crate) fn write(dir: &Path) -> Result<String, Failure> {
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(environment::command(), dir));
    let written = written.with_context(|| dir.display().to_string());
    written.map_err(Failure::Local)?;
    Ok(format!("Written: {}", dir.join("stockctl.1").display()))
}
