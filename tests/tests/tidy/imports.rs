//! What imports what: files that know each other in a circle cannot be understood one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{crates, files};

/// Files of one folder that may know each other: a pair can be read together.
const CIRCLE_MAX: usize = 2;

/// Modules of a crate by their paths, `a::b`, with what each imports of the others.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_files_know_each_other_in_a_circle() {
    let mut bad = Vec::new();
    for (dir, _) in crates() {
        let sources = format!("{dir}/src");
        if !tests::programs::workspace_dir().join(&sources).is_dir() {
            continue;
        }
        for circle in circles(&imports(&sources)) {
            let folders: BTreeSet<&str> = circle.iter().map(|it| it.folder.as_str()).collect();
            if circle.len() > CIRCLE_MAX || folders.len() > 1 {
                let modules: Vec<&str> = circle.iter().map(|it| it.module.as_str()).collect();
                bad.push(format!("{dir}: {}", modules.join(", ")));
            }
        }
    }
    assert!(
        bad.is_empty(),
        "these import each other; put what they share into a file of its own:\n{}",
        bad.join("\n")
    );
}

/// A module, and the folder that its file is in.
struct Place {
    module: String,
    folder: String,
}

fn imports(sources: &str) -> (Imports, BTreeMap<String, String>) {
    let root = tests::programs::workspace_dir().join(sources);
    let mut texts = BTreeMap::new();
    let mut folders = BTreeMap::new();
    for path in files(sources, "rs") {
        let below = path.strip_prefix(&root).unwrap();
        let module = module_of(below);
        let folder = below.parent().unwrap().display().to_string();
        folders.insert(module.clone(), folder);
        texts.insert(module, code_of(&std::fs::read_to_string(&path).unwrap()));
    }
    let mut imports = Imports::new();
    for (module, text) in &texts {
        let known = paths(module, text)
            .into_iter()
            .filter_map(|path| longest_module(&path, &texts))
            .filter(|known| known != module);
        imports.insert(module.clone(), known.collect());
    }
    (imports, folders)
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("").display().to_string();
    let path = path.replace('/', "::");
    path.strip_suffix("::mod").unwrap_or(&path).to_owned()
}

/// Without comments, texts and tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.split('"').step_by(2).collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything of its crate that a module names by a path from the crate's root.
fn paths(module: &str, code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let begins = rest[..at].ends_with(['\n', ' ', ')']) || at == 0;
        rest = &rest[at + 4..];
        if begins && let Some(end) = rest.find(';') {
            expand(&[], &rest[..end], &mut found);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let path = &code[at..];
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let path = path[..end.unwrap_or(path.len())].trim_end_matches(':');
        expand(&[], path, &mut found);
    }
    let own: Vec<&str> = module.split("::").collect();
    found
        .into_iter()
        .filter_map(|path| absolute(&own, &path).filter(|path| !path.is_empty()))
        .collect()
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &[String], tree: &str, found: &mut BTreeSet<Vec<String>>) {
    let tree = tree.split(" as ").next().unwrap_or_default().trim();
    if let Some((head, branches)) = tree.split_once('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(names(head));
        let branches = branches
            .rsplit_once('}')
            .map_or(branches, |(inner, _)| inner);
        for branch in at_top(branches) {
            expand(&prefix, branch, found);
        }
        return;
    }
    let mut path = prefix.to_vec();
    path.extend(names(tree));
    found.insert(path);
}

fn names(path: &str) -> impl Iterator<Item = String> {
    let names = path.split("::").map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The branches of a tree of imports.
fn at_top(branches: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut all) = (0, 0, Vec::new());
    for (at, c) in branches.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&branches[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    all.push(&branches[begin..]);
    all
}

/// From the crate's root; none if it is of another crate.
fn absolute(own: &[&str], path: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = own.iter().map(|name| (*name).to_owned()).collect();
    let mut path = path.iter();
    match path.next()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => drop(base.pop()),
        _ => return None,
    }
    for name in path {
        match name.as_str() {
            "super" => drop(base.pop()),
            "self" => {}
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

/// The module that a path leads to, or into.
fn longest_module(path: &[String], modules: &BTreeMap<String, String>) -> Option<String> {
    let lengths = (1..=path.len()).rev();
    let mut candidates = lengths.map(|length| path[..length].join("::"));
    candidates.find(|candidate| modules.contains_key(candidate))
}

/// Modules that reach each other, by each other's imports.
fn circles((imports, folders): &(Imports, BTreeMap<String, String>)) -> Vec<Vec<Place>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|module| (module.as_str(), reach(module, imports)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for module in imports.keys() {
        let of = &reached[module.as_str()];
        let circle: Vec<&str> = of
            .iter()
            .copied()
            .filter(|other| reached[other].contains(module.as_str()))
            .collect();
        if circle.len() > 1 && circle.iter().all(|module| seen.insert(*module)) {
            let places = circle.into_iter().map(|module| Place {
                module: module.to_owned(),
                folder: folders[module].clone(),
            });
            circles.push(places.collect());
        }
    }
    circles
}

fn reach<'a>(module: &str, imports: &'a Imports) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = imports[module].iter().map(String::as_str).collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports[next].iter().map(String::as_str));
        }
    }
    reached
}

#[test]
fn a_circle_is_seen() {
    let imports: Imports = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into();
    let folders = ["a", "b", "c", "d"].map(|module| (module.to_owned(), String::new()));
    let circles = circles(&(imports, folders.into()));
    let modules = circles[0].iter().map(|place| place.module.as_str());
    assert_eq!(modules.collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(circles.len(), 1);
    let code = "use crate::{a::{B, c}, d};\nuse super::e::F as G;\nlet x = crate::h::i();";
    let found = paths("m::n", code);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "a::c", "d", "h::i", "m::e::F"]);
}
