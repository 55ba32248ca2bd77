//! The programs under test, and where their data goes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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

/// What memory a process has of its own, without the pages of files.
pub fn resident_bytes(process: u32) -> u64 {
    let bytes = stock_supervisor::memory_bytes(process, "RssAnon");
    bytes.unwrap_or_else(|e| panic!("process {process}: {e}"))
}

/// As many free loopback ports.
pub fn free_ports(count: usize) -> Vec<u16> {
    ports::free(count).unwrap_or_else(|e| panic!("{e}"))
}

/// A command that runs `stockd`.
pub fn run_stockd() -> Command {
    without_settings(Command::new(stockd()))
}

/// A command that runs `stockctl`.
pub fn run_stockctl() -> Command {
    without_settings(Command::new(stockctl()))
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

/// Builds both programs, once per process, with the profile of this test, and returns where they
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
        let profile_dir = profile_dir();
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--bins"])
            .args(["-p", "stockd", "-p", "stockctl", "--profile", profile])
            .arg("--manifest-path")
            .arg(workspace_dir().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target_dir())
            .output()
            .unwrap_or_else(|e| panic!("cargo cannot be run: {e}"));
        assert!(
            output.status.success(),
            "stockd and stockctl do not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target_dir().join(profile_dir.file_name().unwrap_or_default())
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
