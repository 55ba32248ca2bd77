//! The thread that starts processes.
//!
//! `stockd serve --die-with-parent` has the kernel kill the node when the *thread* that started it
//! ends. Threads come and go, with tests or with a runtime; so one that ends with this process
//! starts every other process.

use std::io;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

struct Order {
    command: Command,
    started: Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = channel::<Order>();
    std::thread::spawn(move || {
        for mut order in inbox {
            // Whoever ordered it waits for it.
            let _ = order.started.send(order.command.spawn());
        }
    });
    orders
});

/// As [`Command::spawn`], from the thread that lives as long as the process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (started, wait) = channel();
    let gone = || io::Error::other("the spawning thread has ended");
    let order = Order { command, started };
    SPAWNER.send(order).map_err(|_| gone())?;
    wait.recv().map_err(|_| gone())?
}
