//! Clusters under names: where they are, which ones they are, and how they answer, in a file.

pub(crate) mod args;
mod edit;
pub(crate) mod file;
pub(crate) mod settings;

use serde_json::{Value, json};

use self::args::ContextCommand;
use self::edit::{Edit, Wanted};
use self::file::{Context, ContextFile};
use self::settings::{Settings, context_row};
use crate::columns::Columns;
use crate::failure::Failure;
use crate::options::{Given, Options, Output, Place};

/// What a command about contexts came to.
#[derive(Debug)]
pub(crate) enum Told {
    /// Every context.
    Listed(ContextFile),
    /// What commands go by.
    Shown(Settings),
    /// What was done, and every context after it.
    Changed { words: String, file: ContextFile },
}

/// Does what a `stockctl context` command asks.
pub(crate) fn run(
    command: ContextCommand,
    options: &Options,
    given: Given,
    file: ContextFile,
) -> Result<Told, Failure> {
    match command {
        ContextCommand::List => Ok(Told::Listed(file)),
        ContextCommand::Show => Settings::of(options, given, &file).map(Told::Shown),
        ContextCommand::Use(context) => {
            let name = context.name;
            file.named(&name)?;
            let mut edit = Edit::of(&file)?;
            edit.make_current(&name);
            changed(edit, format!("Commands go by {name} from now on."))
        }
        ContextCommand::Set(context) => {
            let name = context.name;
            let mut edit = Edit::of(&file)?;
            edit.set(&name, wanted(options, given)?)?;
            let words = match file.current.as_deref() == Some(name.as_str()) {
                true => format!("{name} is set, and current."),
                false => format!("{name} is set. Use it: stockctl context use {name}"),
            };
            changed(edit, words)
        }
        ContextCommand::Remove(context) => {
            let name = context.name;
            file.named(&name)?;
            let is_current = file.current.as_deref() == Some(name.as_str());
            let mut edit = Edit::of(&file)?;
            edit.remove(&name, is_current);
            let words = match is_current {
                true => format!("{name} is removed. It was current: now none is."),
                false => format!("{name} is removed."),
            };
            changed(edit, words)
        }
    }
}

fn changed(edit: Edit, words: String) -> Result<Told, Failure> {
    let file = edit.write()?;
    Ok(Told::Changed { words, file })
}

/// What the command line says.
fn wanted(options: &Options, given: Given) -> Result<Wanted, Failure> {
    let is_said = |place| place == Some(Place::CommandLine);
    let endpoints = options.endpoint.iter().map(|endpoint| endpoint.trim());
    let endpoints = endpoints.filter(|endpoint| !endpoint.is_empty());
    let wanted = Wanted {
        endpoints: is_said(given.endpoint).then(|| endpoints.map(str::to_owned).collect()),
        cluster: options.cluster.clone().filter(|_| is_said(given.cluster)),
        output: options.output.filter(|_| is_said(given.output)),
    };
    if wanted.endpoints.is_none() && wanted.cluster.is_none() && wanted.output.is_none() {
        return Err(Failure::Usage(
            "say what to set: --endpoint, --cluster or --output".into(),
        ));
    }
    Ok(wanted)
}

impl Told {
    pub(crate) fn table(&self) -> String {
        match self {
            Self::Listed(file) if file.contexts.is_empty() => {
                "No contexts yet. Make one: stockctl context set NAME --endpoint URL".into()
            }
            Self::Listed(file) => {
                let headers = ["CURRENT", "NAME", "ENDPOINTS", "CLUSTER", "OUTPUT"];
                let mut table = Columns::new(&headers);
                for (name, context) in &file.contexts {
                    let is_current = file.current.as_ref() == Some(name);
                    table.row(context_row(name, context, is_current));
                }
                table.finish()
            }
            Self::Shown(settings) => settings.table(),
            Self::Changed { words, .. } => words.clone(),
        }
    }

    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Listed(file) | Self::Changed { file, .. } => {
                let contexts = file.contexts.iter();
                let contexts = contexts.map(|(name, context)| context_value(name, context));
                json!({
                    "file": file.path.as_ref().map(|path| path.display().to_string()),
                    "current": file.current,
                    "contexts": contexts.collect::<Vec<_>>(),
                })
            }
            Self::Shown(settings) => settings.value(),
        }
    }
}

fn context_value(name: &str, context: &Context) -> Value {
    json!({
        "name": name,
        "endpoints": context.endpoints,
        "cluster": context.cluster,
        "output": context.output.map(Output::name),
    })
}
