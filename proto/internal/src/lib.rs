//! What nodes say to each other (`cluster.v1`), and what is replicated and kept (`log.v1`),
//! compiled. Messages only: no transport is among what this crate depends on, so that pure crates
//! can use it. The `.proto` files are the reference.

/// Node to node.
#[expect(clippy::all, reason = "generated code")]
pub mod cluster {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/cluster.v1.rs"));
    }
}

/// What is replicated and kept.
#[expect(clippy::all, reason = "generated code")]
pub mod log {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/log.v1.rs"));
    }
}
