//! What is measured: systems that can reserve, each in the way that suits it best.

pub(crate) mod etcd;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod stockd;

use crate::lab::{Caller, Processes};

/// What a call reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One line; the SKUs in turn.
    Uniform,
    /// One line, always of the same SKU.
    Hot,
    /// So many lines of different SKUs, all or nothing.
    Basket(usize),
}

/// A system that runs, with stock that does not run out.
pub(crate) trait System {
    /// How it reserves.
    type Reserve: Caller;

    /// Its servers.
    fn processes(&self) -> Processes;

    /// Calls that can be made at the same time.
    fn reserves(&self, work: Work) -> Vec<Self::Reserve>;

    /// Ends it.
    async fn stop(self) -> anyhow::Result<()>;
}

/// SKUs that peers are asked for: as many as of stockd, which has so many in eight shards.
const PEER_SKUS: usize = 64;

/// More than any run reserves.
const PEER_ON_HAND: i64 = 1_000_000_000;

const LOCATION: &str = "bench";

/// How long a hold lasts, in seconds. Nothing ends it: to look for those that are due is left out
/// of what peers have to do.
const PEER_TTL_SECONDS: u32 = 900;

fn peer_sku(number: usize) -> String {
    format!("bench-{number}")
}

/// The SKUs of each call, in turn.
fn peer_baskets(work: Work) -> Vec<Vec<String>> {
    let size = match work {
        Work::Uniform => 1,
        Work::Hot => return vec![vec![peer_sku(0)]],
        Work::Basket(size) => size,
    };
    let skus: Vec<String> = (0..PEER_SKUS).map(peer_sku).collect();
    // A basket too few for the last of them is left out.
    skus.chunks_exact(size).map(<[String]>::to_vec).collect()
}
