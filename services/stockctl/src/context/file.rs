//! The file that contexts are in, as it is read.
//!
//! ```toml
//! current = "shop"
//!
//! [contexts.shop]
//! endpoints = ["http://node-1:7401", "http://node-2:7401"]
//! cluster = "shop"
//! output = "json"
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stock_client::{Client, Error};
use toml::Spanned;

use crate::environment::CONFIG;
use crate::failure::Failure;
use crate::options::Output;

/// Where it is, below the directory for configuration.
const BELOW: &str = "stockd/stockctl.toml";

/// The contexts that are kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ContextFile {
    /// None where there is no place for one.
    pub(crate) path: Option<PathBuf>,
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
    /// The line that names the current one.
    current_line: usize,
    /// As it stands there; empty where there is no file.
    pub(crate) text: String,
}

/// What commands go by where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// Empty: as without a context.
    pub(crate) endpoints: Vec<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) output: Option<Output>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    current: Option<Spanned<String>>,
    #[serde(default)]
    contexts: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    endpoints: Vec<Spanned<String>>,
    cluster: Option<String>,
    output: Option<Output>,
}

impl ContextFile {
    /// Reads the file of whoever runs this, if there is one.
    ///
    /// Fails with [`Failure::Usage`] where it cannot be read, or not be meant as it stands.
    pub(crate) fn read() -> Result<Self, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match path(set) {
            Some(path) => Self::at(path),
            None => Ok(Self::default()),
        }
    }

    fn at(path: PathBuf) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if is_none(error.kind()) => String::new(),
            Err(error) => {
                let why = format!("{} cannot be read: {error}", path.display());
                return Err(Failure::Usage(why));
            }
        };
        Self::parse(path, text)
    }

    /// Reads what is, or will be, in that file.
    pub(super) fn parse(path: PathBuf, text: String) -> Result<Self, Failure> {
        let at = |span: Range<usize>| line_of(&text, span.start);
        let refuse = |line, why: &str| Err(refusal(&path, line, why));
        let document: Document = match toml::from_str(&text) {
            Ok(document) => document,
            Err(error) => return refuse(error.span().map_or(1, at), error.message()),
        };
        let mut contexts = BTreeMap::new();
        for (name, entry) in document.contexts {
            let mut endpoints = Vec::new();
            for endpoint in entry.endpoints {
                let line = at(endpoint.span());
                let endpoint = endpoint.into_inner();
                if let Err(error) = check_endpoint(&endpoint) {
                    return refuse(line, &error.to_string());
                }
                endpoints.push(endpoint);
            }
            let context = Context {
                endpoints,
                cluster: entry.cluster.filter(|name| !name.is_empty()),
                output: entry.output,
            };
            contexts.insert(name, context);
        }
        let current = document.current;
        let current_line = current.as_ref().map_or(1, |current| at(current.span()));
        Ok(Self {
            path: Some(path),
            current: current.map(Spanned::into_inner),
            contexts,
            current_line,
            text,
        })
    }

    /// The context that this says to go by; none where it says nothing.
    pub(crate) fn current(&self) -> Result<Option<(&str, &Context)>, Failure> {
        let Some(name) = self.current.as_deref() else {
            return Ok(None);
        };
        match (self.contexts.get(name), &self.path) {
            (Some(context), _) => Ok(Some((name, context))),
            (None, Some(path)) => Err(refusal(path, self.current_line, &self.lacks(name))),
            (None, None) => Err(self.unknown(name)),
        }
    }

    /// The context of that name.
    pub(crate) fn named(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Failure {
        let lacks = self.lacks(name);
        Failure::Usage(match &self.path {
            Some(path) => format!("{}: {lacks}", path.display()),
            None => lacks,
        })
    }

    fn lacks(&self, name: &str) -> String {
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        match names.is_empty() {
            true => format!("there is no context {name}, nor any other"),
            false => format!(
                "there is no context {name}; there are: {}",
                names.join(", ")
            ),
        }
    }
}

/// Refuses what is no endpoint.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), Error> {
    Client::builder().endpoint(endpoint).check()
}

fn refusal(path: &Path, line: usize, why: &str) -> Failure {
    Failure::Usage(format!("{}, line {line}: {why}", path.display()))
}

/// There is no file, or no directory for it: some services have `/dev/null` for a home.
fn is_none(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Where the file is, or would be.
fn path(set: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = set(CONFIG) {
        return Some(path.into());
    }
    // A relative path counts as none, as the specification of these variables has it.
    let base = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.filter(|base| base.is_absolute());
    let home = || set("HOME").map(|home| Path::new(&home).join(".config"));
    Some(base.or_else(home)?.join(BELOW))
}

/// Counted from 1.
fn line_of(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    1 + before.filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ContextFile, String> {
        let parsed = ContextFile::parse("FILE".into(), text.to_owned());
        parsed.map_err(|failure| match failure {
            Failure::Usage(why) => why,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_line() {
        for (text, why) in [
            (
                "current = \"a\"\ncurent = 1\n",
                "FILE, line 2: unknown field `curent`, expected `current` or `contexts`",
            ),
            (
                "[contexts.a]\ncluster = \"c\"\nendpoint = \"http://h:1\"\n",
                "FILE, line 3: unknown field `endpoint`, expected one of `endpoints`, `cluster`, \
                 `output`",
            ),
            (
                "[contexts.a]\noutput = \"yaml\"\n",
                "FILE, line 2: unknown variant `yaml`, expected `table` or `json`",
            ),
            (
                "[contexts.a]\nendpoints = [\n  \"http://h:1\",\n  \"ftp://h:1\",\n]\n",
                "FILE, line 4: `ftp://h:1` is not an endpoint: it must begin with http://",
            ),
        ] {
            assert_eq!(parse(text).map(drop), Err(why.to_owned()), "{text}");
        }
        let broken = parse("[contexts.a]\n\ncluster = \n").expect_err("no value");
        assert!(broken.starts_with("FILE, line 3: "), "{broken}");
    }

    #[test]
    fn a_context_that_is_missing_is_refused_by_the_line_that_names_it() {
        let file = parse("# ours\ncurrent = \"b\"\n[contexts.a]\n").expect("it parses");
        let Err(Failure::Usage(why)) = file.current() else {
            panic!("there is no b");
        };
        assert_eq!(why, "FILE, line 2: there is no context b; there are: a");
        let Err(Failure::Usage(why)) = file.named("c") else {
            panic!("there is no c");
        };
        assert_eq!(why, "FILE: there is no context c; there are: a");
        let empty = parse("").expect("an empty file is one");
        assert!(matches!(empty.current(), Ok(None)));
    }

    #[test]
    fn the_file_is_where_programs_keep_theirs() {
        let with = |set: &[(&str, &str)]| {
            let found = path(|name| {
                let mut set = set.iter();
                set.find(|(it, _)| *it == name)
                    .map(|(_, value)| value.into())
            });
            found.map(|path| path.display().to_string())
        };
        let (home, xdg) = (("HOME", "/h"), ("XDG_CONFIG_HOME", "/x"));
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[home]), is("/h/.config/stockd/stockctl.toml"));
        assert_eq!(with(&[home, xdg]), is("/x/stockd/stockctl.toml"));
        let relative = ("XDG_CONFIG_HOME", "x");
        assert_eq!(
            with(&[home, relative]),
            is("/h/.config/stockd/stockctl.toml")
        );
        assert_eq!(with(&[home, xdg, (CONFIG, "own.toml")]), is("own.toml"));
    }
}
