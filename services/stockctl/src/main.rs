//! `stockctl`: reserve, receive, sell and look at stock from a shell.
//!
//! It is a client and nothing else: every rule is the cluster's, and what the cluster says is
//! printed as it is. Scripts read `-o json` and the exit code: 0 done, 2 usage or invalid input, 3
//! shortage, 1 anything else.

mod advice;
mod answer;
mod args;
mod columns;
mod command;
mod environment;
mod exit_code;
mod failure;
mod json;
mod lines;
mod manual;
mod message;
mod notation;
mod operate;
mod repeat;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::{Cli, Output};
use crate::failure::Failure;

fn main() -> ExitCode {
    let matches = environment::command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => return explain_usage(&usage),
    };
    let output = cli.output;
    match environment::check().and_then(|()| run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let text = match output {
                Output::Table => failure.sentences(),
                Output::Json => failure.json(),
            };
            // When even this cannot be written, the exit code still tells.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Does what was asked and prints the answer; the exit code says how it went.
fn run(cli: Cli) -> Result<u8, Failure> {
    let output = cli.output;
    // One call after another: a second thread would have nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(error.into()))?;
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = command::run(cli) => answer,
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted(repeat::under_way())),
        }
    })?;
    let text = match output {
        Output::Table => answer.table(),
        Output::Json => answer.json()?,
    };
    if let Err(error) = print(&text) {
        return Err(Failure::Unwritten {
            error,
            answer: text,
        });
    }
    Ok(answer.exit_code())
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // Whoever reads (`head`, a pager) has seen enough. What was asked has been done.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Help goes to people as it is; a mistake goes to a program in the form it asked for.
fn explain_usage(usage: &clap::Error) -> ExitCode {
    let failure = usage.exit_code();
    if failure != 0 && args::asks_for_json(std::env::args_os()) {
        let text = Failure::Usage(usage.to_string()).json();
        let _ = writeln!(io::stderr(), "{text}");
    } else {
        let _ = usage.print();
    }
    ExitCode::from(u8::try_from(failure).unwrap_or(1))
}
