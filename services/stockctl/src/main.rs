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
mod context;
mod environment;
mod exit_code;
mod failure;
mod json;
mod lines;
mod manual;
mod message;
mod notation;
mod operate;
mod options;
mod port;
mod repeat;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::{Cli, Command};
use crate::context::file::ContextFile;
use crate::context::settings::Settings;
use crate::failure::Failure;
use crate::options::{Given, Output};

fn main() -> ExitCode {
    let parsed = environment::command()
        .try_get_matches()
        .and_then(|matches| {
            let cli = Cli::from_arg_matches(&matches)?;
            Ok((cli, Given::in_matches(&matches)))
        });
    let (cli, given) = match parsed {
        Ok(parsed) => parsed,
        Err(usage) => return explain_usage(&usage),
    };
    let file = environment::check().and_then(|()| match cli.command {
        // They are of no cluster, and needed to put the file right.
        Command::Completion { .. } | Command::Manual { .. } => Ok(ContextFile::default()),
        Command::Ask(_) | Command::Context(_) => ContextFile::read(),
    });
    let settings = file
        .as_ref()
        .ok()
        .and_then(|file| Settings::of(&cli.options, given, file).ok());
    // A failure is told of in the form that was asked for, even if it is the file's.
    let output = settings.map_or(cli.options.output, |settings| Some(settings.output.value));
    let output = output.unwrap_or(Output::Table);
    match file.and_then(|file| run(cli, given, file, output)) {
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
fn run(cli: Cli, given: Given, file: ContextFile, output: Output) -> Result<u8, Failure> {
    // One call after another: a second thread would have nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(error.into()))?;
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = command::run(cli, given, file) => answer,
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
    if failure != 0 && options::asks_for_json(std::env::args_os()) {
        let text = Failure::Usage(usage.to_string()).json();
        let _ = writeln!(io::stderr(), "{text}");
    } else {
        let _ = usage.print();
    }
    ExitCode::from(u8::try_from(failure).unwrap_or(1))
}
