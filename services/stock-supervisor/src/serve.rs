//! The command that runs a node.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Process;

/// What every variable begins with that is meant for `stockd`.
const PREFIX: &str = "STOCKD_";

/// How a node is started.
#[derive(Debug, Clone, Copy)]
pub struct Serve<'a> {
    /// Its configuration file.
    pub config: &'a Path,
    /// Where it logs to, behind what is there.
    pub log: &'a Path,
    /// What it logs, as in `RUST_LOG`.
    pub log_filter: &'a str,
    /// More arguments.
    pub arguments: &'a [String],
    /// Variables of `stockd` that it is handed, if they are set here.
    pub variables: &'a [&'a str],
}

impl Serve<'_> {
    /// Starts it: `program` is `stockd`, and whatever that is run within.
    pub fn start(&self, mut program: Command) -> io::Result<Process> {
        without_settings(&mut program, self.variables);
        let log = File::options().create(true).append(true).open(self.log)?;
        program
            .args(["serve", "--die-with-parent", "--log", self.log_filter])
            .arg("--config")
            .arg(self.config)
            .args(self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Process::start(program)
    }
}

/// Hands a command none of the variables by which tests, or whoever runs them, set how long they
/// run and where a cluster is, but for these: a node takes each for its own, and refuses those that
/// it does not know.
pub fn without_settings(command: &mut Command, but_for: &[&str]) {
    let is_setting = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) && !but_for.contains(&&*name)
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_setting) {
        command.env_remove(name);
    }
}
