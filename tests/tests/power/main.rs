//! Power cuts and failing disks: what was acknowledged is there when the power is back, and nothing
//! is acknowledged that a disk did not take.
//!
//! A long run: `STOCKD_POWER_CUTS=200 STOCKD_DISK_FAULTS=200 cargo test --release -p tests --test
//! power`. `STOCKD_SEED` makes it another run.

mod baskets;
mod cuts;
mod disk;
mod faults;
mod ledger;
mod room;
mod slow;

use std::sync::LazyLock;

use tests::forgetful_disk::ForgetfulDisk;

/// Says why a test was not made where there can be no such disk, and whether there can be.
fn can_mount() -> bool {
    static WHY_NOT: LazyLock<Option<String>> = LazyLock::new(ForgetfulDisk::unavailable);
    if let Some(why) = &*WHY_NOT {
        eprintln!("SKIPPED: nothing was tested with a disk that forgets: {why}");
    }
    WHY_NOT.is_none()
}
