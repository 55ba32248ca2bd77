//! Disks that fail under load: whatever a node could not write, it never acknowledged.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::io::Errno;
use tests::cluster::{Cluster, Disks, NODES, Options};
use tests::forgetful_disk::Op;
use tests::inspection::verify_what_is_left;
use tests::settings;
use tests::shop::Shop;
use tests::wait::until;

use crate::can_mount;

/// Faults in a short run.
const FAULTS: u64 = 3;

const SEED: u64 = 20_260_702;

/// After so much log a state is written down: disks fail then, too.
const CHECKPOINT_AFTER_BYTES: u64 = 16 * 1024;

/// Calls before a fault, at most.
const CALLS_BEFORE_MAX: u64 = 200;

/// Calls after it.
const CALLS_AFTER: u64 = 100;

/// A disk that is filling up has room for this much, at most.
const BYTES_LEFT_MAX: u64 = 16 * 1024;

/// How long a disk is given to meet a fault: some are of a kind that no node asks for just now.
const MET_WITHIN: Duration = Duration::from_millis(700);

/// From the first disk that fails until those that fail for the same reason have, and their nodes
/// have done what they do then.
const AFTERMATH: Duration = Duration::from_millis(300);

/// From a disk's failure until its node has ended.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Once(Op, Errno),
    Syncs(Errno),
    Full(u64),
}

impl Fault {
    fn draw(random: &mut StdRng) -> Self {
        let errno = draw_errno(random);
        match random.random_range(0..6) {
            0 => Self::Syncs(errno),
            1 => Self::Full(random.random_range(0..=BYTES_LEFT_MAX)),
            2 => Self::Once(Op::Write, errno),
            3 => Self::Once(Op::Sync, errno),
            _ => Self::Once(draw_change(random), errno),
        }
    }

    /// One for a node that starts: then it reads, lists, makes and cuts off files, too.
    fn draw_for_start(random: &mut StdRng) -> Self {
        match random.random_range(0..4) {
            0 => Self::Once(Op::Read, Errno::IO),
            1 => Self::Once(Op::Open, Errno::IO),
            _ => Self::Once(draw_change(random), draw_errno(random)),
        }
    }

    fn begin(self, cluster: &Cluster, node: u64) {
        let disk = cluster.disk(node);
        match self {
            Self::Once(op, errno) => disk.fail_next(op, errno, ""),
            Self::Syncs(errno) => disk.fail_syncs(errno),
            Self::Full(bytes_left) => disk.full(bytes_left),
        }
    }
}

fn draw_errno(random: &mut StdRng) -> Errno {
    match random.random_bool(0.5) {
        true => Errno::IO,
        false => Errno::NOSPC,
    }
}

fn draw_change(random: &mut StdRng) -> Op {
    Op::CHANGES[random.random_range(0..Op::CHANGES.len())]
}

#[tokio::test]
async fn a_failed_write_or_sync_is_never_acknowledged() {
    if !can_mount() {
        return;
    }
    let (faults, seed) = (
        settings::number("STOCKD_DISK_FAULTS", FAULTS),
        settings::seed(SEED),
    );
    let cluster = Cluster::start(Options {
        shards: 4,
        disks: Disks::Forgetful { seed },
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    for node in NODES {
        cluster.disk(node).refuse_allocation();
    }
    let shop = Shop::open(&cluster).await;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut met, mut met_at_start) = (0, 0);
    for number in 0..faults {
        let victims = match number % 2 {
            0 => vec![NODES[random.random_range(0..NODES.len())]],
            _ => NODES.to_vec(),
        };
        let fault = Fault::draw(&mut random);
        let at_start = Fault::draw_for_start(&mut random);
        let before = random.random_range(1..=CALLS_BEFORE_MAX);
        let cut_seed: u64 = random.random();
        let trouble = async {
            shop.more_calls(before).await;
            let already = faults_met(&cluster);
            victims.iter().for_each(|node| fault.begin(&cluster, *node));
            let met_by = victims_of(&cluster, &already).await;
            eprintln!("fault {number}: {fault:?} for {victims:?}, met by {met_by:?}");
            // A node none of whose syncs succeeds can do nothing that is worth an answer: the next
            // thing it is told ends it. Of other failures some may be lived with: those of what can
            // be made again.
            let is_told = victims.len() == 1;
            let must_end = met_by
                .iter()
                .filter(|_| is_told && matches!(fault, Fault::Syncs(_)));
            for node in must_end {
                until("the end of a node", ENDED_WITHIN, async || {
                    let ended = cluster.ended(*node);
                    ended.ok_or(format!("node {node} runs on a failed disk"))
                })
                .await;
            }
            if victims.len() == 1 {
                shop.more_calls(CALLS_AFTER).await;
            }
            // Whatever the failed disks said, this is what they have.
            cluster.cut_power(&NODES, cut_seed);
            met_at_start += start_badly(&cluster, at_start).await;
            cluster.cut_power(&NODES, cut_seed);
            cluster.restore_power(&NODES);
            cluster.wait_until_led().await;
            shop.more_calls(CALLS_AFTER).await;
            met_by.len() as u64
        };
        met += shop.trade_during(random.random(), trouble).await;
        shop.account_for_new(&cluster).await;
    }
    shop.account_for_all(&cluster).await;
    let calls = shop.calls();
    eprintln!("{faults} faults, met {met} times and {met_at_start} times at start, {calls} calls");
    assert!(met > 0, "no fault was met");
    // Not what was damaged on the way, but all that is there in the end.
    verify_what_is_left(&cluster);
}

/// Starts every node on a disk that fails it once. Whether the node gives up or goes on, it must
/// not take what it could not read for what is not there. Returns how many were failed.
async fn start_badly(cluster: &Cluster, fault: Fault) -> u64 {
    let already = faults_met(cluster);
    for node in NODES {
        cluster.disk(node).restore();
        fault.begin(cluster, node);
        cluster.restart(node);
    }
    let met_by = victims_of(cluster, &already).await;
    eprintln!("  at start: {fault:?}, met by {met_by:?}");
    met_by.len() as u64
}

fn faults_met(cluster: &Cluster) -> [u64; 3] {
    NODES.map(|node| cluster.disk(node).faults_met())
}

/// The nodes whose disks have failed them since, once one has or nobody is likely to.
async fn victims_of(cluster: &Cluster, already: &[u64; 3]) -> Vec<u64> {
    let met = || {
        let now = faults_met(cluster);
        let met = NODES.iter().zip(now.iter().zip(already));
        let met = met.filter(|(_, (now, already))| now > already);
        met.map(|(node, _)| *node).collect::<Vec<u64>>()
    };
    let wait = async {
        while met().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Not met in time is an answer, too.
    if tokio::time::timeout(MET_WITHIN, wait).await.is_ok() {
        tokio::time::sleep(AFTERMATH).await;
    }
    met()
}
