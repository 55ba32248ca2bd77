//! Contexts of `stockctl`: what is said in the place that comes first counts, and what cannot be
//! meant is refused before anybody is asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::Cluster;
use tests::programs;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const INVALID: i32 = 2;

/// Somebody who keeps contexts in a file.
struct Keeper {
    dir: TempDir,
}

impl Keeper {
    fn new() -> Self {
        let dir = programs::data_dir();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("stockd/stockctl.toml")
    }

    fn write(&self, text: &str) {
        std::fs::create_dir_all(self.dir.path().join("stockd")).unwrap();
        std::fs::write(self.path(), text).unwrap();
    }

    /// Exit code, and what was printed on both outputs.
    fn run(&self, line: &str, variables: &[(&str, &str)]) -> (i32, String) {
        ran(programs::run_stockctl()
            .env_remove("STOCKCTL_CONFIG")
            .env("XDG_CONFIG_HOME", self.dir.path())
            .envs(variables.iter().copied())
            .args(line.split(' ')))
    }

    fn done(&self, line: &str) -> String {
        let (code, text) = self.run(line, &[]);
        assert_eq!(code, DONE, "{line}: {text}");
        text
    }

    fn json(&self, line: &str) -> Value {
        let text = self.done(line);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }
}

fn ran(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap();
    (code, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_place_that_comes_first_says_which_cluster_is_asked() {
    let cluster = Cluster::shared().await;
    let keeper = Keeper::new();
    let (here, name) = (cluster.endpoint(1), cluster.cluster_id());
    let nowhere = format!("http://127.0.0.1:{}", programs::free_ports(1)[0]);

    keeper.done(&format!(
        "context set here --endpoint {here},{} --cluster {name} -o json",
        cluster.endpoint(2)
    ));
    keeper.done(&format!("context set nowhere --endpoint {nowhere}"));
    let (code, said) = keeper.run("--timeout 1s node list", &[("STOCKD_ENDPOINT", &nowhere)]);
    assert_eq!(code, FAILED, "{said}");

    // The context's own output, too.
    keeper.done("context use here");
    assert_eq!(keeper.json("node list")["nodes"][0]["node_id"], 1);
    assert!(keeper.done("node list -o table").starts_with("NODE"));
    let listed = keeper.json("context list");
    assert_eq!(listed["current"], "here");
    assert_eq!(listed["contexts"][0]["cluster"], name.as_str());

    // The environment comes before the current context, and flags before it.
    let other = [("STOCKD_ENDPOINT", nowhere.as_str())];
    let (code, said) = keeper.run("--timeout 1s node list", &other);
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains("UNREACHABLE"), "{said}");
    let flag = format!("--endpoint {here} node list");
    assert_eq!(keeper.run(&flag, &other).0, DONE);
    assert_eq!(keeper.run("--context here node list", &other).0, DONE);
    let variable = [("STOCKCTL_CONTEXT", "nowhere")];
    let (code, said) = keeper.run("--timeout 1s node list", &variable);
    assert_eq!(code, FAILED, "{said}");

    // Where each is from.
    let shown = keeper.json("context show");
    assert_eq!(shown["endpoints"]["value"][0], here.as_str());
    assert_eq!(shown["endpoints"]["from"], "context");
    assert_eq!(shown["context"]["from"], "current");
}

#[tokio::test]
async fn nodes_of_another_cluster_are_asked_nothing() {
    let cluster = Cluster::shared().await;
    let keeper = Keeper::new();
    let (here, name) = (cluster.endpoint(1), cluster.cluster_id());
    keeper.done(&format!(
        "context set here --endpoint {here} --cluster another"
    ));
    keeper.done("context use here");
    let (code, said) = keeper.run("--timeout 2s -o json node list", &[]);
    assert_eq!(code, FAILED, "{said}");
    let whose = format!("the node is of cluster {name}, and not of another");
    assert!(said.contains(&whose), "{said}");
    let own = [("STOCKD_CLUSTER", name.as_str())];
    assert_eq!(keeper.run("node list", &own).0, DONE);
    assert_eq!(keeper.run("node list --cluster=", &[]).0, DONE, "any");
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_with_its_line() {
    let keeper = Keeper::new();
    let path = keeper.path().display().to_string();
    let refused = |text: &str, why: &str| {
        keeper.write(text);
        for line in ["node list", "context list", "context set a -o json"] {
            let (code, said) = keeper.run(line, &[]);
            assert_eq!(code, INVALID, "{line}: {said}");
            assert!(said.contains(&format!("{path}{why}")), "{line}: {said}");
        }
        assert_eq!(std::fs::read_to_string(keeper.path()).unwrap(), text);
        // Whoever has broken the file can still complete a command.
        keeper.done("completion bash");
    };
    refused("[contexts.a]\nendpoint = []\n", ", line 2: unknown field");
    refused("[contexts.a]\n\noutput = 7\n", ", line 3: ");
    refused(
        "[contexts.a]\nendpoints = [\"a:1/x\"]\n",
        ", line 2: `a:1/x` is not an endpoint: it must end after the port",
    );
    refused("contexts = \n", ", line 1: ");

    keeper.write("# ours\ncurrent = \"b\"\n\n[contexts.a]\n");
    let (code, said) = keeper.run("-o json node list", &[]);
    let why = format!("{path}, line 2: there is no context b; there are: a");
    assert!(code == INVALID && said.contains(&why), "{said}");
    let (code, said) = keeper.run("--context c node list", &[]);
    assert!(code == INVALID && said.contains("no context c"), "{said}");
    // Which puts it right.
    keeper.done("context use a");
    assert_eq!(keeper.json("-o json context list")["current"], "a");

    std::fs::remove_file(keeper.path()).unwrap();
    std::fs::create_dir(keeper.path()).unwrap();
    let (code, said) = keeper.run("node list", &[]);
    let why = format!("{path} cannot be read");
    assert!(code == INVALID && said.contains(&why), "{said}");
}

#[test]
fn changing_a_context_keeps_the_rest_of_the_file() {
    let keeper = Keeper::new();
    assert!(keeper.done("context list").starts_with("No contexts yet"));
    keeper.write("# ours\n[contexts.a] # first\ncluster = \"c\" # four shards\n");
    keeper.done("context set b --endpoint http://b:1,http://c:1");
    keeper.done("context use b");
    keeper.done("context set a --cluster d");
    let text = std::fs::read_to_string(keeper.path()).unwrap();
    for kept in ["# ours\n", "[contexts.a] # first\ncluster = \"d\" # four"] {
        assert!(text.contains(kept), "{text}");
    }
    keeper.done("context remove b");
    let listed = keeper.json("-o json context list");
    assert_eq!(listed["current"], Value::Null);
    assert_eq!(listed["contexts"].as_array().unwrap().len(), 1);
    for (line, why) in [
        ("context remove b", "there is no context b"),
        ("context use b", "there is no context b"),
        ("context set b", "say what to set"),
        (
            "context set b --endpoint ftp://b",
            "it must begin with http",
        ),
        ("context set b/c --cluster d", "a name is"),
    ] {
        let (code, said) = keeper.run(line, &[("STOCKD_CLUSTER", "e")]);
        assert!(code == INVALID && said.contains(why), "{line}: {said}");
    }
    // What is no file is not replaced by one.
    let device = [("STOCKCTL_CONFIG", "/dev/null")];
    let (code, said) = keeper.run("context set b --cluster d", &device);
    assert!(code == FAILED && said.contains("it is no file"), "{said}");
    assert!(!Path::new("/dev/null").is_file());
}
