//! What `stockd dev` shows once the cluster is ready: commands to paste.

use std::path::Path;

use super::sample::Sample;

/// Prints the guide. Without sample stock the commands begin by making some.
#[expect(
    clippy::print_stdout,
    reason = "dev talks to the person who started it"
)]
pub(super) fn print(dir: &Path, base_port: u16, sample: Option<&Sample>) {
    let ctl = stockctl(base_port);
    println!();
    match sample {
        Some(sample) => println!(
            "  {} SKUs at {} locations are in stock.",
            sample.skus, sample.locations
        ),
        None => println!("  No sample was loaded."),
    }
    println!();
    println!("Try it, in another terminal:");
    println!();
    if sample.is_none() {
        println!("  {ctl} location put WH-1 --type warehouse --name \"My warehouse\"");
        println!("  {ctl} receive MUG-STONE-BLUE@WH-1=100");
    }
    let location = sample.map_or("WH-1", |_| super::sample::SHOWN_LOCATION);
    println!("  {ctl} availability MUG-STONE-BLUE");
    println!("  {ctl} reserve MUG-STONE-BLUE@{location}=2");
    println!("  {ctl} confirm ID        # the reservation_id that reserve printed");
    println!("  {ctl} fulfill ID");
    println!("  {ctl} cluster status");
    println!();
    println!(
        "  gRPC      http://127.0.0.1:{} to {}  (reflection is on)",
        base_port + 1,
        base_port + 3
    );
    println!(
        "  metrics   http://127.0.0.1:{}/metrics to {}",
        base_port + 11,
        base_port + 13
    );
    println!("  logs      {}", dir.join("node-*/stockd.log").display());
    println!();
    println!(
        "Kill any node: it comes back, and nothing acknowledged is lost. Ctrl-C stops the cluster."
    );
}

/// How to call stockctl from here: as built beside this program, else through cargo.
fn stockctl(base_port: u16) -> String {
    let exe = std::env::current_exe().ok();
    let beside = exe
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join("stockctl"));
    let mut command = match beside.filter(|path| path.exists()) {
        Some(path) => {
            let here = std::env::current_dir().unwrap_or_default();
            path.strip_prefix(here)
                .map_or_else(|_| path.display().to_string(), |p| p.display().to_string())
        }
        None => "cargo run -q --release --bin stockctl --".to_owned(),
    };
    if base_port != 7400 {
        command.push_str(&format!(" --endpoint http://127.0.0.1:{}", base_port + 1));
    }
    command
}
