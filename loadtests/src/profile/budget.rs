//! Where the time of a line goes, part by part.

use comfy_table::Table;

use crate::lab::{self, ratio};

/// A part of a node, and how its frames are known: the first part that a stack has a frame of has
/// all of the stack.
struct Part {
    name: &'static str,
    frames: &'static [&'static str],
}

const PARTS: [Part; 11] = [
    Part {
        name: "ledger, on its thread",
        frames: &["stockd::history::thread", "sled::", "sled-io"],
    },
    Part {
        name: "log: fdatasync",
        frames: &["fdatasync"],
    },
    Part {
        name: "log: all else of a write",
        frames: &["Log::write"],
    },
    Part {
        name: "peers: sending",
        frames: &["Link::send"],
    },
    Part {
        name: "peers: receiving",
        frames: &["Peers::dial", "Peers::listen"],
    },
    Part {
        name: "apply",
        frames: &["stock_node::applying", "Worker<R>::apply"],
    },
    Part {
        name: "raft",
        frames: &["stock_replica::"],
    },
    Part {
        name: "loop: all else of a turn",
        frames: &["stockd::host", "stock_node::worker"],
    },
    Part {
        name: "edge: check, propose, answer",
        frames: &["stockd::api"],
    },
    Part {
        name: "transport: HTTP/2 and gRPC",
        frames: &["h2::", "hyper", "tonic", "tower", "axum"],
    },
    Part {
        name: "runtime and kernel beside",
        frames: &[""],
    },
];

/// Of collapsed stacks, `a;b;c 12` a line: the share of each part, and so of one line's processor
/// time in us.
pub(super) fn table(folded: &str, line_us: f64) -> Table {
    let mut counts = [0_u64; PARTS.len()];
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else {
            continue;
        };
        let of = |part: &Part| part.frames.iter().any(|frame| stack.contains(frame));
        if let Some(at) = PARTS.iter().position(of) {
            counts[at] += count.parse().unwrap_or(0);
        }
    }
    let total: u64 = counts.iter().sum();
    let mut table = lab::table(1, ["part", "%", "us of one line"]);
    for (part, count) in PARTS.iter().zip(counts) {
        let share = ratio(count as f64, total as f64);
        table.add_row([
            part.name.to_owned(),
            format!("{:.1}", share * 100.0),
            format!("{:.1}", share * line_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_belongs_to_the_first_part_that_it_passes() {
        let folded = "stockd;stockd::host::in_runtime;stock_storage::log::Log::write;fdatasync 3\n\
            stockd;stockd::host::in_runtime;stock_storage::log::Log::write;memmove 2\n\
            stockd;h2::server;stockd::api::reserve 4\n\
            stockd;park;epoll_wait 1";
        let table = table(folded, 50.0).to_string();
        let row = |name: &str| {
            let line = table.lines().find(|line| line.contains(name));
            let cells = line.unwrap().split('|').skip(2).map(str::trim);
            cells.take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("fdatasync"), "30.0 15.0");
        assert_eq!(row("all else of a write"), "20.0 10.0");
        assert_eq!(row("edge:"), "40.0 20.0");
        assert_eq!(row("HTTP/2"), "0.0 0.0");
        assert_eq!(row("beside"), "10.0 5.0");
    }
}
