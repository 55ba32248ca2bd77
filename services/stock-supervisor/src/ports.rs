//! Free loopback ports.

use std::io;
use std::net::TcpListener;

/// Below the range from which the kernel takes ports for outgoing connections. A port from inside
/// it could be taken by any connection while a killed node is down, even by one to that very port,
/// which would then talk to itself.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

const ATTEMPTS_MAX: u32 = 1_000;

/// As many free ports. They are free now; whoever starts a server on one must be ready to try
/// again.
pub fn free(count: usize) -> io::Result<Vec<u16>> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::random_range(FIRST..LAST);
        // Held until all are found, so that none is found twice.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    let none = format!("no {count} free ports between {FIRST} and {LAST}");
    Err(io::Error::other(none))
}

/// A port from which on these many ahead were free just now, as `stockd dev` wants them.
pub fn free_range(offsets: &[u16]) -> io::Result<u16> {
    for _ in 0..ATTEMPTS_MAX {
        let base = rand::random_range(FIRST..LAST);
        let is_free = |offset: &u16| TcpListener::bind(("127.0.0.1", base + offset)).is_ok();
        if offsets.iter().all(is_free) {
            return Ok(base);
        }
    }
    let none = format!("no free range of ports between {FIRST} and {LAST}");
    Err(io::Error::other(none))
}
