//! Changes of the file that contexts are in. What else stands in it stays as it is, comments
//! included.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::file::{ContextFile, check_endpoint};
use crate::failure::Failure;
use crate::options::Output;

/// The file, to be changed.
pub(super) struct Edit {
    path: PathBuf,
    document: DocumentMut,
}

/// What a context is to have from now on; what is none stays as it is.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Empty: none of its own.
    pub(super) endpoints: Option<Vec<String>>,
    /// Empty: any.
    pub(super) cluster: Option<String>,
    pub(super) output: Option<Output>,
}

impl Edit {
    pub(super) fn of(file: &ContextFile) -> Result<Self, Failure> {
        let Some(path) = file.path.clone() else {
            return Err(Failure::Usage(
                "there is no place for contexts: neither STOCKCTL_CONFIG nor XDG_CONFIG_HOME nor \
                 HOME is set"
                    .into(),
            ));
        };
        // It has been read before: what does not parse is refused there.
        let document = file.text.parse::<DocumentMut>();
        let document = document.map_err(|error| Failure::Local(error.into()))?;
        Ok(Self { path, document })
    }

    pub(super) fn make_current(&mut self, name: &str) {
        put(self.document.as_table_mut(), "current", name.into());
    }

    pub(super) fn set(&mut self, name: &str, wanted: Wanted) -> Result<(), Failure> {
        for endpoint in wanted.endpoints.iter().flatten() {
            check_endpoint(endpoint)?;
        }
        let contexts = self.document.entry("contexts").or_insert_with(|| {
            let mut table = Table::new();
            // It is named with each context that is in it.
            table.set_implicit(true);
            Item::Table(table)
        });
        let context = contexts
            .as_table_like_mut()
            .map(|contexts| contexts.entry(name).or_insert(Item::Table(Table::new())));
        let Some(context) = context.and_then(Item::as_table_like_mut) else {
            let why = format!("{}: {name} is no table", self.path.display());
            return Err(Failure::Usage(why));
        };
        if let Some(endpoints) = wanted.endpoints {
            let endpoints: Array = endpoints.into_iter().collect();
            put_or_remove(context, "endpoints", endpoints.is_empty(), endpoints.into());
        }
        if let Some(cluster) = wanted.cluster {
            put_or_remove(context, "cluster", cluster.is_empty(), cluster.into());
        }
        if let Some(output) = wanted.output {
            put(context, "output", output.name().into());
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str, is_current: bool) {
        let contexts = self.document.get_mut("contexts");
        if let Some(contexts) = contexts.and_then(Item::as_table_like_mut) {
            contexts.remove(name);
        }
        if is_current {
            self.document.remove("current");
        }
    }

    /// Writes the file, and returns what is in it now.
    pub(super) fn write(self) -> Result<ContextFile, Failure> {
        let text = self.document.to_string();
        let file = ContextFile::parse(self.path.clone(), text)?;
        let written = replace(&self.path, &file.text);
        let written = written.with_context(|| self.path.display().to_string());
        written.map_err(Failure::Local)?;
        Ok(file)
    }
}

/// A value in place of the one that is there; the comments around it stay.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

fn put_or_remove(table: &mut dyn TableLike, key: &str, removes: bool, value: Value) {
    match removes {
        true => drop(table.remove(key)),
        false => put(table, key, value),
    }
}

/// Whoever reads the file meanwhile, or after this process has died in the middle, finds all that
/// was in it or all that is to be.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".stockctl-")
        .suffix(".partial")
        .tempfile_in(dir)?;
    match fs::metadata(&path) {
        Ok(old) => {
            ensure!(old.is_file(), "it is no file");
            file.as_file().set_permissions(old.permissions())?;
        }
        Err(error) => ensure!(error.kind() == ErrorKind::NotFound, error),
    }
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // So that the new name lasts, too.
    File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "\
# The shops' clusters.
current = \"shop\" # where we mostly are

[contexts.shop]
cluster = \"shop\" # with four shards
endpoints = [\"http://a:1\"]
";

    fn edited(text: &str, edit: impl FnOnce(&mut Edit)) -> String {
        let file = ContextFile::parse("FILE".into(), text.to_owned()).expect("it parses");
        let mut edited = Edit::of(&file).expect("it has a path");
        edit(&mut edited);
        let text = edited.document.to_string();
        ContextFile::parse("FILE".into(), text.clone()).expect("it still parses");
        text
    }

    fn set(edit: &mut Edit, name: &str, wanted: Wanted) {
        edit.set(name, wanted).expect("it can be set");
    }

    #[test]
    fn what_is_not_named_stays_as_it_is_and_so_do_comments() {
        let text = edited(KEPT, |edit| {
            let cluster = Some("shop-2".to_owned());
            let wanted = Wanted {
                cluster,
                output: Some(Output::Json),
                ..Wanted::default()
            };
            set(edit, "shop", wanted);
            edit.make_current("other");
        });
        let expected = KEPT
            .replace("cluster = \"shop\"", "cluster = \"shop-2\"")
            .replace("current = \"shop\"", "current = \"other\"");
        assert_eq!(text, format!("{expected}output = \"json\"\n"));
    }

    #[test]
    fn contexts_come_and_go_and_values_are_taken_back() {
        let text = edited("", |edit| {
            let endpoints = Some(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]);
            let wanted = Wanted {
                endpoints,
                cluster: Some("shop".into()),
                ..Wanted::default()
            };
            set(edit, "a.b", wanted);
            edit.make_current("a.b");
        });
        let expected = "\
current = \"a.b\"

[contexts.\"a.b\"]
endpoints = [\"http://a:1\", \"http://b:1\"]
cluster = \"shop\"
";
        assert_eq!(text.trim_start(), expected);
        let text = edited(expected, |edit| {
            let wanted = Wanted {
                endpoints: Some(Vec::new()),
                cluster: Some(String::new()),
                ..Wanted::default()
            };
            set(edit, "a.b", wanted);
        });
        assert!(text.ends_with("[contexts.\"a.b\"]\n"), "{text}");
        let text = edited(expected, |edit| edit.remove("a.b", true));
        assert_eq!(text.trim(), "");
        // Other ways to write the same.
        let text = edited("contexts = { a = { cluster = \"c\" } }\n", |edit| {
            set(
                edit,
                "b",
                Wanted {
                    output: Some(Output::Table),
                    ..Wanted::default()
                },
            );
        });
        let file = ContextFile::parse("FILE".into(), text).expect("it parses");
        assert_eq!(file.contexts["b"].output, Some(Output::Table));
        assert_eq!(file.contexts["a"].cluster.as_deref(), Some("c"));
    }

    #[test]
    fn whoever_reads_meanwhile_finds_a_whole_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/stockctl.toml");
        let texts = ["a", "b"].map(|letter| letter.repeat(1 << 16));
        replace(&path, &texts[0]).expect("it is written");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..40 {
                    replace(&path, &texts[round % 2]).expect("it is written");
                }
            });
            while !writer.is_finished() {
                let read = fs::read_to_string(&path).expect("it is there");
                assert!(texts.contains(&read), "{} bytes", read.len());
            }
        });
        let left = fs::read_dir(path.parent().expect("it has one")).expect("it is there");
        assert_eq!(left.count(), 1, "nothing is left beside it");
        // What is no file is not replaced by one.
        let refused = replace(dir.path(), "a").expect_err("a directory");
        assert_eq!(refused.to_string(), "it is no file");
    }
}
