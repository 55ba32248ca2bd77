//! A disk that fails the ledger alone: stock goes on, and the ledger does, too, when the disk is
//! well again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use stock_storage::{Ledger, LedgerBatch, LedgerError};
use tests::cluster::{Cluster, Disks, Options};
use tests::forgetful_disk::{ForgetfulDisk, Op};
use tests::programs::data_dir;
use tests::shop::Shop;
use tests::wait::until;

use crate::can_mount;

const SEED: u64 = 20_261_122;

/// Calls after a fault: the ledger is written at every one.
const CALLS: u64 = 100;

/// Failed writes, each at another moment of a batch.
const FAILED_WRITES: u64 = 40;

/// The ledger is synced ten times a second, and opened again a second after it failed.
const AGAIN_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_ledger_that_failed_is_opened_again_and_stock_never_notices() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(Options {
        shards: 2,
        disks: Disks::Forgetful { seed: SEED },
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let node = cluster.leader_of(0).await;
    let said = |what: &str| cluster.log(node).matches(what).count();
    // Once: what the node itself asks for. Then also what sled does when it is closed, and when it
    // is opened.
    for (op, times) in [(Op::Sync, 1), (Op::Sync, 2), (Op::Write, 1), (Op::Sync, 3)] {
        let failed_before = said("the ledger failed");
        let opened_before = said("the ledger is open again");
        let trouble = async {
            for _ in 0..times {
                cluster.disk(node).fail_next(op, Errno::IO, "ledger/db");
            }
            shop.more_calls(CALLS).await;
            until("a ledger that fails", AGAIN_WITHIN, async || {
                let failed = said("the ledger failed") > failed_before;
                failed.then_some(()).ok_or("it goes on".to_owned())
            })
            .await;
            until("a ledger that is open again", AGAIN_WITHIN, async || {
                let opened = said("the ledger is open again") > opened_before;
                opened.then_some(()).ok_or("it is closed".to_owned())
            })
            .await;
            cluster.disk(node).heal();
            shop.more_calls(CALLS).await;
        };
        shop.trade_during(SEED, trouble).await;
        assert_eq!(shop.failures(), 0, "{op:?}, {times} times");
        shop.account_for_new(&cluster).await;
    }
    assert_eq!(cluster.ended(node), None);
    shop.account_for_all(&cluster).await;
}

/// Sled lets whoever flushes wait for ever, where a write fails that began while another thread
/// wrote, too.
#[test]
fn whoever_waits_for_a_write_that_fails_is_told() {
    if !can_mount() {
        return;
    }
    let dir = data_dir();
    let disk = ForgetfulDisk::mount(&dir.path().join("disk"), SEED).unwrap();
    for round in 0..FAILED_WRITES {
        let ledger = Ledger::open(&disk.path().join(format!("{round}"))).unwrap();
        let ledger = ledger.ledger;
        ledger.begin(1, 0).unwrap();
        ledger.sync().unwrap();
        let (done, failed) = mpsc::channel();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (ledger, is_over) = (&ledger, &is_over);
            scope.spawn(move || {
                let append = |index| {
                    let mut batch = LedgerBatch::new();
                    batch.append(1, index, [vec![7; 100]]);
                    ledger.append(&mut batch)
                };
                for index in 1.. {
                    if is_over.load(Ordering::Relaxed) || append(index).is_err() {
                        break;
                    }
                }
            });
            scope.spawn(move || {
                let error = loop {
                    if let Err(error) = ledger.sync() {
                        break error;
                    }
                };
                let _ = done.send(error);
            });
            thread::sleep(Duration::from_micros(500 * round));
            disk.fail_next(Op::Write, Errno::IO, "db");
            let told = failed.recv_timeout(AGAIN_WITHIN);
            is_over.store(true, Ordering::Relaxed);
            let error = told.expect("the flush does not end");
            assert!(
                matches!(
                    error,
                    LedgerError::Write { .. } | LedgerError::Failed { .. }
                ),
                "{error}"
            );
        });
    }
}
