//! A disk that fails the ledger alone: stock goes on, and the ledger does, too, when the disk is
//! well again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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

/// Failed writes, each at one of so many moments of a batch. One in two hundred was told to nobody.
const FAILED_WRITES: u32 = 400;
const MOMENTS: u32 = 100;
const BETWEEN_MOMENTS: Duration = Duration::from_micros(50);
const CHANGE_BYTES: usize = 20_000;

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

/// By itself sled lets whoever flushes wait for ever, where a write fails that it began when the
/// last of several writers was done.
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
        // Not scoped: a thread that waits for ever must not keep the test from failing.
        let is_over = Arc::new(AtomicBool::new(false));
        let appending = thread::spawn({
            let (ledger, is_over) = (ledger.clone(), Arc::clone(&is_over));
            move || {
                let (mut batch, change) = (LedgerBatch::new(), vec![7; CHANGE_BYTES]);
                for index in 1.. {
                    batch.append(1, index, [&change]);
                    if is_over.load(Ordering::Relaxed) || ledger.append(&mut batch).is_err() {
                        break;
                    }
                }
            }
        });
        let (done, failed) = mpsc::channel();
        let syncing = thread::spawn(move || {
            let error = loop {
                if let Err(error) = ledger.sync() {
                    break error;
                }
            };
            drop(ledger);
            // Whoever waits for it may have given up.
            let _ = done.send(error);
        });
        thread::sleep(BETWEEN_MOMENTS * (round % MOMENTS));
        // Writes of the round before may still be on their way.
        disk.fail_next(Op::Write, Errno::IO, &format!("{round}/ledger/db"));
        let error = failed.recv_timeout(AGAIN_WITHIN);
        is_over.store(true, Ordering::Relaxed);
        let error = error.unwrap_or_else(|_| panic!("the flush of round {round} does not end"));
        let is_of_the_disk = matches!(
            error,
            LedgerError::Write { .. } | LedgerError::Failed { .. }
        );
        assert!(is_of_the_disk, "{error}");
        appending.join().unwrap();
        syncing.join().unwrap();
        disk.heal();
    }
}
