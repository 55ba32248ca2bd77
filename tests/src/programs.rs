//! The programs under test, and where their data goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use stock_supervisor::ports;

use crate::forgetful_disk::unmount_left_behind;

/// `stockd`.
pub fn stockd() -> PathBuf {
    built().join("stockd")
}

/// `stockctl`.
pub fn stockctl() -> PathBuf {
    built().join("stockctl")
}

/// The checkout of `examples/rust`.
pub fn checkout() -> PathBuf {
    built().join("checkout")
}

/// Compilers leave nothing of the processors to others, whatever their priority, nor do thousands
/// of calls at once. Tests that make so much work hold this, and so does a test that looks how long
/// a node makes its callers wait.
pub static MUCH_WORK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// `stockd` as the next version of it could be, which knows a command, a field of a request, one of
/// an answer and one of a state that this one does not: see `tests/upgrade`.
/// None where there is no `patch` to make it with.
pub fn next_stockd() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        Command::new("patch").arg("--version").output().ok()?;
        let copy = target_dir().join("tmp").join("next");
        let script = workspace_dir().join("tests/upgrade/build.sh");
        let output = Command::new("nice")
            .args(["-n", "19"])
            .arg(script)
            .arg(copy)
            .args(["stockd", "stockd-next", "--profile", profile()])
            .arg("--target-dir")
            .arg(target_dir())
            .output()
            .unwrap_or_else(|e| panic!("the next version cannot be built: {e}"));
        assert!(
            output.status.success(),
            "the next version does not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(profile_dir().join("stockd-next"))
    });
    built.as_deref()
}

/// What memory a process has of its own, without the pages of files.
pub fn resident_bytes(process: u32) -> u64 {
    let bytes = stock_supervisor::memory_bytes(process, "RssAnon");
    bytes.unwrap_or_else(|e| panic!("process {process}: {e}"))
}

/// The ports that this process was given. Each is given once: a node that is down for a while finds
/// its ports as it left them, whatever clusters other tests start meanwhile.
static PORTS_GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// As many free loopback ports.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut given = PORTS_GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut new = Vec::with_capacity(count);
    while new.len() < count {
        let free = ports::free(count - new.len()).unwrap_or_else(|e| panic!("{e}"));
        new.extend(free.into_iter().filter(|port| given.insert(*port)));
    }
    new
}

/// A port from which on these many ahead are free.
pub fn free_range(offsets: &[u16]) -> u16 {
    let mut given = PORTS_GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let base = ports::free_range(offsets).unwrap_or_else(|e| panic!("{e}"));
        let range = offsets.iter().map(|offset| base + offset);
        if range.clone().all(|port| !given.contains(&port)) {
            given.extend(range);
            return base;
        }
    }
}

/// A command that runs `stockd`.
pub fn run_stockd() -> Command {
    without_settings(Command::new(stockd()))
}

/// A command that runs `stockctl`, without the contexts of whoever runs the tests.
pub fn run_stockctl() -> Command {
    let mut command = without_settings(Command::new(stockctl()));
    command
        .env_remove("STOCKCTL_CONTEXT")
        .env("STOCKCTL_CONFIG", "/dev/null");
    command
}

/// A command that is handed none of the variables that are meant for other nodes, or for the tests.
pub fn without_settings(mut command: Command) -> Command {
    stock_supervisor::without_settings(&mut command, &[]);
    command
}

/// A directory for the data of tests, below the target directory: on a real disk, where a temporary
/// directory is often in memory and fsync means nothing.
pub fn data_root() -> PathBuf {
    static CLEANED: OnceLock<PathBuf> = OnceLock::new();
    let root = CLEANED.get_or_init(|| {
        let root = target_dir().join("tmp").join("clusters");
        std::fs::create_dir_all(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        // What is still mounted cannot be removed.
        unmount_left_behind();
        remove_left_behind(&root);
        root
    });
    root.clone()
}

/// A new directory in [`data_root`], named after this process.
pub fn data_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{}-", std::process::id()))
        .tempdir_in(data_root())
        .unwrap_or_else(|e| panic!("no data directory: {e}"))
}

/// A run that was killed cleans nothing up, and a cluster that all tests share is never dropped.
fn remove_left_behind(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split_once('-'));
        if process.is_some_and(|(id, _)| !Path::new("/proc").join(id).exists()) {
            // Another run may be cleaning up, too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Builds the programs, once per process, with the profile of this test, and returns where they
/// are.
///
/// `cargo test` builds a package's binaries for the package's own integration tests only, so that
/// `cargo test --workspace` on an empty machine comes here without `stockd`; and what lies in the
/// target directory may be old. Cargo has let go of its lock by the time tests run, and everything
/// these two need has been built for the workspace with the same features: what is left to do is to
/// compile their `main.rs` and link.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--bins"])
            .args(["-p", "stockd", "-p", "stockctl", "-p", "checkout"])
            .args(["--profile", profile()])
            .arg("--manifest-path")
            .arg(workspace_dir().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target_dir())
            .output()
            .unwrap_or_else(|e| panic!("cargo cannot be run: {e}"));
        assert!(
            output.status.success(),
            "stockd, stockctl and the checkout do not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        profile_dir()
    })
}

/// The profile that this program was built with.
fn profile() -> &'static str {
    static PROFILE: OnceLock<String> = OnceLock::new();
    PROFILE.get_or_init(|| {
        let name = profile_dir().file_name().map(ToOwned::to_owned);
        match name.as_ref().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev".to_owned(),
            Some(profile) => profile.to_owned(),
        }
    })
}

/// The root of the source tree.
pub fn workspace_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// `target/debug`, where a test runs as `target/debug/deps/NAME-HASH` and a program as
/// `target/debug/NAME`.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_else(|e| panic!("where am I? {e}"));
    let mut dirs = exe.ancestors().skip(1);
    let dir = dirs.find(|dir| !dir.ends_with("deps"));
    dir.unwrap_or_else(|| panic!("{} is in no target directory", exe.display()))
        .to_owned()
}

fn target_dir() -> PathBuf {
    profile_dir()
        .parent()
        .map_or_else(PathBuf::new, Path::to_owned)
}
