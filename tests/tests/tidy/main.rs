//! The house rules that a compiler does not know. Each says what to do instead.

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::programs::workspace_dir;
use toml::{Table, Value};

/// Lines of one file of a service. A longer one is about several things: make modules of them.
const LINES_MAX: usize = 700;

/// Columns of a line, comments too.
const COLUMNS_MAX: usize = 100;

/// Every member of the workspace: its directory and its Cargo.toml.
pub(crate) fn crates() -> Vec<(String, Table)> {
    let root = manifest(Path::new(""));
    let members = root["workspace"]["members"].as_array().unwrap().clone();
    let members = members.iter().map(|member| member.as_str().unwrap());
    members
        .map(|member| (member.to_owned(), manifest(Path::new(member))))
        .collect()
}

fn manifest(dir: &Path) -> Table {
    let path = workspace_dir().join(dir).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    text.parse()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn name(manifest: &Table) -> &str {
    manifest["package"]["name"].as_str().unwrap()
}

/// Tables of dependencies, also those of one platform only.
fn dependencies(manifest: &Table, kinds: &[&str]) -> Vec<(String, Value)> {
    let mut tables = vec![manifest];
    if let Some(Value::Table(targets)) = manifest.get("target") {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    let mut found = Vec::new();
    for table in tables {
        for kind in kinds {
            if let Some(Value::Table(dependencies)) = table.get(*kind) {
                found.extend(dependencies.clone());
            }
        }
    }
    found
}

const ALL_KINDS: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Names of crates, also where one goes by another name here.
fn dependency_names(manifest: &Table, kinds: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, value) in dependencies(manifest, kinds) {
        if let Some(package) = value.get("package").and_then(Value::as_str) {
            names.insert(package.to_owned());
        }
        names.insert(name);
    }
    names
}

/// Names of crates that a crate has whatever its features are, its tests aside.
fn always_used(manifest: &Table) -> BTreeSet<String> {
    let used = dependency_names(manifest, &["dependencies", "build-dependencies"]);
    let all = dependencies(manifest, &["dependencies"]).into_iter();
    let is_optional = |value: &Value| value.get("optional") == Some(&Value::Boolean(true));
    let optional = all.filter(|(_, value)| is_optional(value));
    let optional: BTreeSet<String> = optional.map(|(name, _)| name).collect();
    used.difference(&optional).cloned().collect()
}

/// Files below `dir`, by the end of their names.
pub(crate) fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![workspace_dir().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} in {dir}");
    found
}

/// Where everything of ours is.
const SOURCES: [&str; 4] = ["services", "proto", "loadtests", "tests"];

/// `path:line` of each line that `is_bad` says something about, and what.
fn check_lines(files: &[PathBuf], mut is_bad: impl FnMut(&Path, &str) -> Option<String>) {
    let mut bad = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).unwrap();
        let shown = path.strip_prefix(workspace_dir()).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(instead) = is_bad(shown, line) {
                bad.push(format!("{}:{}: {instead}", shown.display(), number + 1));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn each_crate_knows_only_what_it_may() {
    // Nobody but the owner names these.
    let owned = [
        ("raft", "stock-replica", "use stock_replica::Replica"),
        ("raft-engine", "stock-storage", "use stock_storage::Log"),
        ("dashmap", "stock-node", "readers go through its ReadView"),
    ];
    // These name none of those.
    let inside = [
        "stockd",
        "stock-node",
        "stock-cluster",
        "stock-core",
        "stock-replica",
        "stock-storage",
    ];
    // Whatever runs, or reaches a socket, a file or a clock.
    let runtimes = [
        "tokio",
        "tokio-util",
        "tonic",
        "hyper",
        "stock-proto",
        "stock-storage",
        "raft-engine",
        "sled",
        "rustix",
        "tempfile",
        "futures-util",
        "rand",
    ];
    let apart = [
        // But for its fake cluster, which is a feature.
        ("stock-client", &inside[..], "a client speaks stock.v1"),
        ("stockctl", &inside, "it calls through stock-client"),
        ("loadtests", &inside, "it calls through stock-client"),
        ("stock-tally", &inside, "loadtests use it"),
        ("stock-core", &runtimes, "the core has no IO"),
        ("stock-core", &inside[..3], "it knows no nodes"),
        (
            "stock-cluster",
            &runtimes,
            "who is in the cluster needs no IO",
        ),
        ("stock-cluster", &inside[..2], "it knows no loop"),
        ("stock-cluster", &inside[4..], "it knows no log"),
        (
            "stock-node",
            &runtimes,
            "the loop is sans-IO: effects ask for it",
        ),
        ("stock-node", &inside[..1], "the server is around it"),
        ("stock-replica", &runtimes, "the replica is sans-IO"),
        ("stock-replica", &inside[..4], "entries are bytes to it"),
        ("stock-storage", &runtimes[..5], "whoever calls it, blocks"),
        ("stock-storage", &inside[..5], "bytes in, bytes out"),
    ];
    let mut bad = Vec::new();
    for (_, manifest) in crates() {
        let name = name(&manifest);
        let known = dependency_names(&manifest, ALL_KINDS);
        let used = always_used(&manifest);
        for (dependency, owner, instead) in owned {
            if known.contains(dependency) && name != owner {
                bad.push(format!("{name} names {dependency}: {instead}"));
            }
        }
        for (crate_name, forbidden, instead) in apart {
            // Tests may do more than what they test.
            let found = forbidden.iter().filter(|f| used.contains(**f));
            for found in found.filter(|_| name == crate_name) {
                bad.push(format!("{name} names {found}: {instead}"));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn the_core_depends_on_next_to_nothing() {
    let manifest = manifest(Path::new("services/stock-core"));
    let known = dependency_names(&manifest, &["dependencies", "build-dependencies"]);
    // Errors, hashes and short lists: none of them can do anything.
    let allowed = ["smallvec", "thiserror", "xxhash-rust"].map(str::to_owned);
    let allowed = BTreeSet::from(allowed);
    let more: Vec<_> = known.difference(&allowed).collect();
    assert!(
        more.is_empty(),
        "stock-core names {more:?}: what it needs comes in as an argument"
    );
}

#[test]
fn the_core_has_no_clock_float_hash_order_randomness_or_io() {
    let banned = [
        ("Instant", "take a Stamp"),
        ("SystemTime", "take a Stamp"),
        ("f32", "use integers"),
        (
            "f64",
            "use integers; coordinates are millionths of a degree",
        ),
        ("HashMap", "use BTreeMap: replicas must agree on the order"),
        ("HashSet", "use BTreeSet: replicas must agree on the order"),
        ("DefaultHasher", "use xxh3, which never changes"),
        ("rand", "the edge draws, and sends what it drew"),
        ("thread", "the worker owns the state"),
        ("async", "apply is synchronous"),
        ("await", "apply is synchronous"),
        ("unsafe", "there is a safe way"),
    ];
    let paths = [
        ("std::time", "time is an argument"),
        ("std::fs", "what is kept is stock-storage's"),
        ("std::net", "the network is stockd's"),
        ("std::env", "settings are limits.rs"),
        ("std::sync::Mutex", "the worker owns the state"),
    ];
    check_lines(&files("services/stock-core/src", "rs"), |_, line| {
        let code = code(line);
        let word = banned.iter().find(|(b, _)| words(code).any(|w| w == *b));
        let path = paths.iter().find(|(path, _)| code.contains(path));
        let (found, instead) = word.or(path)?;
        Some(format!("{found}: {instead}"))
    });
}

/// Crates that do nothing by themselves: what happens comes in, and what is to be done goes out.
const PURE: [&str; 4] = [
    "services/stock-core/src",
    "services/stock-cluster/src",
    "services/stock-replica/src",
    "services/stock-node/src",
];

#[test]
fn pure_crates_read_no_clock_and_touch_no_file_socket_or_thread() {
    let banned = [
        ("Instant", "time is an argument"),
        ("SystemTime", "time is an argument"),
    ];
    let paths = [
        (
            "std::fs",
            "what is to be written is said, and the host writes it",
        ),
        ("TcpStream", "the network is stockd's"),
        ("UdpSocket", "the network is stockd's"),
        ("std::env", "settings are arguments"),
        ("std::thread", "the host has threads"),
        ("std::process", "the host decides when it ends"),
    ];
    for dir in PURE {
        check_lines(&files(dir, "rs"), |_, line| {
            let code = code(line);
            let word = banned.iter().find(|(b, _)| words(code).any(|w| w == *b));
            let path = paths.iter().find(|(path, _)| code.contains(path));
            let (found, instead) = word.or(path)?;
            Some(format!("{found}: {instead}"))
        });
    }
}

#[test]
fn lines_have_a_hundred_columns_at_most() {
    for dir in SOURCES {
        check_lines(&files(dir, "rs"), |_, line| {
            let columns = line.chars().count();
            (columns > COLUMNS_MAX).then(|| format!("{columns} columns: break it"))
        });
    }
}

#[test]
fn public_messages_stop_at_the_edge() {
    check_lines(&files("services/stockd/src", "rs"), |path, line| {
        let below = |dir: &str| path.starts_with(Path::new("services/stockd/src").join(dir));
        let code = code(line);
        if code.contains("stock::v1") && !below("api") && !below("membership/join.rs") {
            return Some("stock::v1: convert in api/, and use stock_core's types".into());
        }
        if words(code).any(|word| word == "stock_client") && !below("dev") {
            return Some("stock_client: a node talks to nodes through peers/".into());
        }
        None
    });
}

#[test]
fn nothing_unfinished_is_left_behind() {
    // In two halves, or this line would be found, too.
    let banned = [
        (
            concat!("todo", "!("),
            "do it, or return an error that says so",
        ),
        (
            concat!("unimplemented", "!("),
            "return an error that says so",
        ),
        (concat!("dbg", "!("), "use tracing"),
        (
            concat!("#[", "allow("),
            "use #[expect(.., reason = \"..\")]",
        ),
        (
            concat!("#![", "allow("),
            "use #[expect(.., reason = \"..\")]",
        ),
    ];
    for dir in SOURCES {
        check_lines(&files(dir, "rs"), |_, line| {
            let found = banned.iter().find(|(banned, _)| line.contains(banned));
            found.map(|(banned, instead)| format!("{banned}: {instead}"))
        });
    }
}

#[test]
fn lines_have_no_tabs_and_no_trailing_blanks() {
    let blank = |_: &Path, line: &str| {
        if line.contains('\t') {
            return Some("a tab: use spaces".to_owned());
        }
        (line.trim_end() != line).then(|| "trailing blanks: remove them".to_owned())
    };
    for dir in SOURCES {
        check_lines(&files(dir, "rs"), blank);
    }
    check_lines(&files("proto", "proto"), blank);
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for path in files("services", "rs") {
        let shown = path.strip_prefix(workspace_dir()).unwrap();
        let is_source = shown.components().any(|part| part.as_os_str() == "src");
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if is_source && lines > LINES_MAX {
            long.push(format!("{}: {lines} lines", shown.display()));
        }
    }
    assert!(
        long.is_empty(),
        "more than {LINES_MAX} lines; make modules of them:\n{}",
        long.join("\n")
    );
}

#[test]
fn every_crate_takes_the_lints_and_versions_of_the_workspace() {
    let mut bad = Vec::new();
    for (dir, manifest) in crates() {
        let lints = manifest.get("lints").and_then(Value::as_table);
        let lints = lints.unwrap_or_else(|| panic!("{dir} has no [lints]"));
        let is_shared = lints.get("workspace") == Some(&Value::Boolean(true));
        // Generated code has no comments to warn about; what it must not do is the same.
        let is_unsafe_denied = lints
            .get("rust")
            .and_then(|rust| rust.get("unsafe_code"))
            .is_some_and(|level| level.as_str() == Some("deny"));
        let is_excused = dir.starts_with("proto") && is_unsafe_denied;
        if !is_shared && !is_excused {
            bad.push(format!("{dir}: write [lints] workspace = true"));
        }
        for (name, value) in dependencies(&manifest, ALL_KINDS) {
            if value.get("workspace") != Some(&Value::Boolean(true)) {
                let instead = "name the version in the root Cargo.toml, and workspace = true here";
                bad.push(format!("{dir}: {name}: {instead}"));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_schema_says_what_it_is_for() {
    let mut bad = Vec::new();
    for path in files("proto", "proto") {
        let shown = path.strip_prefix(workspace_dir()).unwrap();
        if shown.starts_with("proto/google") {
            continue;
        }
        // A comment at the package, or at the first thing that the file defines.
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let is_commented = |at: usize| at > 0 && lines[at - 1].starts_with("//");
        let starts = |words: &[&str]| {
            let first = |line: &&str| words.iter().any(|word| line.starts_with(word));
            lines.iter().position(first)
        };
        let package = starts(&["package "]).unwrap();
        let first = starts(&["service ", "message ", "enum "]).unwrap();
        if !is_commented(package) && !is_commented(first) {
            bad.push(format!("{}: say what it is for", shown.display()));
        }
        // And at everything else that it defines at its top.
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with("service ") && !is_commented(at) {
                bad.push(format!("{}: {line} has no comment", shown.display()));
            }
        }
    }
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}
