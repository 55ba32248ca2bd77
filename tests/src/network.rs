//! Networks that break: each node in a network namespace of its own, and whatever one sends to
//! another lost in silence when a test says so.
//!
//! The namespaces hang on a bridge in a namespace of its own, to which the process that made them
//! is connected, too: it reaches every node, also one that no other node reaches. Packets are
//! dropped where they arrive, so that their sender learns nothing. It needs to be root, `ip` and
//! `nft`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::cluster::NODES;

/// What its namespaces are called, before the id of the process that made them.
const NAME: &str = "stockd-test-";

/// A range that is set aside for tests of networks (RFC 2544): 198.18.0.0/15.
const FIRST_BYTE: u8 = 198;
const SECOND_BYTES: std::ops::RangeInclusive<u8> = 18..=19;

/// The last byte of this process's own address; those of the nodes are their ids.
const OWN: u64 = 254;

const ATTEMPTS_MAX: u32 = 100;

/// Three namespaces and what connects them. They go when this is dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// The first three bytes of every address.
    prefix: String,
}

impl Network {
    /// Why there can be no such network here; none if there can.
    pub fn unavailable() -> Option<String> {
        // Once, and not at the same time for several tests: the first namespace of a machine makes
        // the place where all of them are kept.
        static WHY_NOT: LazyLock<Option<String>> = LazyLock::new(try_out);
        WHY_NOT.clone()
    }

    /// Three namespaces that reach each other and this process.
    pub fn build() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        static BUILDING: Mutex<()> = Mutex::new(());
        // One at a time, so that no two take the same addresses.
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        delete_left_behind();
        let id = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Dropped whole, should one of the steps fail.
        let network = Self {
            name: format!("{NAME}{id}-{number}"),
            prefix: free_prefix(),
        };
        let hub = network.hub();
        let own_link = format!("s{id}n{number}");
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add bridge type bridge"));
        ip(&format!("-n {hub} link set bridge up"));
        let peer = format!("type veth peer name own netns {hub}");
        ip(&format!("link add {own_link} {peer}"));
        ip(&format!("-n {hub} link set own master bridge up"));
        let own = network.address(OWN);
        ip(&format!("addr add {own}/24 dev {own_link}"));
        ip(&format!("link set {own_link} up"));
        for node in NODES {
            let space = network.namespace(node);
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
            let peer = format!("type veth peer name eth0 netns {space}");
            ip(&format!("-n {hub} link add node{node} {peer}"));
            ip(&format!("-n {hub} link set node{node} master bridge up"));
            let address = network.address(node);
            ip(&format!("-n {space} addr add {address}/24 dev eth0"));
            ip(&format!("-n {space} link set eth0 up"));
            network.nft(node, "add table inet broken");
            network.nft(node, "add set inet broken unheard { type ipv4_addr; }");
            let chain = "add chain inet broken arriving";
            let hook = "{ type filter hook input priority 0; }";
            network.nft(node, &format!("{chain} {hook}"));
            let rule = "add rule inet broken arriving ip saddr @unheard drop";
            network.nft(node, rule);
        }
        network
    }

    /// The address of a node.
    pub fn address(&self, node: u64) -> String {
        format!("{}.{node}", self.prefix)
    }

    /// A command that runs `program` where a node is. It becomes the program, under the same
    /// process id.
    pub fn command(&self, node: u64, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(node)])
            .arg(program);
        command
    }

    /// Whatever one node sends to another is lost from now on; what that one sends is not.
    pub fn block(&self, from: u64, to: u64) {
        let element = format!("{{ {} }}", self.address(from));
        self.nft(to, &format!("add element inet broken unheard {element}"));
    }

    /// A node and the others do not hear each other from now on.
    pub fn isolate(&self, node: u64) {
        for other in NODES.into_iter().filter(|other| *other != node) {
            self.block(node, other);
            self.block(other, node);
        }
    }

    /// Everybody hears everybody.
    pub fn heal(&self) {
        for node in NODES {
            self.nft(node, "flush set inet broken unheard");
        }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn namespace(&self, node: u64) -> String {
        format!("{}-{node}", self.name)
    }

    fn nft(&self, node: u64, words: &str) {
        let space = self.namespace(node);
        let done = run("ip", &["netns", "exec", &space, "nft", words]);
        done.unwrap_or_else(|why| panic!("{why}"));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in NODES.map(|node| self.namespace(node)) {
            // The errors say that it was never made.
            let _ = run("ip", &["netns", "del", &space]);
        }
        // This process's end goes with the other.
        let _ = run("ip", &["netns", "del", &self.hub()]);
    }
}

/// What stands in the way of a namespace.
fn try_out() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces are made by root only".to_owned());
    }
    for program in ["ip", "nft"] {
        if let Err(e) = Command::new(program).arg("-V").output() {
            return Some(format!("{program} cannot be run: {e}"));
        }
    }
    // In a container, root need not be allowed to.
    let trial = format!("{NAME}{}-trial", std::process::id());
    let made = run("ip", &["netns", "add", &trial]);
    let _ = run("ip", &["netns", "del", &trial]);
    made.err()
}

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    run("ip", &words).unwrap_or_else(|why| panic!("{why}"));
}

fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|e| format!("{program} cannot be run: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(format!("{program} {}: {said}", words.join(" ")))
}

/// A range that nobody uses here.
fn free_prefix() -> String {
    let used = run("ip", &["-4", "addr"]).unwrap_or_else(|why| panic!("{why}"));
    for _ in 0..ATTEMPTS_MAX {
        let second = rand::random_range(SECOND_BYTES);
        let third: u8 = rand::random();
        let prefix = format!("{FIRST_BYTE}.{second}.{third}");
        if !used.contains(&format!("{prefix}.")) {
            return prefix;
        }
    }
    panic!("no free range of addresses");
}

/// A run that was killed deletes nothing.
fn delete_left_behind() {
    let spaces = run("ip", &["netns", "list"]).unwrap_or_default();
    for space in spaces.lines().filter_map(|line| line.split(' ').next()) {
        let process = space
            .strip_prefix(NAME)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another run may be cleaning up, too.
            let _ = run("ip", &["netns", "del", space]);
        }
    }
}
