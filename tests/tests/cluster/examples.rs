//! Clients in other languages, made from the schemas alone, go their first round with a cluster,
//! and through a checkout.
//!
//! Each needs its toolchain and a package registry. Where one is missing the test says so and ends;
//! with `STOCKD_EXAMPLES=all`, as in `.ci/run`, it fails.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tests::cluster::Cluster;
use tests::names::fresh;
use tests::programs;
use tokio::process::Command;
use tokio::time::timeout;

/// A toolchain may have to be fetched, and everything built.
const DONE_WITHIN: Duration = Duration::from_secs(600);

/// One example, in a copy of its own: what its build makes is no part of the repository.
struct Example {
    folder: TempDir,
    language: &'static str,
}

impl Example {
    /// `examples/LANGUAGE`, beside the schemas, as they are in the repository.
    async fn copy(language: &'static str) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let example = Self { folder, language };
        std::fs::create_dir_all(example.path().parent().unwrap()).unwrap();
        // What somebody has built there by hand stays there.
        let made = [
            "node_modules",
            "dist",
            "types",
            ".venv",
            "__pycache__",
            "orders",
        ];
        let skip = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            made.contains(&name) || path.ends_with("examples/go/stock")
        };
        copy(
            &repository.join("examples").join(language),
            &example.path(),
            &skip,
        );
        copy(
            &repository.join("proto"),
            &example.folder.path().join("proto"),
            &skip,
        );
        example
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("examples").join(self.language)
    }

    /// What a program printed; what went wrong, otherwise. Compilers take what the tests beside
    /// them leave: some of those look how long a node makes its callers wait.
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let command = Command::new("nice")
            .args(["-n", "19", program])
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let what = format!("{program} {}", arguments.join(" "));
        let output = timeout(DONE_WITHIN, command).await;
        let output = output.map_err(|_| format!("{what}: takes too long"))?;
        let output = output.map_err(|error| format!("{what}: {error}"))?;
        let (out, err) = (output.stdout, output.stderr);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&out)),
            false => Err(format!("{what}: {}{}", text(&out), text(&err))),
        }
    }

    /// Whether everything is here that the example is made with. `install` fetches it.
    async fn has_been_made(&self, install: &[(&str, &[&str])]) -> bool {
        for (program, arguments) in install {
            if let Err(why) = self.run(program, arguments).await {
                let must = std::env::var("STOCKD_EXAMPLES").is_ok_and(|which| which == "all");
                assert!(!must, "{}: {why}", self.language);
                eprintln!("skipped, the example in {}: {why}", self.language);
                return false;
            }
        }
        true
    }
}

fn copy(from: &Path, to: &Path, skip: &impl Fn(&Path) -> bool) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if skip(&from) {
            continue;
        }
        match from.is_dir() {
            true => copy(&from, &to, skip),
            false => drop(std::fs::copy(&from, &to).unwrap()),
        }
    }
}

/// What every example's round comes to, in this order.
fn check(printed: &str) {
    let mut rest = printed;
    for part in [
        "VERDICT_RECORDED",
        "VERDICT_ALREADY_RECORDED",
        "STATE_HELD",
        "the same hold, not a second one",
        "the order's hold is found",
        "STATE_HELD",
        "STATE_FULFILLED",
        "on hand 8, reserved 0, available 8",
        "reason: FIELD_INVALID",
        "field lines[0].quantity:",
    ] {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("{part:?} is not where it should be in\n{printed}");
        };
        rest = behind;
    }
}

/// The checkout in the same language, which `command` runs: an order goes through once, and one
/// that is not paid for is released. Its basket comes from what the example's round has left.
async fn check_checkout(example: &Example, command: &[&str], cluster: &Cluster) {
    let (program, begins) = command.split_first().unwrap();
    let endpoints = [1, 2, 3].map(|node| cluster.address(node)).join(",");
    let basket = format!("{0}-umbrella@{0}-store=1", example.language);
    let checkout = async |order: &str, more: &[&str]| {
        let options = ["--endpoint", &endpoints, "--journal", "orders"];
        let arguments = [begins, &options, more, &[order, &basket]].concat();
        example.run(program, &arguments).await
    };
    let order = fresh("O");
    for said in ["confirmed", "was confirmed before as "] {
        let printed = checkout(&order, &[]).await.unwrap();
        assert!(printed.contains(&format!("{order}: {said}")), "{printed}");
    }
    let order = fresh("O");
    let why = checkout(&order, &["--declined"]).await.unwrap_err();
    let said = format!("Error: {order}: not paid, and released");
    assert!(why.contains(&said), "{why}");
}

#[tokio::test]
async fn a_client_in_python() {
    let _compiles = programs::MUCH_WORK.lock().await;
    let example = Example::copy("python").await;
    let python = ".venv/bin/python";
    let install: [(&str, &[&str]); 2] = [
        ("python3", &["-m", "venv", ".venv"]),
        (
            python,
            &["-m", "pip", "install", "-q", "-r", "requirements.txt"],
        ),
    ];
    if !example.has_been_made(&install).await {
        return;
    }
    let cluster = Cluster::shared().await;
    let arguments = ["quickstart.py", "--endpoint", &cluster.address(1)];
    let python = example.path().join(python);
    let python = python.to_str().unwrap();
    let printed = example.run(python, &arguments).await;
    check(&printed.unwrap());
    check_checkout(&example, &[python, "checkout.py"], &cluster).await;
}

#[tokio::test]
async fn a_client_in_go() {
    let _compiles = programs::MUCH_WORK.lock().await;
    let example = Example::copy("go").await;
    let install: [(&str, &[&str]); 2] = [("go", &["version"]), ("go", &["mod", "download"])];
    if !example.has_been_made(&install).await {
        return;
    }
    example.run("go", &["generate"]).await.unwrap();
    let cluster = Cluster::shared().await;
    let arguments = ["run", ".", "-endpoint", &cluster.address(2)];
    let printed = example.run("go", &arguments).await;
    check(&printed.unwrap());
    check_checkout(&example, &["go", "run", "./checkout"], &cluster).await;
}

#[tokio::test]
async fn a_client_in_typescript() {
    let _compiles = programs::MUCH_WORK.lock().await;
    let example = Example::copy("typescript").await;
    let install: [(&str, &[&str]); 1] = [("npm", &["ci", "--no-audit", "--no-fund"])];
    if !example.has_been_made(&install).await {
        return;
    }
    example.run("npm", &["run", "build"]).await.unwrap();
    let cluster = Cluster::shared().await;
    let arguments = ["run", "start", "--", &cluster.address(3)];
    let printed = example.run("npm", &arguments).await;
    check(&printed.unwrap());
    check_checkout(&example, &["npm", "run", "checkout", "--"], &cluster).await;
}
